package nats_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/embedded"
)

// documented reads the lists of permissions out of the package comment, so that
// they are what is tested: that of an agent, then that of a source.
func documented(t *testing.T) (agent, source server.Permissions) {
	t.Helper()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(doc), "# Permissions")
	if !ok {
		t.Fatal("the package comment has no section on permissions")
	}
	var lists [][]string
	for line := range strings.Lines(section) {
		line, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "//\t")
		switch {
		case !ok:
		case strings.HasSuffix(line, ":"):
			lists = append(lists, nil)
		default:
			lists[len(lists)-1] = append(lists[len(lists)-1], strings.TrimSpace(line))
		}
	}
	if len(lists) != 4 {
		t.Fatalf("the package comment has %d lists of permissions, want publish and subscribe of an agent and a source", len(lists))
	}
	allow := func(publish, subscribe []string) server.Permissions {
		return server.Permissions{Publish: &server.SubjectPermission{Allow: publish}, Subscribe: &server.SubjectPermission{Allow: subscribe}}
	}
	return allow(lists[0], lists[1]), allow(lists[2], lists[3])
}

// startGuarded starts a server with the agent c1, the source hub and an admin.
func startGuarded(t *testing.T) (s *testServer, as func(user string, c brokers.Config) brokers.Config) {
	t.Helper()
	agent, source := documented(t)
	s = startServer(t, embedded.NATSOptions{Configure: func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "c1", Password: "secret", Permissions: &agent},
			{Username: "hub", Password: "secret", Permissions: &source},
			{Username: "admin", Password: "secret"},
		}
	}})
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return s, func(user string, c brokers.Config) brokers.Config {
		c.Username, c.PasswordFile = user, password
		return c
	}
}

// TestPermissionsSuffice runs an agent and a source with exactly what is
// documented, through everything that they do, a reconnect included.
func TestPermissionsSuffice(t *testing.T) {
	s, as := startGuarded(t)
	hub := openFor(t, s, as("hub", brokers.Config{Role: brokers.RoleSource, Name: "hub"}))
	agent := openFor(t, s, as("c1", brokers.Config{Role: brokers.RoleAgent, Name: "c1"}))
	reports := subscribe(t, hub, nil,
		brokers.Filter{Lane: brokers.ToSource, Source: "hub", Cluster: brokers.Any},
		brokers.Filter{Lane: brokers.ToAllSources, Cluster: brokers.Any})
	kept := &cursor{}
	for _, resume := range []func() string{nil, kept.get} {
		works := subscribe(t, agent, resume,
			brokers.Filter{Lane: brokers.ToCluster, Source: "hub", Cluster: "c1"},
			brokers.Filter{Lane: brokers.ToAllClusters, Source: "hub"})
		for range 2 {
			kept.set(publish(t, hub, works, brokers.Topic{Lane: brokers.ToCluster, Source: "hub", Cluster: "c1", Key: "k"}).Position)
			publish(t, hub, works, brokers.Topic{Lane: brokers.ToAllClusters, Source: "hub"})
			publish(t, agent, reports, brokers.Topic{Lane: brokers.ToSource, Source: "hub", Cluster: "c1", Key: "k"})
			publish(t, agent, reports, brokers.Topic{Lane: brokers.ToAllSources, Cluster: "c1"})
			s.stop(t)
			s.start(t)
			works.ready(t)
			reports.ready(t)
		}
		works.stop(t)
	}
}

