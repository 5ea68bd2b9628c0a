package mqtt_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/embedded"
	"github.com/fleetcast-io/fleetcast/brokers/mqtt"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// patience bounds a failing test only.
const patience = 60 * time.Second

var (
	someTopic = brokers.Topic{Lane: brokers.ToCluster, Source: "s", Cluster: "c1"}
	someWorks = []brokers.Filter{{Lane: brokers.ToCluster, Source: brokers.Any, Cluster: "c1"}}
	source    = brokers.Config{Role: brokers.RoleSource, Name: "s"}
	agent     = brokers.Config{Role: brokers.RoleAgent, Name: "c1"}
)

// A memory log keeps what it is told, so that tests can wait for it.
type memoryLog struct {
	logger *slog.Logger

	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{}
}

func newLog(t *testing.T) *memoryLog {
	l := &memoryLog{changed: make(chan struct{})}
	l.logger = slog.New(slog.NewTextHandler(l, nil))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", l.String())
		}
	})
	return l
}

func (l *memoryLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.text.Write(p)
}

func (l *memoryLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *memoryLog) await(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		l.mu.Lock()
		found, changed := strings.Contains(l.text.String(), text), l.changed
		l.mu.Unlock()
		if found {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("waited %s for %q in the log", patience, text)
		}
	}
}

func newEvent() event.Event { return event.New("io.example.test", "test", time.Now(), 0) }

// openWith opens a transport and closes it when t ends.
func openWith(t *testing.T, u *url.URL, c brokers.Config) brokers.Transport {
	t.Helper()
	tr, err := mqtt.Open(context.Background(), u, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := tr.Close(ctx); err != nil && !errors.Is(err, brokers.ErrClosed) {
			t.Errorf("close: %v", err)
		}
	})
	return tr
}

// send publishes, waiting for the connection.
func send(t *testing.T, tr brokers.Transport, to brokers.Topic, e event.Event) {
	t.Helper()
	if err := trySend(tr, to, e); err != nil {
		t.Errorf("publish: %v", err)
	}
}

func trySend(tr brokers.Transport, to brokers.Topic, e event.Event) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		err := tr.Publish(ctx, to, e)
		if !errors.Is(err, brokers.ErrUnavailable) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// listen subscribes until t ends, and returns when it is established, with the
