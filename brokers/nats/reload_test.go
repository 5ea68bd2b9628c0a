//go:build !race

package nats_test

import (
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/embedded"
)

// The server's reload of its options is a data race of its own, so this test
// runs without the detector.

// TestReloadPermitsWhatWasRefused gives a user the permission that it
// lacked, while it is connected.
func TestReloadPermitsWhatWasRefused(t *testing.T) {
	agent, source := documented(t)
	less := agent
	less.Publish = &server.SubjectPermission{Allow: slices.DeleteFunc(slices.Clone(agent.Publish.Allow), func(subject string) bool {
		return subject == "fleetcast.all-sources.c1"
	})}
	var options *server.Options
	users := func(c1 *server.Permissions) []*server.User {
		return []*server.User{{Username: "c1", Password: "secret", Permissions: c1}, {Username: "hub", Password: "secret", Permissions: &source}}
	}
	s := startServer(t, embedded.NATSOptions{Configure: func(o *server.Options) {
		o.Users = users(&less)
		options = o.Clone()
	}})
	password := filepath.Join(t.TempDir(), "password")
	write(t, password, []byte("secret"))
	openFor(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub", Username: "hub", PasswordFile: password})
	c1, log := openLogged(t, s, brokers.Config{Role: brokers.RoleAgent, Name: "c1", Username: "c1", PasswordFile: password})
	to := brokers.Topic{Lane: brokers.ToAllSources, Cluster: "c1"}
	until(t, "the broadcast is refused", func() bool {
		return errors.Is(c1.Publish(t.Context(), to, newEvent()), brokers.ErrRefused)
	})
	options.Port = s.running.Server().Addr().(*net.TCPAddr).Port
	options.Users = users(&agent)
	if err := s.running.Server().ReloadOptions(options); err != nil {
		t.Fatal(err)
	}
	// The server's last refusal may still be on its way.
	until(t, "the broadcast is permitted", func() bool {
		return c1.Publish(t.Context(), to, newEvent()) == nil
	})
	if strings.Contains(log.String(), "lost") {
		t.Errorf("the connection was lost, so this says nothing:\n%s", log)
	}
}
