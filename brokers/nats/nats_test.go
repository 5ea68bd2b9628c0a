package nats_test

import (
	"context"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/brokertest"
	"github.com/fleetcast-io/fleetcast/brokers/embedded"
	"github.com/fleetcast-io/fleetcast/brokers/nats"
)

// A testServer is a server that can be stopped and comes back at its address.
type testServer struct {
	mu      sync.Mutex
	running *embedded.NATS
	options embedded.NATSOptions
	url     string
}

// startServer starts a server that ends with the test.
func startServer(tb testing.TB, o embedded.NATSOptions) *testServer {
	tb.Helper()
	if o.DataDir == "" {
		o.DataDir = tb.TempDir()
	}
	// Tests crash no machines.
	o.LazySync = true
	s := &testServer{options: o}
	s.start(tb)
	s.options.Listen = s.running.Addr()
	s.url = s.running.URL()
	tb.Cleanup(func() { s.stop(tb) })
	return s
}

func (s *testServer) start(tb testing.TB) {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	running, err := embedded.StartNATS(s.options)
	if err != nil {
		tb.Fatalf("start server: %v", err)
	}
	s.running = running
}

func (s *testServer) stop(tb testing.TB) {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.running.Close(); err != nil {
		tb.Errorf("stop server: %v", err)
	}
}

// wipe lets the server lose everything.
func (s *testServer) wipe(tb testing.TB) {
	tb.Helper()
	s.stop(tb)
	if err := os.RemoveAll(filepath.Join(s.options.DataDir, "jetstream")); err != nil {
		tb.Fatalf("remove streams: %v", err)
	}
	s.start(tb)
}

// open opens a transport that the caller closes.
func open(tb testing.TB, rawURL string, c brokers.Config) brokers.Transport {
	tb.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		tb.Fatal(err)
	}
	c.Log = logTo(tb)
	tr, err := nats.Open(context.Background(), u, c)
	if err != nil {
		tb.Fatalf("open: %v", err)
	}
	return tr
}

// logTo prints what a driver logs if the test asks for it. It does not use
// tb.Log, as a driver may still log when its test has ended.
func logTo(testing.TB) *slog.Logger {
	if os.Getenv("FLEETCAST_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func TestConformance(t *testing.T) {
	s := startServer(t, embedded.NATSOptions{})
	brokertest.Run(t, brokertest.Harness{
		Open:       func(t *testing.T, c brokers.Config) brokers.Transport { return open(t, s.url, c) },
		Stop:       func(t *testing.T) { s.stop(t) },
		Start:      func(t *testing.T) { s.start(t) },
		Wipe:       func(t *testing.T) { s.wipe(t) },
		Sessions:   true,
		Redelivers: true,
		KeepsLast:  true,
		Log:        true,
		MaxSize:    1 << 20,
		Ignore:     serverGoroutines,
	})
}

// serverGoroutines are those that the server keeps for consumers and streams
// after their clients are gone.
var serverGoroutines = []goleak.Option{
	goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*consumer).processInboundAcks"),
	goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*consumer).processInboundNextMsgReqs"),
	goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*consumer).loopAndGatherMsgs"),
	goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushLoop"),
	goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*msgBlock).flushLoop"),
	goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*consumerFileStore).flushLoop"),
}