// IDs of the events that come.
func listen(t *testing.T, tr brokers.Transport, filters []brokers.Filter) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ids, ready := make(chan string, 10_000), make(chan struct{}, 100)
	var wg sync.WaitGroup
	wg.Go(func() {
		err := tr.Subscribe(ctx, brokers.Subscription{
			Filters: filters,
			Ready:   func(brokers.Session) { ready <- struct{}{} },
			Handle: brokers.Sync(func(_ context.Context, _ brokers.Topic, e event.Event) error {
				ids <- e.Get(event.ID)
				return nil
			}),
		})
		if err != nil && !errors.Is(err, brokers.ErrClosed) {
			t.Errorf("subscribe: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	receive(t, ready)
	return ids
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %s", patience)
		panic("not reached")
	}
}

// peer is a plain MQTT client that speaks no CloudEvents.
func peer(t *testing.T, u *url.URL) *paho.Client {
	t.Helper()
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	client := paho.NewClient(paho.ClientConfig{Conn: c})
	if _, err := client.Connect(context.Background(), &paho.Connect{ClientID: "peer", CleanStart: true, KeepAlive: 60}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(&paho.Disconnect{}) })
	return client
}

// count is the value of a metric with this label value, if it has one.
func count(t *testing.T, name, label string) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(mqtt.Collectors()...)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			matches := label == ""
			for _, l := range m.GetLabel() {
				matches = matches || l.GetValue() == label
			}
			if matches {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// What others publish on our topics may be anything.
func TestForeignMessages(t *testing.T) {
	b := startBroker(t, embedded.MQTTOptions{})
	log := newLog(t)
	c := agent
	c.Log = log.logger
	ids := listen(t, openWith(t, b.address(""), c), someWorks)
	stranger := peer(t, b.url)
	const topic = "sources/s/clusters/c1/sourceevents"
	before := count(t, "fleetcast_broker_events_dropped_total", "not_cloudevent")
	for range 5 {
		if _, err := stranger.Publish(t.Context(), &paho.Publish{QoS: 1, Topic: topic, Payload: []byte("secret junk")}); err != nil {
			t.Fatal(err)
		}
	}
	// OCM's peers may be configured to use QoS 0 or 2.
	for _, qos := range []byte{0, 2, 1} {
		id := string('0' + rune(qos))
		p := &paho.Publish{QoS: qos, Topic: topic, Properties: &paho.PublishProperties{}}
		for name, value := range map[string]string{"specversion": "1.0", "id": id, "source": "s", "type": "t"} {
			p.Properties.User.Add("ce-"+name, value)
		}
		if _, err := stranger.Publish(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, ids); got != id {
			t.Errorf("event %s came, want that of QoS %s", got, id)
		}
	}
	if got := count(t, "fleetcast_broker_events_dropped_total", "not_cloudevent") - before; got != 5 {
		t.Errorf("%v messages are counted as no CloudEvents, want 5", got)
	}
	if text := log.String(); strings.Count(text, "dropped an event") != 1 || strings.Contains(text, "secret") {
		t.Errorf("want one line about them, without what they say")
	}
}

func TestRefusedPublish(t *testing.T) {
	b := startBroker(t, embedded.MQTTOptions{Authorize: func(_ embedded.MQTTClient, topic string, write bool) bool {
		return !write || !strings.Contains(topic, "/forbidden/")
	}})
	tr := openWith(t, b.address(""), source)
	send(t, tr, someTopic, newEvent())
	forbidden := someTopic
	forbidden.Cluster = "forbidden"
	err := tr.Publish(t.Context(), forbidden, newEvent())
	if !errors.Is(err, brokers.ErrRefused) || !strings.Contains(err.Error(), "not authorized (0x87)") || !strings.Contains(err.Error(), "cluster forbidden") {
		t.Errorf("publish to a forbidden topic: %v, want ErrRefused, which topic, and why", err)
	}
	if err := tr.Publish(t.Context(), someTopic, newEvent()); err != nil {
		t.Errorf("publish after a refusal: %v", err)
	}
}

func TestInvalidEventHarmsNobody(t *testing.T) {
	b := startBroker(t, embedded.MQTTOptions{})
	tr := openWith(t, b.address(""), source)
	send(t, tr, someTopic, newEvent())
	e := newEvent()
	e.Set("broken", "a\x00b")
	if err := tr.Publish(t.Context(), someTopic, e); !errors.Is(err, event.ErrInvalid) {
		t.Errorf("publish of an attribute that brokers hang up on: %v, want ErrInvalid", err)
	}
	if err := tr.Publish(t.Context(), someTopic, newEvent()); err != nil {
		t.Errorf("publish after it on the same connection: %v", err)
	}
}

// The broker announces how much it takes.
func TestAnnouncedSizeLimit(t *testing.T) {
	b := startBroker(t, embedded.MQTTOptions{MaxPacket: 10_000})
	tr := openWith(t, b.address(""), source)
	send(t, tr, someTopic, newEvent())
	e := newEvent()
	e.Data = make([]byte, 10_000)
	err := tr.Publish(t.Context(), someTopic, e)
	if !errors.Is(err, brokers.ErrTooLarge) || !strings.Contains(err.Error(), "the limit is 10000") {
		t.Errorf("publish over the limit: %v, want ErrTooLarge with the limit", err)
	}
}

// A subscription that is refused is established once it is allowed.
func TestRefusedSubscription(t *testing.T) {
	var allowed atomic.Bool
	b := startBroker(t, embedded.MQTTOptions{Authorize: func(_ embedded.MQTTClient, _ string, write bool) bool {
		return write || allowed.Load()
	}})
	log := newLog(t)
	c := agent
	c.Log = log.logger
	tr := openWith(t, b.address(""), c)
	go func() {
		log.await(t, "refused the subscription to sources/+/clusters/c1/sourceevents: not authorized (0x87)")
		allowed.Store(true)
	}()
	ids := listen(t, tr, someWorks)
	e := newEvent()
	send(t, openWith(t, b.address(""), source), someTopic, e)
	if got := receive(t, ids); got != e.Get(event.ID) {
		t.Errorf("event %s came, want %s", got, e.Get(event.ID))
	}
}

// The metrics of a transport come and go with it.
func TestMetrics(t *testing.T) {
	b := startBroker(t, embedded.MQTTOptions{})
	up := count(t, "fleetcast_broker_connected", "")
	confirmed := count(t, "fleetcast_broker_events_published_total", "confirmed")
	tr, err := mqtt.Open(t.Context(), b.address(""), source)
	if err != nil {
		t.Fatal(err)
	}
	send(t, tr, someTopic, newEvent())
	if got := count(t, "fleetcast_broker_connected", ""); got != up+1 {
		t.Errorf("%v connections are up, want one more than %v", got, up)
	}
	if got := count(t, "fleetcast_broker_events_published_total", "confirmed"); got != confirmed+1 {
		t.Errorf("%v events are confirmed, want one more than %v", got, confirmed)
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := count(t, "fleetcast_broker_connected", ""); got != up {
		t.Errorf("%v connections are up after Close, want %v", got, up)
	}
}
