package nats_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/embedded"
)

// operator connects to the server beside the driver.
func operator(t *testing.T, s *testServer) (*natsgo.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := natsgo.Connect(s.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

// TestStreamsDeleted deletes streams under running peers, without any
// connection being lost.
func TestStreamsDeleted(t *testing.T) {
	for _, stream := range []string{"FLEETCAST_SPEC", "FLEETCAST_STATUS"} {
		t.Run(stream, func(t *testing.T) {
			s := startServer(t, embedded.NATSOptions{})
			_, js := operator(t, s)
			hub := openFor(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub"})
			agent := openFor(t, s, brokers.Config{Role: brokers.RoleAgent, Name: "c1"})
			works := subscribe(t, agent, nil, worksOf("hub", "c1"))
			reports := subscribe(t, hub, nil, brokers.Filter{Lane: brokers.ToSource, Source: "hub", Cluster: brokers.Any})
			report := brokers.Topic{Lane: brokers.ToSource, Source: "hub", Cluster: "c1", Key: "k"}
			publish(t, hub, works, work("hub", "c1", "k"))
			publish(t, agent, reports, report)

			if err := js.DeleteStream(t.Context(), stream); err != nil {
				t.Fatal(err)
			}
			// The source makes it again when it publishes, at the latest.
			publish(t, hub, works, work("hub", "c1", "k"))
			publish(t, agent, reports, report)
			lost := works
			if stream == "FLEETCAST_STATUS" {
				lost = reports
			}
			if lost.ready(t).Resumed {
				t.Error("a lost stream is said to be resumed")
			}
		})
	}
}

// TestStreamDeletedUnderIdlePeers deletes a stream into which nobody publishes.
func TestStreamDeletedUnderIdlePeers(t *testing.T) {
	s := startServer(t, embedded.NATSOptions{})
	_, js := operator(t, s)
	hub := openFor(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub"})
	reports := subscribe(t, hub, nil, brokers.Filter{Lane: brokers.ToSource, Source: "hub", Cluster: brokers.Any})
	agent := openFor(t, s, brokers.Config{Role: brokers.RoleAgent, Name: "c1"})
	works := subscribe(t, agent, nil, worksOf("hub", "c1"))
	if err := js.DeleteStream(t.Context(), "FLEETCAST_SPEC"); err != nil {
		t.Fatal(err)
	}
	// The source, which must send everything again, is told.
	reports.ready(t)
	works.ready(t)
	publish(t, hub, works, work("hub", "c1", "k"))
}

// TestConsumerDeleted deletes a consumer under its subscriber.
func TestConsumerDeleted(t *testing.T) {
	s := startServer(t, embedded.NATSOptions{})
	_, js := operator(t, s)
	hub := openFor(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub"})
	agent := openFor(t, s, brokers.Config{Role: brokers.RoleAgent, Name: "c1"})
	works := subscribe(t, agent, nil, worksOf("hub", "c1"))
	publish(t, hub, works, work("hub", "c1", "k"))
	if err := js.DeleteConsumer(t.Context(), "FLEETCAST_SPEC", "agent-c1-client"); err != nil {
		t.Fatal(err)
	}
	if !works.ready(t).Resumed {
		t.Error("the stream is the same and delivers all, but the subscription is not said to be resumed")
	}
	publish(t, hub, works, work("hub", "c1", "k"))
}

// TestAgentWaitsForStreams opens an agent before any source.
func TestAgentWaitsForStreams(t *testing.T) {
	s := startServer(t, embedded.NATSOptions{})
	agent := openFor(t, s, brokers.Config{Role: brokers.RoleAgent, Name: "c1"})
	works := listen(t, agent, nil, func(d brokers.Delivery) { d.Done(nil) }, worksOf("hub", "c1"))
	err := agent.Publish(t.Context(), brokers.Topic{Lane: brokers.ToSource, Source: "hub", Cluster: "c1"}, newEvent())
	if !errors.Is(err, brokers.ErrUnavailable) {
		t.Errorf("publish without streams returned %v, want ErrUnavailable", err)
	}
	hub := openFor(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub"})
	works.ready(t)
	publish(t, hub, works, work("hub", "c1", "k"))
}

// TestForeignStream meets a stream that cannot be made to fit.
func TestForeignStream(t *testing.T) {
	s := startServer(t, embedded.NATSOptions{})
	_, js := operator(t, s)
	foreign := jetstream.StreamConfig{Name: "FLEETCAST_SPEC", Subjects: []string{"fleetcast.spec.>"}, Storage: jetstream.MemoryStorage}
	if _, err := js.CreateStream(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	hub := openFor(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub"})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := hub.Publish(ctx, work("hub", "c1", "k"), newEvent())
		if !errors.Is(err, brokers.ErrUnavailable) {
			t.Fatalf("publish returned %v, want ErrUnavailable", err)
		}
		if strings.Contains(err.Error(), "its storage is memory and cannot be changed") {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("publish never said what is wrong, but %v", err)
		}
	}
	// An operator who mends it needs to restart nothing.
	if err := js.DeleteStream(t.Context(), "FLEETCAST_SPEC"); err != nil {
		t.Fatal(err)
	}
	send(t, hub, work("hub", "c1", "k"), newEvent())
}

// TestMessageLimit meets a stream with a size limit of its own.
func TestMessageLimit(t *testing.T) {
	s := startServer(t, embedded.NATSOptions{})
	_, js := operator(t, s)
	hub := openFor(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub"})
	send(t, hub, work("hub", "c1", "k"), newEvent())
	stream, err := js.Stream(t.Context(), "FLEETCAST_SPEC")
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.MaxMsgSize = 2000
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	large := newEvent()
	large.Data = make([]byte, 2000)
	// The first finds out from the stream's answer, the second knows before.
	for _, tr := range []brokers.Transport{hub, openFor(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub2"})} {
		send(t, tr, work("hub", "c1", "k"), newEvent())
		if err := tr.Publish(t.Context(), work("hub", "c1", "k"), large); !errors.Is(err, brokers.ErrTooLarge) {
			t.Errorf("got %v, want ErrTooLarge", err)
		}
	}
}

// TestSlowSettling holds an event for longer than the server waits, and
// settles it then.
func TestSlowSettling(t *testing.T) {
	s := startServer(t, embedded.NATSOptions{})
	_, js := operator(t, s)
	hub := openFor(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub"})
	agent := openFor(t, s, brokers.Config{Role: brokers.RoleAgent, Name: "c1"})
	works := listen(t, agent, nil, func(brokers.Delivery) {}, worksOf("hub", "c1"))
	works.ready(t)
	send(t, hub, work("hub", "c1", "k"), newEvent())
	first := works.next(t)
	consumer, err := js.Consumer(t.Context(), "FLEETCAST_SPEC", "agent-c1-client")
	if err != nil {
		t.Fatal(err)
	}
	// The operator shortens the server's patience, for the test's sake.
	cfg := consumer.CachedInfo().Config
	cfg.AckWait = 100 * time.Millisecond
	if _, err := js.UpdateConsumer(t.Context(), "FLEETCAST_SPEC", cfg); err != nil {
		t.Fatal(err)
	}
	until(t, "the server delivered again", func() bool {
		info, err := consumer.Info(t.Context())
		return err == nil && info.NumRedelivered > 0
	})
	works.none(t)
	first.Done(nil)
	until(t, "the server knows that it is settled", func() bool {
		info, err := consumer.Info(t.Context())
		return err == nil && info.NumAckPending == 0
	})
	works.none(t)
}

// TestForeignMessages puts into the stream what is no event.
func TestForeignMessages(t *testing.T) {
	s := startServer(t, embedded.NATSOptions{})
	nc, js := operator(t, s)
	hub := openFor(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub"})
	agent := openFor(t, s, brokers.Config{Role: brokers.RoleAgent, Name: "c1"})
	works := subscribe(t, agent, nil, worksOf("hub", "c1"), brokers.Filter{Lane: brokers.ToAllClusters, Source: brokers.Any})
	for _, subject := range []string{"fleetcast.spec.c1.hub.k", "fleetcast.spec.c1.hub.%zz", "fleetcast.spec.c1.hub", "fleetcast.spec.c1.hub.k.l"} {
		if _, err := js.Publish(t.Context(), subject, []byte("no event")); err != nil {
			t.Fatal(err)
		}
	}
	for _, subject := range []string{"fleetcast.all-clusters.hub", "fleetcast.all-clusters.%zz"} {
		if err := nc.Publish(subject, []byte("no event")); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, hub, works, work("hub", "c1", "after"))
	publish(t, hub, works, brokers.Topic{Lane: brokers.ToAllClusters, Source: "hub"})
	works.none(t)
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !cond() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("waited %s until %s", patience, what)
		}
	}
}
