package mqtt

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/brokers"
)

func mustParse(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestParseURL(t *testing.T) {
	defaults := func(change func(*options)) options {
		o := options{
			address: "broker:1883", host: "broker", topics: ocm,
			sessionExpiry: 24 * time.Hour, keepalive: 30 * time.Second, reload: time.Minute,
			receiveMaximum: 64, window: 128, maxPacket: 1 << 20,
		}
		change(&o)
		return o
	}
	for _, test := range []struct {
		reason, url string
		role        brokers.Role
		want        options
	}{
		{"defaults of an agent", "mqtt://broker", brokers.RoleAgent, defaults(func(*options) {})},
		{"a source has many peers", "mqtt://broker/", brokers.RoleSource, defaults(func(o *options) { o.receiveMaximum = 1024 })},
		{"TLS has its own port", "mqtts://broker", brokers.RoleAgent, defaults(func(o *options) { o.tls, o.address = true, "broker:8883" })},
		{"a port", "mqtts://[::1]:9", brokers.RoleAgent, defaults(func(o *options) { o.tls, o.address, o.host = true, "[::1]:9", "::1" })},
		{"a user", "mqtt://u:p%40@broker", brokers.RoleAgent, defaults(func(o *options) { o.username, o.password = "u", "p@" })},
		{
			"everything", "mqtt://broker?topics=a/b&share=g-1&session-expiry=168h&keepalive=5s&reload=10ms&receive-maximum=65535&window=1&max-packet=4096",
			brokers.RoleSource, defaults(func(o *options) {
				o.topics = topics{sources: "a", clusters: "b", share: "g-1"}
				o.sessionExpiry, o.keepalive, o.reload = 168*time.Hour, 5*time.Second, 10*time.Millisecond
				o.receiveMaximum, o.window, o.maxPacket = 65535, 1, 4096
			}),
		},
	} {
		got, err := parseURL(mustParse(t, test.url), test.role)
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(options{}, topics{})); err != nil || diff != "" {
			t.Errorf("%s: %v, (-want +got)\n%s", test.reason, err, diff)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk.pem")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	agent := brokers.Config{Role: brokers.RoleAgent, Name: "c"}
	source := brokers.Config{Role: brokers.RoleSource, Name: "s"}
	with := func(change func(*brokers.Config)) brokers.Config {
		c := agent
		change(&c)
		return c
	}
	for _, test := range []struct {
		url    string
		config brokers.Config
		want   string
	}{
		{"mqtt://b?topic=a/b", agent, `"topic"`},
		{"mqtt://b?topics=a", agent, "two words"},
		{"mqtt://b?topics=a/b/c", agent, "two words"},
		{"mqtt://b?topics=A/b", agent, "two words"},
		{"mqtt://b?topics=a/b&topics=a/c", agent, "comes 2 times"},
		{"mqtt://b?share=g", agent, "only a source"},
		{"mqtt://b?share=a/b", source, "a-z, 0-9 and -"},
		{"mqtt://b?session-expiry=169h", agent, "not between"},
		{"mqtt://b?session-expiry=0s", agent, "not between"},
		{"mqtt://b?session-expiry=7", agent, "not a duration"},
		{"mqtt://b?keepalive=20h", agent, "not between"},
		{"mqtt://b?keepalive=1s", agent, "not between"},
		{"mqtt://b?receive-maximum=0", agent, "not between"},
		{"mqtt://b?receive-maximum=65536", agent, "not between"},
		{"mqtt://b?window=x", agent, "not a whole number"},
		{"mqtt://b?max-packet=1", agent, "not between"},
		{"mqtt://b?reload=0", agent, "not between"},
		{"mqtt://b?window=%zz", agent, "query"},
		{"mqtt://b/path", agent, "path"},
		{"mqtt://b#f", agent, "fragment"},
		{"mqtt://", agent, "no host"},
		{"mqtt://:p@b", agent, "without a user"},
		{"tcp://b", agent, "neither mqtt nor mqtts"},
		{"mqtt://b", brokers.Config{}, "role"},
		{"mqtt://u@b", with(func(c *brokers.Config) { c.Username = "v" }), "both"},
		{"mqtt://b", with(func(c *brokers.Config) { c.CAFile = junk }), "use an mqtts:// URL"},
		{"mqtt://b", with(func(c *brokers.Config) { c.CertFile, c.KeyFile = junk, junk }), "use an mqtts:// URL"},
		{"mqtt://b", with(func(c *brokers.Config) { c.CredentialsFile = junk }), "NATS"},
		{"mqtt://b", with(func(c *brokers.Config) { c.ClientID = strings.Repeat("x", 65536) }), "client ID"},
		{"mqtt://b", with(func(c *brokers.Config) { c.Username, c.PasswordFile = "u", missing }), "read password file"},
		{"mqtts://b", with(func(c *brokers.Config) { c.CAFile = missing }), "read CA file"},
		{"mqtts://b", with(func(c *brokers.Config) { c.CAFile = junk }), "no PEM certificate"},
		{"mqtts://b", with(func(c *brokers.Config) { c.CertFile, c.KeyFile = junk, missing }), "read client key"},
		{"mqtts://b", with(func(c *brokers.Config) { c.CertFile, c.KeyFile = junk, junk }), "client certificate"},
	} {
		tr, err := Open(context.Background(), mustParse(t, test.url), test.config)
		if err == nil {
			_ = tr.Close(context.Background())
			t.Errorf("open %s: no error, want one with %q", test.url, test.want)
		} else if !strings.Contains(err.Error(), test.want) {
			t.Errorf("open %s: %v, want an error with %q", test.url, err, test.want)
		}
	}
}

// TestCheckOnly: the configuration is checked, and nothing is opened.
func TestCheckOnly(t *testing.T) {
	for url, ok := range map[string]bool{"mqtt://127.0.0.1:1": true, "mqtt://127.0.0.1:1?tpics=a/b": false} {
		drivers := brokers.Drivers{"mqtt": Open}
		err := drivers.Check(t.Context(), url, brokers.Config{Role: brokers.RoleSource, Name: "hub1"})
		if (err == nil) != ok {
			t.Errorf("Check(%s) = %v, want ok %v", url, err, ok)
		}
	}
}
