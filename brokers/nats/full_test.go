package nats_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/embedded"
)

// A stream that is full refuses what would be lost with it, says so, keeps what
// it has, and takes events again when there is room.
func TestFullStream(t *testing.T) {
	s := startServer(t, embedded.NATSOptions{})
	_, js := operator(t, s)
	s.url += "?max-bytes=100000"
	hub := openFor(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub"})
	large := newEvent()
	large.Data = bytes.Repeat([]byte("x"), 10_000)
	send(t, hub, work("hub", "c1", "0"), large)
	taken := 1
	var err error
	for ; taken < 100; taken++ {
		if err = hub.Publish(t.Context(), work("hub", "c1", fmt.Sprint(taken)), large); err != nil {
			break
		}
	}
	if !errors.Is(err, brokers.ErrRefused) || !strings.Contains(err.Error(), "FLEETCAST_SPEC") || !strings.Contains(err.Error(), "maximum bytes") {
		t.Fatalf("publish into a full stream after %d events: %v, want ErrRefused, which stream, and why", taken, err)
	}
	// The connection and the other stream are as good as before.
	agent := openFor(t, s, brokers.Config{Role: brokers.RoleAgent, Name: "c1"})
	send(t, agent, brokers.Topic{Lane: brokers.ToSource, Source: "hub", Cluster: "c1", Key: "k"}, newEvent())
	l := subscribe(t, agent, nil, worksOf(brokers.Any, "c1"))
	if got := l.keys(t, taken); len(got) != taken {
		t.Errorf("%d events came, want the %d that were taken", len(got), taken)
	}
	l.stop(t)

	// What a work became is taken in the place of what it was, deletions above all.
	if err := hub.Publish(t.Context(), work("hub", "c1", "0"), newDeletion()); err != nil {
		t.Errorf("publish of a deletion into a full stream: %v", err)
	}
	if err := hub.Publish(t.Context(), work("hub", "c1", "more"), large); err != nil && !errors.Is(err, brokers.ErrRefused) {
		t.Errorf("publish after a deletion: %v", err)
	}

	cfg := streamConfig(t, js, "FLEETCAST_SPEC")
	cfg.MaxBytes = 1_000_000
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := hub.Publish(t.Context(), work("hub", "c1", "later"), large); err != nil {
		t.Errorf("publish into a stream that has room again: %v", err)
	}
}

// So does a server whose whole storage is used up.
func TestFullServer(t *testing.T) {
	s := startServer(t, embedded.NATSOptions{Configure: func(o *server.Options) { o.JetStreamMaxStore = 1 << 20 }})
	hub := openFor(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub"})
	large := newEvent()
	large.Data = bytes.Repeat([]byte("x"), 100_000)
	send(t, hub, work("hub", "c1", "0"), large)
	var err error
	for n := 1; n < 100; n++ {
		if err = hub.Publish(t.Context(), work("hub", "c1", fmt.Sprint(n)), large); err != nil {
			break
		}
	}
	if !errors.Is(err, brokers.ErrRefused) {
		t.Fatalf("publish to a server without storage left: %v, want ErrRefused", err)
	}
	_, js := operator(t, s)
	stream, err := js.Stream(t.Context(), "FLEETCAST_SPEC")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject("fleetcast.spec.c1.hub.>")); err != nil {
		t.Fatal(err)
	}
	send(t, hub, work("hub", "c1", "later"), large)
}
