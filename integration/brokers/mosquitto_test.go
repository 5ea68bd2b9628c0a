//go:build integration

package brokers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/brokertest"
	"github.com/fleetcast-io/fleetcast/brokers/mqtt"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// patience bounds a failing run only.
const patience = 60 * time.Second

// A mosquitto is a mosquitto process that can be stopped and started. Its
// binary is looked up in PATH and /usr/sbin, or given with MOSQUITTO.
type mosquitto struct {
	tb      testing.TB
	binary  string
	dir     string
	address string
	process *exec.Cmd
	output  *bytes.Buffer
}

func startMosquitto(tb testing.TB, persistence bool, settings string) *mosquitto {
	tb.Helper()
	m := &mosquitto{tb: tb, binary: os.Getenv("MOSQUITTO"), dir: tb.TempDir(), address: freeAddress(tb)}
	if m.binary == "" {
		var err error
		if m.binary, err = exec.LookPath("mosquitto"); err != nil {
			m.binary = "/usr/sbin/mosquitto"
		}
	}
	_, port, err := net.SplitHostPort(m.address)
	if err != nil {
		tb.Fatal(err)
	}
	config := fmt.Sprintf(`
listener %s 127.0.0.1
allow_anonymous true
persistence %t
persistence_location %s/
max_packet_size 700000
max_queued_messages 100000
log_type warning
log_type error
%s`, port, persistence, m.dir, settings)
	if os.Getuid() == 0 {
		// Else it becomes a user who may not write the folder.
		config += "\nuser root\n"
	}
	if err := os.WriteFile(filepath.Join(m.dir, "mosquitto.conf"), []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
	m.start()
	tb.Cleanup(func() {
		m.stop(syscall.SIGKILL)
		if tb.Failed() {
			tb.Logf("mosquitto's log:\n%s", m.output)
		}
	})
	return m
}

// freeAddress returns an address that nobody listens on.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (m *mosquitto) start() {
	m.tb.Helper()
	if m.process != nil {
		return
	}
	if m.output == nil {
		m.output = new(bytes.Buffer)
	}
	m.process = exec.Command(m.binary, "-c", filepath.Join(m.dir, "mosquitto.conf"))
	m.process.Stdout, m.process.Stderr = m.output, m.output
	if err := m.process.Start(); err != nil {
		m.tb.Fatalf("start mosquitto: %v", err)
	}
	m.until("mosquitto listens", func() bool {
		c, err := net.Dial("tcp", m.address)
		if err != nil {
			return false
		}
		_ = c.Close()
		return true
	})
}

func (m *mosquitto) stop(how syscall.Signal) {
	m.tb.Helper()
	if m.process == nil {
		return
	}
	m.signal(how)
	_ = m.process.Wait() // Its exit code says how it was ended.
	m.process = nil
}

func (m *mosquitto) signal(s syscall.Signal) {
	m.tb.Helper()
	if err := m.process.Process.Signal(s); err != nil {
		m.tb.Errorf("signal mosquitto: %v", err)
	}
}

func (m *mosquitto) database() string { return filepath.Join(m.dir, "mosquitto.db") }

func (m *mosquitto) until(what string, cond func() bool) {
	m.tb.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			m.tb.Fatalf("waited %s until %s; its log:\n%s", patience, what, m.output)
		}
	}
}

