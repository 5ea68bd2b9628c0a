package agent

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
)

// A state is an agent that is as it is told to be.
type state struct {
	listening bool
	fault     error
}

func (s state) Listening() bool { return s.listening }
func (s state) Healthy() error  { return s.fault }

func TestReadiness(t *testing.T) {
	cases := map[string]struct {
		reason string
		state  state
		code   int
		says   string
	}{
		"ready":        {"broker and store are there", state{listening: true}, http.StatusOK, "ok"},
		"no broker":    {"works do not get here", state{}, http.StatusServiceUnavailable, "broker: not connected"},
		"full disk":    {"works are not taken", state{true, errors.New("no space left on device")}, http.StatusServiceUnavailable, "store: no space left"},
		"both":         {"what can be mended here comes first", state{false, errors.New("no space left on device")}, http.StatusServiceUnavailable, "store: "},
		"read-only fs": {"whatever the reason is", state{true, errors.New("read-only file system")}, http.StatusServiceUnavailable, "read-only"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			registry, err := newRegistry()
			if err != nil {
				t.Fatal(err)
			}
			h := handler(registry, func() error { return ready(c.state) })
			for path, want := range map[string]int{"/readyz": c.code, "/livez": http.StatusOK} {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
				if w.Code != want {
					t.Errorf("%s: %s = %d %s, want %d", c.reason, path, w.Code, w.Body, want)
				}
				if path == "/readyz" && !strings.Contains(w.Body.String(), c.says) {
					t.Errorf("%s: /readyz says %q, want %q", c.reason, w.Body, c.says)
				}
			}
		})
	}
}

// TestMetrics registers everything that an agent registers.
func TestMetrics(t *testing.T) {
	registry, err := newRegistry()
	if err != nil {
		t.Fatal(err)
	}
	transport := mem.NewBroker(mem.Options{}).Open(brokers.Config{Role: brokers.RoleAgent, Name: "c1"})
	defer func() { _ = transport.Close(t.Context()) }()
	a, err := agents.New("c1", &agents.Volatile{}, nil, transport, agents.Options{Sources: []string{"hub1"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := register(registry, a.Collectors()...); err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "fleetcast_") {
			t.Errorf("metric %s: %s", p.Metric, p.Text)
		}
	}
	n, err := testutil.GatherAndCount(registry, "fleetcast_agent_queue_depth")
	if err != nil || n != 2 {
		t.Errorf("%d queue depths, %v, want 2", n, err)
	}
}
