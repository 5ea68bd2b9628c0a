package brokers_test

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

func TestConfigValidate(t *testing.T) {
	agent := brokers.Config{Role: brokers.RoleAgent, Name: "c1"}
	with := func(change func(*brokers.Config)) brokers.Config {
		c := agent
		change(&c)
		return c
	}
	for _, test := range []struct {
		reason string
		config brokers.Config
		want   string // Part of the error; empty for none.
	}{
		{"role and name suffice", agent, ""},
		{"a source", brokers.Config{Role: brokers.RoleSource, Name: "hub"}, ""},
		{"certificate and key", with(func(c *brokers.Config) { c.CertFile, c.KeyFile = "tls.crt", "tls.key" }), ""},
		{"a username needs no password", with(func(c *brokers.Config) { c.Username = "u" }), ""},
		{"no role", brokers.Config{Name: "c1"}, "role"},
		{"no such role", brokers.Config{Role: 3, Name: "c1"}, "role"},
		{"no name", brokers.Config{Role: brokers.RoleAgent}, "name"},
		{"a certificate without key", with(func(c *brokers.Config) { c.CertFile = "tls.crt" }), "key"},
		{"a key without certificate", with(func(c *brokers.Config) { c.KeyFile = "tls.key" }), "certificate"},
		{"a password without username", with(func(c *brokers.Config) { c.PasswordFile = "password" }), "username"},
	} {
		err := test.config.Validate()
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got error %v, want one about %q", test.reason, err, test.want)
		}
	}
}

func TestConfigIdentity(t *testing.T) {
	for _, test := range []struct {
		reason string
		config brokers.Config
		want   string
	}{
		{"an agent's peers know it by this suffix", brokers.Config{Role: brokers.RoleAgent, Name: "c1"}, "c1-client"},
		{"a source goes by its name", brokers.Config{Role: brokers.RoleSource, Name: "hub"}, "hub"},
		{"what is configured wins", brokers.Config{Role: brokers.RoleAgent, Name: "c1", ClientID: "mine"}, "mine"},
	} {
		if got := test.config.Identity(); got != test.want {
			t.Errorf("%s: identity is %q, want %q", test.reason, got, test.want)
		}
	}
}

func TestConfigLogger(t *testing.T) {
	// Says nothing, and does not fail.
	brokers.Config{}.Logger().Info("connected")
	var b strings.Builder
	brokers.Config{Log: slog.New(slog.NewTextHandler(&b, nil))}.Logger().Info("connected")
	if !strings.Contains(b.String(), "connected") {
		t.Errorf("the configured logger got %q", b.String())
	}
}

// nothing is a Transport that only its identity matters of.
type nothing struct{ brokers.Transport }

func TestOpen(t *testing.T) {
	agent := brokers.Config{Role: brokers.RoleAgent, Name: "c1"}
	opened := nothing{}
	errRefused := errors.New("wrong parameter")
	drivers := brokers.Drivers{
		"good": func(_ context.Context, u *url.URL, c brokers.Config) (brokers.Transport, error) {
			if diff := cmp.Diff(agent, c); diff != "" || u.Host != "broker:1883" {
				t.Errorf("the driver got %s and configuration (-want +got):\n%s", u, diff)
			}
			return opened, nil
		},
		"bad": func(context.Context, *url.URL, brokers.Config) (brokers.Transport, error) { return nil, errRefused },
	}
	for _, test := range []struct {
		reason string
		url    string
		config brokers.Config
		is     error    // What the error wraps, if that can be judged.
		says   []string // Parts of the error; none if it succeeds.
	}{
		{"the scheme finds the driver", "good://broker:1883", agent, nil, nil},
		{"schemes are the same in upper case", "GOOD://broker:1883", agent, nil, nil},
		{"schemes are listed", "what://broker", agent, brokers.ErrUnknownScheme, []string{`"what"`, "bad, good"}},
		{"an address alone is no URL", "broker.example.com", agent, brokers.ErrUnknownScheme, []string{"bad, good"}},
		{"a host and port are no URL either", "127.0.0.1:1883", agent, nil, []string{"mqtts://"}},
		{"what a driver says is passed on", "bad://broker", agent, errRefused, []string{"bad://broker"}},
		{"the configuration is checked for all drivers", "bad://broker", brokers.Config{}, nil, []string{"role"}},
	} {
		got, err := drivers.Open(t.Context(), test.url, test.config)
		if len(test.says) == 0 {
			if err != nil || got != opened {
				t.Errorf("%s: got %v and error %v", test.reason, got, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s: no error", test.reason)
			continue
		}
		if test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%s: %v does not wrap %v", test.reason, err, test.is)
		}
		for _, part := range test.says {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: error %q does not say %q", test.reason, err, part)
			}
		}
	}
}

func TestOpenKeepsPasswords(t *testing.T) {
	const password = "hunter2"
	drivers := brokers.Drivers{
		"mqtt": func(context.Context, *url.URL, brokers.Config) (brokers.Transport, error) {
			return nil, errors.New("no")
		},
	}
	for _, rawURL := range []string{
		"mqtt://user:" + password + "@broker",          // Refused by the driver.
		"other://user:" + password + "@broker",         // No driver.
		"mqtt://" + password + "@broker",               // A token, refused by the driver.
		"other://" + password + "@broker",              // A token without driver.
		"other:" + password + "@broker",                // No host.
		"mqtt://user:" + password + "@broker:no-port",  // Cannot be parsed.
		"mqtt://user:" + password + "@broker/%zz",      // Nor can this.
		"mqtt://user:" + password + "\x00@broker:1883", // Nor this.
	} {
		_, err := drivers.Open(t.Context(), rawURL, brokers.Config{Role: brokers.RoleAgent, Name: "c1"})
		if err == nil {
			t.Errorf("%q was opened", rawURL)
		} else if strings.Contains(err.Error(), password) {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func TestDone(t *testing.T) {
	var settled []error
	errLater := errors.New("later")
	d := brokers.NewDelivery(brokers.Topic{}, event.Event{}, "7", func(err error) { settled = append(settled, err) })
	d.Done(errLater)
	if len(settled) != 1 || !errors.Is(settled[0], errLater) || d.Position != "7" {
		t.Errorf("Done settled with %v at position %q", settled, d.Position)
	}
	// A delivery of the zero value, as tests make, can be settled too.
	brokers.Delivery{}.Done(nil)

	topic := brokers.Topic{Lane: brokers.ToAllClusters, Source: "hub"}
	settled = nil
	handle := brokers.Sync(func(_ context.Context, from brokers.Topic, e event.Event) error {
		if from != topic || string(e.Data) != "body" {
			t.Errorf("the function got %s and %q", from, e.Data)
		}
		return errLater
	})
	handle(t.Context(), brokers.NewDelivery(topic, event.Of([]byte("body")), "", func(err error) { settled = append(settled, err) }))
	if len(settled) != 1 || !errors.Is(settled[0], errLater) {
		t.Errorf("Sync settled with %v, want what the function returned", settled)
	}
}