func (m *mosquitto) open(tb testing.TB, c brokers.Config) brokers.Transport {
	tb.Helper()
	if testing.Verbose() {
		c.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	tr, err := mqtt.Open(context.Background(), &url.URL{Scheme: "mqtt", Host: m.address}, c)
	if err != nil {
		tb.Fatal(err)
	}
	return tr
}

func TestMosquitto(t *testing.T) {
	harness := func(m *mosquitto) brokertest.Harness {
		return brokertest.Harness{
			Open:             func(t *testing.T, c brokers.Config) brokers.Transport { return m.open(t, c) },
			Sessions:         true,
			Redelivers:       true,
			DurableBroadcast: true,
			MaxSize:          700_000,
			Wills:            true,
			Cut: func(t *testing.T, c brokers.Config) (brokers.Transport, func()) {
				w := brokertest.NewWire(t, m.address)
				tr, err := mqtt.Open(context.Background(), &url.URL{Scheme: "mqtt", Host: w.Addr()}, c)
				if err != nil {
					t.Fatal(err)
				}
				return tr, w.Cut
			},
		}
	}
	t.Run("persistent", func(t *testing.T) {
		m := startMosquitto(t, true, "")
		h := harness(m)
		// It writes its database when it is told to end.
		h.Stop = func(*testing.T) { m.stop(syscall.SIGTERM) }
		h.Start = func(*testing.T) { m.start() }
		h.Wipe = func(t *testing.T) {
			m.stop(syscall.SIGKILL)
			if err := os.Remove(m.database()); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			m.start()
		}
		brokertest.Run(t, h)
	})
	t.Run("in memory", func(t *testing.T) {
		m := startMosquitto(t, false, "")
		h := harness(m)
		h.Wipe = func(*testing.T) { m.stop(syscall.SIGKILL); m.start() }
		brokertest.Run(t, h)
	})
	t.Run("in memory, killed", func(t *testing.T) {
		m := startMosquitto(t, false, "")
		h := harness(m)
		h.Sessions, h.DurableBroadcast = false, false
		h.Stop = func(*testing.T) { m.stop(syscall.SIGKILL) }
		h.Start = func(*testing.T) { m.start() }
		brokertest.Run(t, h)
	})
}

// What mosquitto had saved when it was killed comes when the agent is back, in
// order, and what it had not is known to be lost: the session is not resumed
// without its queue.
func TestMosquittoKilledWithQueue(t *testing.T) {
	const queued = 500
	m := startMosquitto(t, true, "")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	source := brokers.Config{Role: brokers.RoleSource, Name: "hub1"}
	agent := brokers.Config{Role: brokers.RoleAgent, Name: "c1"}
	topic := brokers.Topic{Lane: brokers.ToCluster, Source: "hub1", Cluster: "c1"}
	works := []brokers.Filter{{Lane: brokers.ToCluster, Source: brokers.Any, Cluster: "c1"}}

	// The agent was here once.
	tr := m.open(t, agent)
	here, leave := context.WithCancel(ctx)
	err := tr.Subscribe(here, brokers.Subscription{Filters: works, Handle: func(context.Context, brokers.Delivery) {}, Ready: func(brokers.Session) { leave() }})
	if err != nil {
		t.Fatal(err)
	}
	closeTransport(t, tr)

	hub := m.open(t, source)
	for n := range queued {
		publish(ctx, t, hub, topic, numbered(n))
	}
	closeTransport(t, hub)
	m.signal(syscall.SIGUSR1) // Save now.
	m.until("mosquitto has saved", func() bool {
		info, err := os.Stat(m.database())
		return err == nil && info.Size() > queued*100
	})
	m.stop(syscall.SIGKILL)
	m.start()

	tr = m.open(t, agent)
	defer closeTransport(t, tr)
	here, leave = context.WithCancel(ctx)
	next := 0
	err = tr.Subscribe(here, brokers.Subscription{
		Filters: works,
		Ready: func(s brokers.Session) {
			if !s.Resumed {
				t.Error("the session was saved, but is not said to be resumed")
			}
		},
		Handle: brokers.Sync(func(_ context.Context, _ brokers.Topic, e event.Event) error {
			if got := e.Get(event.ID); got != fmt.Sprint(next) {
				t.Errorf("event %s came, want %d", got, next)
			}
			if next++; next == queued {
				leave()
			}
			return nil
		}),
	})
	if err != nil || next != queued {
		t.Errorf("%d of %d events came: %v", next, queued, err)
	}
}

func numbered(n int) event.Event {
	e := event.New("io.example.test", "test", time.Now(), 0)
	e.Set(event.ID, fmt.Sprint(n))
	e.Data = bytes.Repeat([]byte("x"), 1000)
	return e
}

// publish waits for the connection.
func publish(ctx context.Context, tb testing.TB, tr brokers.Transport, to brokers.Topic, e event.Event) {
	tb.Helper()
	for {
		err := tr.Publish(ctx, to, e)
		if err == nil {
			return
		}
		if !errors.Is(err, brokers.ErrUnavailable) || ctx.Err() != nil {
			tb.Fatal(err)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func closeTransport(tb testing.TB, tr brokers.Transport) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := tr.Close(ctx); err != nil {
		tb.Error(err)
	}
}

// BenchmarkMosquittoPublish measures confirmed events of 1 KB to one topic that
// nobody subscribes to.
func BenchmarkMosquittoPublish(b *testing.B) {
	m := startMosquitto(b, false, "")
	hub := m.open(b, brokers.Config{Role: brokers.RoleSource, Name: "hub1"})
	defer closeTransport(b, hub)
	topic := brokers.Topic{Lane: brokers.ToCluster, Source: "hub1", Cluster: "c1"}
	publish(context.Background(), b, hub, topic, numbered(0))

	for _, callers := range []int{1, 128} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					e := numbered(0)
					for left.Add(-1) >= 0 {
						if err := hub.Publish(context.Background(), topic, e); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkMosquittoDeliver measures events of 1 KB from one publisher with a
// full window to one subscriber that acknowledges each.
func BenchmarkMosquittoDeliver(b *testing.B) {
	m := startMosquitto(b, false, "")
	hub := m.open(b, brokers.Config{Role: brokers.RoleSource, Name: "hub1"})
	defer closeTransport(b, hub)
	agent := m.open(b, brokers.Config{Role: brokers.RoleAgent, Name: "c1"})
	defer closeTransport(b, agent)
	topic := brokers.Topic{Lane: brokers.ToCluster, Source: "hub1", Cluster: "c1"}
	came, ready := make(chan struct{}, 1<<20), make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		_ = agent.Subscribe(ctx, brokers.Subscription{
			Filters: []brokers.Filter{{Lane: brokers.ToCluster, Source: brokers.Any, Cluster: "c1"}},
			Ready:   func(brokers.Session) { ready <- struct{}{} },
			Handle: func(_ context.Context, d brokers.Delivery) {
				d.Done(nil)
				came <- struct{}{}
			},
		})
	})
	<-ready
	publish(ctx, b, hub, topic, numbered(0))
	<-came

	b.ReportAllocs()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var publishers sync.WaitGroup
	for range 128 {
		publishers.Go(func() {
			e := numbered(0)
			for left.Add(-1) >= 0 {
				if err := hub.Publish(ctx, topic, e); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	publishers.Wait()
	for range b.N {
		<-came
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
