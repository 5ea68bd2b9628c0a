package embedded

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/listeners"
)

const (
	// helloTimeout bounds the TLS handshake and the wait for a client's CONNECT
	// packet. Mochi waits for ever.
	helloTimeout = 20 * time.Second

	// goodbyeTimeout bounds the last packet to a client that does not read.
	goodbyeTimeout = time.Second

	// acceptPause is the wait after a connection could not be accepted.
	acceptPause = 100 * time.Millisecond
)

// An mqttListener is mochi's TCP listener without two faults: it waits for the
// goroutines of its connections, those still in their handshake included, and
// it goes on after running out of file descriptors.
type mqttListener struct {
	net.Listener

	log     *slog.Logger
	traffic traffic
	ended   func(*mqttFlow) // Called when mochi is done with a connection.
	clients sync.WaitGroup
	accept  sync.WaitGroup
	done    chan struct{}

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

var _ listeners.Listener = (*mqttListener)(nil)

func listenMQTT(address string, config *tls.Config, ended func(*mqttFlow)) (*mqttListener, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	return &mqttListener{Listener: l, ended: ended, done: make(chan struct{}), conns: make(map[net.Conn]struct{})}, nil
}

func (l *mqttListener) Init(log *slog.Logger) error {
	l.log = log
	return nil
}

func (l *mqttListener) ID() string       { return "tcp" }
func (l *mqttListener) Address() string  { return l.Addr().String() }
func (l *mqttListener) Protocol() string { return "tcp" }

// Serve hands connections to mochi until Close.
func (l *mqttListener) Serve(establish listeners.EstablishFn) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.accept.Add(1)
	l.mu.Unlock()
	defer l.accept.Done()
	for {
		conn, err := l.Accept()
		if err != nil {
			select {
			case <-l.done:
				return
			case <-time.After(acceptPause):
			}
			l.log.Warn("cannot accept a connection, trying again", "err", err)
			continue
		}
		// Mochi sets another deadline once the client has connected.
		_ = conn.SetDeadline(time.Now().Add(helloTimeout))
		if !l.track(conn) {
			_ = conn.Close()
			return
		}
		l.clients.Go(func() {
			defer l.untrack(conn)
			f := newFlow(conn, &l.traffic)
			defer l.ended(f)
			if err := establish(l.ID(), f); err != nil {
				l.log.Debug("connection ended", "remote", conn.RemoteAddr(), "err", err)
			}
		})
	}
}

func (l *mqttListener) track(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.conns[conn] = struct{}{}
	return true
}

func (l *mqttListener) untrack(conn net.Conn) {
	_ = conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
}

// Close disconnects all clients and returns when they are gone.
func (l *mqttListener) Close(disconnect listeners.CloseFn) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	conns := make([]net.Conn, 0, len(l.conns))
	for conn := range l.conns {
		conns = append(conns, conn)
	}
	l.mu.Unlock()

	close(l.done)
	_ = l.Listener.Close()
	l.accept.Wait()
	for _, conn := range conns {
		_ = conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
	}
	disconnect(l.ID())
	for _, conn := range conns {
		_ = conn.Close()
	}
	l.clients.Wait()
}
