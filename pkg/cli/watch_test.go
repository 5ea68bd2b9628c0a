package cli_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/dynamic"

	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/pkg/cli"
)

// TestWatch: a watch prints every change once, survives a restart of the API
// server, and ends without an error when interrupted.
func TestWatch(t *testing.T) {
	server := apitest.Start(t, apitest.Hub)
	client := install(t, server)
	cluster := server.Namespace(t)
	works := client.Resource(resources["ManifestWork"]).Namespace(cluster)
	create := func(name string) {
		t.Helper()
		createWork(t, works, name)
	}
	create("first")

	w := startWatch(t, server, cluster)
	w.expect(t, "CLUSTER", "NAME")
	w.expect(t, "first", "Pending")
	create("second")
	w.expect(t, "second", "Pending")

	server.Restart(t)
	create("third")
	w.expect(t, "third", "Pending")
	deleteWork(t, works, "second")
	w.expect(t, "second", "Gone")
	w.end(t)
}

// TestWatchResumed: what was deleted while a watch was interrupted is printed
// when it goes on, and what was made anew under the same name twice.
func TestWatchResumed(t *testing.T) {
	server := apitest.Start(t, apitest.Hub)
	client := install(t, server)
	cluster := server.Namespace(t)
	works := client.Resource(resources["ManifestWork"]).Namespace(cluster)
	createWork(t, works, "anew")
	createWork(t, works, "gone")
	link := newLink(t, server)
	w := startWatch(t, server, cluster, "--server", "https://"+link.address)
	w.expect(t, "CLUSTER", "NAME")
	w.expect(t, "anew", "Pending")
	w.expect(t, "gone", "Pending")
	// What the watch itself tells shows that it runs, and not only the listing.
	createWork(t, works, "kept")
	w.expect(t, "kept", "Pending")

	link.cut()
	deleteWork(t, works, "gone")
	deleteWork(t, works, "anew")
	createWork(t, works, "anew")
	link.restore(t)
	w.expect(t, "anew", "0/1", "Gone")
	w.expect(t, "gone", "0/1", "Gone")
	w.expect(t, "anew", "Pending")
	deleteWork(t, works, "kept")
	w.expect(t, "kept", "Gone")
	w.end(t)
}

// A link carries connections to an API server until it is cut.
type link struct {
	address, upstream string

	mu       sync.Mutex
	listener net.Listener
	conns    []net.Conn
}

func newLink(t *testing.T, server *apitest.Server) *link {
	t.Helper()
	l := &link{address: "127.0.0.1:0", upstream: strings.TrimPrefix(server.Config().Host, "https://")}
	l.restore(t)
	t.Cleanup(l.cut)
	return l
}

// restore listens where the link listened before.
func (l *link) restore(t *testing.T) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", l.address)
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.listener, l.address = listener, listener.Addr().String()
	l.mu.Unlock()
	go func() {
		for {
			down, err := listener.Accept()
			if err != nil {
				return
			}
			up, err := new(net.Dialer).DialContext(context.Background(), "tcp", l.upstream)
			if err != nil {
				_ = down.Close()
				continue
			}
			l.mu.Lock()
			l.conns = append(l.conns, down, up)
			l.mu.Unlock()
			go func() { _, _ = io.Copy(up, down); _ = up.Close() }()
			go func() { _, _ = io.Copy(down, up); _ = down.Close() }()
		}
	}()
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.listener.Close()
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.conns = nil
}

// A watcher is a running get works --watch.
type watcher struct {
	interrupt context.CancelFunc
	code      chan int
	lines     chan string
	stderr    *strings.Builder
}

func startWatch(t *testing.T, server *apitest.Server, cluster string, flags ...string) *watcher {
	t.Helper()
	ctx, interrupt := context.WithCancel(t.Context())
	t.Cleanup(interrupt)
	r, out := io.Pipe()
	w := &watcher{interrupt: interrupt, code: make(chan int, 1), lines: make(chan string), stderr: &strings.Builder{}}
	go func() {
		root := cli.New(genericiooptions.IOStreams{In: strings.NewReader(""), Out: out, ErrOut: w.stderr})
		args := append([]string{"get", "works", "--cluster", cluster, "--watch", "--kubeconfig", server.Kubeconfig()}, flags...)
		w.code <- cli.Execute(ctx, root, args)
		_ = out.Close()
	}()
	go func() {
		defer close(w.lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			w.lines <- s.Text()
		}
	}()
	return w
}

// expect reads one line, which must have the words in it.
func (w *watcher) expect(t *testing.T, words ...string) {
	t.Helper()
	select {
	case line := <-w.lines:
		for _, word := range words {
			if !strings.Contains(line, word) {
				t.Fatalf("got the line %q, want %q in it", line, words)
			}
		}
	case <-time.After(patience):
		t.Fatalf("no line with %q", words)
	}
}

// end interrupts the watch, which must have no more to say.
func (w *watcher) end(t *testing.T) {
	t.Helper()
	w.interrupt()
	select {
	case got := <-w.code:
		if got != 0 {
			t.Errorf("exit code %d after an interrupt, want 0: %s", got, w.stderr)
		}
	case <-time.After(patience):
		t.Fatal("the watch goes on after the interrupt")
	}
	for line := range w.lines {
		t.Errorf("a line too much: %q", line)
	}
}

func createWork(t *testing.T, works dynamic.ResourceInterface, name string) {
	t.Helper()
	work := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "work.open-cluster-management.io/v1",
		"kind":       "ManifestWork",
		"metadata":   map[string]any{"name": name},
		"spec":       map[string]any{},
	}}
	if _, err := works.Create(t.Context(), work, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func deleteWork(t *testing.T, works dynamic.ResourceInterface, name string) {
	t.Helper()
	if err := works.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}
