package nats_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/embedded"
)

// goneFrom subscribes a source and returns the clusters of which it hears that
// they are gone.
func goneFrom(t *testing.T, hub brokers.Transport, cluster string) <-chan string {
	t.Helper()
	gone, ready := make(chan string, 100), make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		err := hub.Subscribe(ctx, brokers.Subscription{
			Filters: []brokers.Filter{{Lane: brokers.ToSource, Source: "hub", Cluster: cluster}},
			Handle:  func(_ context.Context, d brokers.Delivery) { d.Done(nil) },
			Ready:   func(brokers.Session) { ready <- struct{}{} },
			Gone:    func(cluster string) { gone <- cluster },
		})
		if err != nil {
			t.Errorf("subscribe: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	select {
	case <-ready:
	case <-time.After(patience):
		t.Fatalf("waited %s for the subscription", patience)
	}
	return gone
}

// agentConsumer makes the consumer of an agent by this client ID, which the
// server forgets soon.
func agentConsumer(t *testing.T, js jetstream.JetStream, clientID string) {
	t.Helper()
	_, err := js.CreateConsumer(t.Context(), "FLEETCAST_SPEC", jetstream.ConsumerConfig{
		Name: "agent-" + clientID, AckPolicy: jetstream.AckExplicitPolicy, InactiveThreshold: 500 * time.Millisecond, MemoryStorage: true,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A source hears of an agent that the server has forgotten, of its clusters
// only, and not of one that came back meanwhile.
func TestGone(t *testing.T) {
	s, as := startGuarded(t)
	hub := openFor(t, s, as("hub", brokers.Config{Role: brokers.RoleSource, Name: "hub"}))
	all := goneFrom(t, hub, brokers.Any)
	one := goneFrom(t, openFor(t, s, as("admin", brokers.Config{Role: brokers.RoleSource, Name: "other"})), "c2")
	nc, err := natsgo.Connect(s.url, natsgo.UserInfo("admin", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	agentConsumer(t, js, "c3-client")
	deleted := time.Now()
	if err := js.DeleteConsumer(t.Context(), "FLEETCAST_SPEC", "agent-c3-client"); err != nil {
		t.Fatal(err)
	}
	_, err = js.CreateConsumer(t.Context(), "FLEETCAST_SPEC", jetstream.ConsumerConfig{Name: "agent-c3-client", MemoryStorage: true, InactiveThreshold: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	backAtOnce := time.Since(deleted) < time.Second
	for _, clientID := range []string{"c1%2Ex-client", "special", "c2-client"} {
		agentConsumer(t, js, clientID)
	}
	came := map[string]bool{}
	for !came["c1.x"] || !came["c2"] {
		select {
		case cluster := <-all:
			came[cluster] = true
		case <-time.After(patience):
			t.Fatalf("waited %s, heard of %v", patience, came)
		}
	}
	if came["c3"] && backAtOnce {
		t.Error("heard of c3, whose agent came back at once")
	}
	delete(came, "c3")
	if len(came) != 2 {
		t.Errorf("heard of %v, want c1.x and c2", came)
	}
	select {
	case cluster := <-one:
		if cluster != "c2" {
			t.Errorf("a subscription to c2 heard of %s", cluster)
		}
	case <-time.After(patience):
		t.Fatalf("waited %s", patience)
	}
}

// Without the permission, reports come all the same.
func TestGoneWithoutPermission(t *testing.T) {
	s := startServer(t, embedded.NATSOptions{Configure: func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Subscribe: &server.SubjectPermission{Deny: []string{"$JS.EVENT.>"}},
		}}}
	}})
	s.url = strings.Replace(s.url, "://", "://u:p@", 1)
	hub := openFor(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub"})
	ids := make(chan string, 10)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = hub.Subscribe(ctx, brokers.Subscription{
			Filters: []brokers.Filter{{Lane: brokers.ToSource, Source: "hub", Cluster: "c1"}},
			Handle:  func(_ context.Context, d brokers.Delivery) { d.Done(nil); ids <- d.From.Key },
			Gone:    func(cluster string) { t.Errorf("heard of %s", cluster) },
		})
	})
	send(t, openFor(t, s, brokers.Config{Role: brokers.RoleAgent, Name: "c1"}), brokers.Topic{Lane: brokers.ToSource, Source: "hub", Cluster: "c1", Key: "k"}, newEvent())
	select {
	case <-ids:
	case <-time.After(patience):
		t.Errorf("waited %s for a report", patience)
	}
	cancel()
	wg.Wait()
}
