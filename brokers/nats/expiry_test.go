package nats

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

func TestLifetime(t *testing.T) {
	of := func(kind string, more ...event.Attribute) event.Event {
		return event.Of(nil, append(more, event.Attribute{Name: event.Type, Value: kind})...)
	}
	deleted := event.Attribute{Name: "deletiontimestamp", Value: "2026-01-02T03:04:05Z"}
	const bundles = "io.open-cluster-management.works.v1alpha1.manifestbundles."
	for _, test := range []struct {
		reason   string
		settings settings
		e        event.Event
		want     time.Duration
	}{
		{"a work that is alive", settings{}, of(bundles + "spec.create_request"), 0},
		{"a report", settings{}, of(bundles + "status.update_request"), 0},
		{"a deletion", settings{}, of(bundles+"spec.delete_request", deleted), 30 * 24 * time.Hour},
		{"a deletion of any type, as the timestamp makes it one", settings{}, of(bundles+"spec.update_request", deleted), 30 * 24 * time.Hour},
		{"a deletion, as the URL has it", settings{tombstoneAge: time.Hour}, of(bundles+"spec.delete_request", deleted), time.Hour},
		{"a question of an agent", settings{}, of(bundles + "spec.resync_request"), 10 * time.Minute},
		{"a question of a source", settings{tombstoneAge: time.Hour}, of(bundles + "status.resync_request"), 10 * time.Minute},
		{"a sum of what an agent holds", settings{}, of("io.fleetcast.v1.digest"), 10 * time.Minute},
		{"a sign of life", settings{}, of("io.fleetcast.v1.presence"), 10 * time.Minute},
		{"an answer is no question", settings{}, of(bundles + "spec.resync_response"), 0},
	} {
		if got := test.settings.lifetime(test.e); got != test.want {
			t.Errorf("%s: kept for %s, want %s", test.reason, got, test.want)
		}
	}
}

func TestForget(t *testing.T) {
	for _, test := range []struct {
		reason   string
		settings settings
		lane     brokers.Lane
		change   func(*jetstream.StreamConfig)
		changes  []string
	}{
		{"what was made here", settings{}, brokers.ToSource, func(*jetstream.StreamConfig) {}, nil},
		{"works of an older version", settings{}, brokers.ToCluster, func(c *jetstream.StreamConfig) { c.AllowMsgTTL = false }, []string{"allow_msg_ttl"}},
		{"reports of an older version", settings{}, brokers.ToSource, func(c *jetstream.StreamConfig) {
			c.AllowMsgTTL, c.MaxAge = false, 0
		}, []string{"allow_msg_ttl", "max_age"}},
		{"works have no age", settings{}, brokers.ToCluster, func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }, []string{"max_age"}},
		{"an operator's age of reports stays", settings{}, brokers.ToSource, func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }, nil},
		{"unless the URL has one", settings{tombstoneAge: 2 * time.Hour}, brokers.ToSource, func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }, []string{"max_age"}},
	} {
		want := test.settings.streamConfig(test.lane)
		have := want
		test.change(&have)
		got, changes := test.settings.forget(have, want)
		if diff := cmp.Diff(test.changes, changes); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.reason, diff)
		}
		if len(changes) > 0 && (!got.AllowMsgTTL || got.MaxAge != want.MaxAge) {
			t.Errorf("%s: got allow_msg_ttl %t and max_age %s, want true and %s", test.reason, got.AllowMsgTTL, got.MaxAge, want.MaxAge)
		}
	}
	// A server refuses a window that is longer than the age.
	if c := (settings{tombstoneAge: time.Second}).streamConfig(brokers.ToSource); c.MaxAge < c.Duplicates {
		t.Errorf("reports are kept for %s, less than the duplicate window %s", c.MaxAge, c.Duplicates)
	}
}
