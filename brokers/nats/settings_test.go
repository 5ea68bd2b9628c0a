package nats

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetcast-io/fleetcast/brokers"
)

func TestParseURL(t *testing.T) {
	u, err := url.Parse("tls://one:4222,two:4223?prefix=fleet-1&replicas=3&max-bytes=1000&tombstone-age=1h&window=7&storage=memory")
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseURL(u, brokers.RoleSource)
	if err != nil {
		t.Fatal(err)
	}
	want := settings{
		servers: []string{"tls://one:4222", "tls://two:4223"}, secure: true,
		prefix: "fleet-1", replicas: 3, maxBytes: 1000, tombstoneAge: time.Hour, window: 7, storage: jetstream.MemoryStorage,
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(settings{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestOpenRefuses(t *testing.T) {
	source := brokers.Config{Role: brokers.RoleSource, Name: "hub"}
	with := func(change func(*brokers.Config)) brokers.Config {
		c := source
		change(&c)
		return c
	}
	for _, test := range []struct {
		url    string
		config brokers.Config
		want   string
	}{
		{"mqtt://host", source, "scheme"},
		{"nats://", source, "host"},
		{"nats://a,,b", source, "host"},
		{"nats://host/path", source, "path"},
		{"nats://host?prefx=a", source, `unknown parameter "prefx"`},
		{"nats://host?window=1&window=2", source, "twice"},
		{"nats://host?window=0", source, "want a number from 1"},
		{"nats://host?prefix=a.b", source, "want up to"},
		{"nats://host?prefix=", source, "want up to"},
		{"nats://host?replicas=6", source, "want a number"},
		{"nats://host?storage=paper", source, "want file or memory"},
		{"nats://host?max-bytes=1G", source, "want a number of bytes"},
		{"nats://host?tombstone-age=30", source, "want a duration"},
		{"nats://host?tombstone-age=999ms", source, "want a duration"},
		{"nats://host", brokers.Config{}, "role"},
		{"nats://host", with(func(c *brokers.Config) { c.CAFile = "/does/not/exist" }), "read CA certificates"},
		{"nats://host", with(func(c *brokers.Config) { c.CertFile, c.KeyFile = "/no/cert", "/no/key" }), "read client certificate"},
		{"nats://host", with(func(c *brokers.Config) { c.Username, c.PasswordFile = "u", "/no/password" }), "read password"},
		{"nats://host", with(func(c *brokers.Config) { c.CredentialsFile = "/no/creds" }), "read NATS credentials"},
	} {
		u, err := url.Parse(test.url)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Open(context.Background(), u, test.config)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("open %s: got %v, want an error with %q", test.url, err, test.want)
		}
	}
}

func TestAssetName(t *testing.T) {
	long := strings.Repeat("x", 253)
	one := assetName(brokers.Config{Role: brokers.RoleAgent, Name: long + "a"})
	two := assetName(brokers.Config{Role: brokers.RoleAgent, Name: long + "b"})
	if one == two || len(one) > 255-len("-0123456789ab-10") {
		t.Errorf("long names became %q and %q", one, two)
	}
	if got := assetName(brokers.Config{Role: brokers.RoleAgent, Name: "c.1"}); got != "agent-c%2E1-client" {
		t.Errorf("got %q", got)
	}
}

func TestAdapt(t *testing.T) {
	s := settings{prefix: "p", storage: jetstream.FileStorage}
	want := s.streamConfig(brokers.ToCluster)
	for _, test := range []struct {
		reason   string
		settings settings
		change   func(*jetstream.StreamConfig)
		changes  []string
		refused  string
	}{
		{"what was made here", s, func(*jetstream.StreamConfig) {}, nil, ""},
		{"an operator's own settings stay", s, func(c *jetstream.StreamConfig) {
			c.Replicas, c.MaxBytes, c.Description, c.Compression = 3, 1000, "ours", jetstream.S2Compression
		}, nil, ""},
		{"a stream that forgets", s, func(c *jetstream.StreamConfig) {
			c.Discard, c.MaxMsgsPerSubject, c.AllowDirect = jetstream.DiscardOld, 5, false
		}, []string{"max_msgs_per_subject", "discard", "allow_direct"}, ""},
		{"what the URL says is done", settings{prefix: "p", replicas: 3, maxBytes: 5}, func(c *jetstream.StreamConfig) {
			c.MaxBytes = -1
		}, []string{"max_bytes", "replicas"}, ""},
		{"storage cannot be changed", s, func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }, nil, "storage=memory"},
		{"nor retention", s, func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy }, nil, "retention"},
	} {
		have := want
		test.change(&have)
		_, changes, err := test.settings.adapt(have, want)
		if test.refused != "" {
			if err == nil || !strings.Contains(err.Error(), test.refused) {
				t.Errorf("%s: got %v, want an error with %q", test.reason, err, test.refused)
			}
			continue
		}
		if diff := cmp.Diff(test.changes, changes); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", test.reason, err, diff)
		}
	}
}
