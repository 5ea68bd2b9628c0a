package faults

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
)

// A gate is a proxy in front of an API server that answers in its place what a
// script says. Watches that are open stay open.
type gate struct {
	kubeconfig string
	passing    *httputil.ReverseProxy
	server     *httptest.Server

	mu     sync.Mutex
	script script
	heard  []request // Since the script began.
}

// A script answers a request; nil lets it pass. It is called for one at a time.
type script func(*http.Request) *answer

// An answer is what becomes of a request instead of passing.
type answer struct {
	code       int // 0 answers never, or with pass what the API server says.
	reason     metav1.StatusReason
	message    string
	retryAfter int // In seconds; 0 says nothing about that.

	// pass has the API server carry out the request, and then does what is to
	// happen before its sender hears of it.
	pass func()
}

// A request is what was asked while a script ran.
type request struct {
	at       time.Time
	what     string // Method and URI.
	answered *answer
}

func newGate(t testing.TB, s *apitest.Server) *gate {
	t.Helper()
	config := s.Config()
	target, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	quiet := log.New(io.Discard, "", 0)
	g := &gate{kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	g.passing = &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: transport, FlushInterval: -1, ErrorLog: quiet,
	}
	server := httptest.NewUnstartedServer(g)
	g.server = server
	server.EnableHTTP2, server.Config.ErrorLog = true, quiet
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections() // Else it waits for those that are never answered.
		server.Close()
	})
	k := clientcmdapi.NewConfig()
	k.Clusters["gate"] = &clientcmdapi.Cluster{
		Server:                   server.URL,
		CertificateAuthorityData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
	}
	k.Contexts["gate"] = &clientcmdapi.Context{Cluster: "gate"}
	k.CurrentContext = "gate"
	if err := clientcmd.WriteToFile(*k, g.kubeconfig); err != nil {
		t.Fatal(err)
	}
	return g
}

// ServeHTTP implements http.Handler.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch a := g.hear(r); {
	case a == nil:
		g.passing.ServeHTTP(w, r)
	case a.pass != nil:
		g.passing.ServeHTTP(httptest.NewRecorder(), r)
		a.pass()
	case a.code == 0:
		<-r.Context().Done()
	default:
		a.write(w)
	}
}

func (g *gate) hear(r *http.Request) *answer {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.script == nil {
		return nil
	}
	a := g.script(r)
	g.heard = append(g.heard, request{time.Now(), r.Method + " " + r.URL.RequestURI(), a})
	return a
}

// write sends what an API server would send.
func (a *answer) write(w http.ResponseWriter) {
	status := metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Code: int32(a.code), Reason: a.reason, Message: a.message,
	}
	if a.retryAfter > 0 {
		status.Details = &metav1.StatusDetails{RetryAfterSeconds: int32(a.retryAfter)}
		w.Header().Set("Retry-After", strconv.Itoa(a.retryAfter))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.code)
	_ = json.NewEncoder(w).Encode(status) // Whoever asked may have gone.
}

// begin has the script answer from now on.
func (g *gate) begin(s script) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.script, g.heard = s, nil
}

// end lets everything pass again, and returns what was asked since begin.
func (g *gate) end() []request {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.script = nil
	return g.heard
}

// endWatches ends all that is under way.
func (g *gate) endWatches() { g.server.CloseClientConnections() }

// always gives everybody the same answer.
func always(a answer) script {
	return func(*http.Request) *answer { return &a }
}

// writes gives the answers to those who write, one after the other.
func writes(answers ...answer) script {
	n := 0
	return func(r *http.Request) *answer {
		if r.Method == http.MethodGet {
			return nil
		}
		n++
		return &answers[n%len(answers)]
	}
}

// impatient says who asked again before the time that the answer gave.
func impatient(heard []request) error {
	// What is sent at the very moment may be measured a little early.
	const tolerance = 50 * time.Millisecond
	until := map[string]time.Time{}
	for _, r := range heard {
		if early := until[r.what].Sub(r.at); early > tolerance {
			return fmt.Errorf("%s came %s before the time that the API server asked for", r.what, early.Round(time.Millisecond))
		}
		if r.answered != nil && r.answered.retryAfter > 0 {
			until[r.what] = r.at.Add(time.Duration(r.answered.retryAfter) * time.Second)
		}
	}
	return nil
}

// hot says which request was made more often than most.
func hot(heard []request, most int) error {
	count := map[string]int{}
	for _, r := range heard {
		count[r.what]++
	}
	var errs []error
	for what, n := range count {
		if n > most {
			errs = append(errs, fmt.Errorf("%s was asked %d times, at most %d are no loop", what, n, most))
		}
	}
	return errors.Join(errs...)
}

// gate has the cluster's agent, which it restarts, reach its API server through
// a gate from now on.
func (w *world) gate(c *cluster) *gate {
	w.t.Helper()
	g := newGate(w.t, c.server)
	g.leadsTo(w.t, c.agent)
	w.restart(c.agent)
	return g
}

// hubGate is gate for the hub.
func (w *world) hubGate() *gate {
	w.t.Helper()
	g := newGate(w.t, w.hub.server)
	g.leadsTo(w.t, w.hub.process)
	w.restart(w.hub.process)
	return g
}

// leadsTo has the program use the gate when it is started next.
func (g *gate) leadsTo(t testing.TB, p *process) {
	t.Helper()
	t.Cleanup(p.kill) // The gate closes when nobody has it carry out anything.
	direct := p.command
	p.command = func() *exec.Cmd {
		cmd := direct()
		cmd.Args = append(cmd.Args, "--kubeconfig", g.kubeconfig) // The last one counts.
		return cmd
	}
}

// unexpected is the error where another one, or an error at all, was wanted.
func unexpected(err error) error { return fmt.Errorf("got instead: %w", errors.Join(err, errInstead)) }

// errInstead is beside the error that was got, if any.
var errInstead = errors.New("not what was waited for")

// TestGate holds the gate to what the cases take for granted.
func TestGate(t *testing.T) {
	second := time.Now()
	later := func(d time.Duration, what string, a *answer) request { return request{second.Add(d), what, a} }
	wait := &answer{code: http.StatusTooManyRequests, retryAfter: 2}
	for _, tt := range []struct {
		reason string
		heard  []request
		early  bool
	}{
		{"it came when it was asked to", []request{later(0, "a", wait), later(2*time.Second, "a", wait)}, false},
		{"it came at once", []request{later(0, "a", wait), later(time.Second, "a", nil)}, true},
		{"another one came at once", []request{later(0, "a", wait), later(0, "b", wait)}, false},
		{"nothing was said of a time", []request{later(0, "a", &answer{code: 500}), later(0, "a", nil)}, false},
		{"the first answer passed, the second one counts", []request{later(0, "a", wait), later(3*time.Second, "a", wait), later(4*time.Second, "a", wait)}, true},
	} {
		if err := impatient(tt.heard); (err != nil) != tt.early {
			t.Errorf("%s: %v", tt.reason, err)
		}
	}
	thrice := slices.Repeat([]request{later(0, "a", nil)}, 3)
	if err := hot(thrice, 3); err != nil {
		t.Errorf("three of three are no loop: %v", err)
	}
	if hot(thrice, 2) == nil {
		t.Error("three of two are no loop")
	}
}
