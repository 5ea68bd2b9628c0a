package brokertest

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
)

// A Wire is a TCP relay between one client and its broker that can be cut.
type Wire struct {
	listener net.Listener
	to       string
	running  sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
	cut   bool
}

// NewWire returns a wire to the broker at this address, host and port. It is
// cut when t ends.
func NewWire(t *testing.T, to string) *Wire {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &Wire{listener: l, to: to}
	w.running.Go(w.serve)
	t.Cleanup(w.Cut)
	return w
}

// Addr is the broker's address, for the client.
func (w *Wire) Addr() string { return w.listener.Addr().String() }

// Cut ends all connections, and takes no more.
func (w *Wire) Cut() {
	w.mu.Lock()
	w.cut = true
	_ = w.listener.Close()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.mu.Unlock()
	w.running.Wait()
}

func (w *Wire) serve() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		broker, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", w.to)
		if err != nil {
			_ = client.Close()
			continue
		}
		if !w.track(client, broker) {
			return
		}
		w.running.Go(func() { relay(client, broker) })
		w.running.Go(func() { relay(broker, client) })
	}
}

// track says whether the wire still takes connections, and closes them if not.
func (w *Wire) track(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		for _, c := range conns {
			_ = c.Close()
		}
		return false
	}
	w.conns = append(w.conns, conns...)
	return true
}

// relay ends both connections with the first of them.
func relay(to, from net.Conn) {
	_, _ = io.Copy(to, from) // Either end may go at any time.
	_ = to.Close()
	_ = from.Close()
}