// TestPermissionsKeepApart tries what the agent of c1 must not be able to do.
func TestPermissionsKeepApart(t *testing.T) {
	s, as := startGuarded(t)
	admin := openFor(t, s, as("admin", brokers.Config{Role: brokers.RoleSource, Name: "hub"}))
	c2 := subscribe(t, openFor(t, s, as("admin", brokers.Config{Role: brokers.RoleAgent, Name: "c2"})), nil,
		brokers.Filter{Lane: brokers.ToCluster, Source: brokers.Any, Cluster: "c2"})
	publish(t, admin, c2, brokers.Topic{Lane: brokers.ToCluster, Source: "hub", Cluster: "c2", Key: "k"})

	agent := openFor(t, s, as("c1", brokers.Config{Role: brokers.RoleAgent, Name: "c1"}))
	works := subscribe(t, agent, nil, brokers.Filter{Lane: brokers.ToCluster, Source: brokers.Any, Cluster: "c1"})
	publish(t, admin, works, brokers.Topic{Lane: brokers.ToCluster, Source: "hub", Cluster: "c1", Key: "k"})
	for _, test := range []struct {
		reason string
		to     brokers.Topic
	}{
		{"another cluster's status", brokers.Topic{Lane: brokers.ToSource, Source: "hub", Cluster: "c2", Key: "k"}},
		{"another cluster's works", brokers.Topic{Lane: brokers.ToCluster, Source: "hub", Cluster: "c2", Key: "k"}},
		{"its own works", brokers.Topic{Lane: brokers.ToCluster, Source: "hub", Cluster: "c1", Key: "k"}},
		{"another cluster's question", brokers.Topic{Lane: brokers.ToAllSources, Cluster: "c2"}},
		{"a source's question", brokers.Topic{Lane: brokers.ToAllClusters, Source: "hub"}},
	} {
		if err := agent.Publish(t.Context(), test.to, newEvent()); !errors.Is(err, brokers.ErrRefused) {
			t.Errorf("publish %s: got %v, want ErrRefused", test.reason, err)
		}
	}

	// The same user without the driver's manners.
	nc, err := natsgo.Connect(s.url, natsgo.UserInfo("c1", "secret"), natsgo.CustomInboxPrefix("_INBOX.agent-c1-client"), natsgo.PermissionErrOnSubscribe(true))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for subject, body := range map[string]string{
		"$JS.API.STREAM.INFO.FLEETCAST_SPEC":                                         "",
		"$JS.API.STREAM.NAMES":                                                       "",
		"$JS.API.STREAM.DELETE.FLEETCAST_SPEC":                                       "",
		"$JS.API.STREAM.PURGE.FLEETCAST_SPEC":                                        "",
		"$JS.API.STREAM.MSG.GET.FLEETCAST_SPEC":                                      `{"last_by_subj":"fleetcast.spec.c2.hub.k"}`,
		"$JS.API.DIRECT.GET.FLEETCAST_SPEC":                                          `{"last_by_subj":"fleetcast.spec.c2.hub.k"}`,
		"$JS.API.DIRECT.GET.FLEETCAST_SPEC.fleetcast.spec.c2.hub.k":                  "",
		"$JS.API.DIRECT.GET.FLEETCAST_SPEC.fleetcast.spec.>":                         "",
		"$JS.API.CONSUMER.CREATE.FLEETCAST_SPEC.agent-c1-client":                     `{"stream_name":"FLEETCAST_SPEC","config":{"name":"agent-c1-client"}}`,
		"$JS.API.CONSUMER.CREATE.FLEETCAST_SPEC.agent-c1-client.fleetcast.spec.c2.>": `{"stream_name":"FLEETCAST_SPEC","config":{"name":"agent-c1-client","filter_subject":"fleetcast.spec.c2.>"}}`,
		"$JS.API.CONSUMER.CREATE.FLEETCAST_SPEC.agent-c2-client.fleetcast.spec.c1.>": `{"stream_name":"FLEETCAST_SPEC","config":{"name":"agent-c2-client","filter_subject":"fleetcast.spec.c1.>"}}`,
		"$JS.API.CONSUMER.MSG.NEXT.FLEETCAST_SPEC.agent-c2-client":                   `{"batch":1}`,
		"$JS.API.CONSUMER.DELETE.FLEETCAST_SPEC.agent-c2-client":                     "",
		"$JS.API.CONSUMER.DURABLE.CREATE.FLEETCAST_SPEC.agent-c1-client":             "",
		"$JS.ACK.FLEETCAST_SPEC.agent-c2-client.1.1.1.1.1":                           "+ACK",
		"fleetcast.spec.stream":                                                      "",
	} {
		refused(t, nc, subject, body)
	}
	// The name and the filter are permitted here; that the request holds
	// another filter is the server's to notice.
	m, err := nc.Request("$JS.API.CONSUMER.CREATE.FLEETCAST_SPEC.agent-c1-client.fleetcast.spec.c1.>",
		[]byte(`{"stream_name":"FLEETCAST_SPEC","config":{"name":"agent-c1-client","filter_subject":"fleetcast.spec.c2.>","ack_policy":"explicit"}}`), patience)
	if err != nil || !strings.Contains(string(m.Data), `"error"`) {
		t.Errorf("a consumer of another filter than in its subject was answered with %v, %s", err, m.Data)
	}
	for _, subject := range []string{"fleetcast.spec.c2.>", "fleetcast.>", "_INBOX.>", "_INBOX.source-hub.>", "fleetcast.status.hub.>"} {
		sub, err := nc.SubscribeSync(subject)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sub.NextMsg(patience); !errors.Is(err, natsgo.ErrPermissionViolation) {
			t.Errorf("subscribe to %s: got %v, want a permission violation", subject, err)
		}
	}
}

// refused checks that the server does not even look at a request.
func refused(t *testing.T, nc *natsgo.Conn, subject, body string) {
	t.Helper()
	violation := make(chan error, 1)
	nc.SetErrorHandler(func(_ *natsgo.Conn, _ *natsgo.Subscription, err error) {
		select {
		case violation <- err:
		default:
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if m, err := nc.RequestWithContext(ctx, subject, []byte(body)); err == nil {
			t.Errorf("request to %s was answered: %s", subject, m.Data)
		} else if errors.Is(err, natsgo.ErrNoResponders) {
			t.Errorf("request to %s was let through", subject)
		}
	}()
	select {
	case err := <-violation:
		if !errors.Is(err, natsgo.ErrPermissionViolation) || !strings.Contains(err.Error(), `"`+subject+`"`) {
			t.Errorf("request to %s: got %v", subject, err)
		}
	case <-answered:
	}
	cancel()
	<-answered
}
