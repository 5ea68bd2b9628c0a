package nats_test

import (
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/embedded"
	"github.com/fleetcast-io/fleetcast/brokers/nats"
)

// openLogged opens a transport whose log is kept.
func openLogged(t *testing.T, s *testServer, c brokers.Config) (brokers.Transport, *record) {
	t.Helper()
	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	log := &record{}
	c.Log = slog.New(slog.NewTextHandler(log, nil))
	tr, err := nats.Open(t.Context(), u, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNow(t, tr) })
	return tr, log
}

// TestClonedAgents runs two agents of one cluster, as a cloned machine does,
// and holds that the first leaves the works to the second and says why.
func TestClonedAgents(t *testing.T) {
	s := startServer(t, embedded.NATSOptions{})
	hub := openFor(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub"})
	c := brokers.Config{Role: brokers.RoleAgent, Name: "c1"}
	fromStart := func() string { return "" }
	first, log := openLogged(t, s, c)
	one := subscribe(t, first, fromStart, worksOf("hub", "c1"))
	second, quiet := openLogged(t, s, c)
	two := subscribe(t, second, fromStart, worksOf("hub", "c1"))

	until(t, "the first agent says what is wrong", func() bool { return strings.Contains(log.String(), "took over its consumer") })
	publish(t, hub, two, work("hub", "c1", "k"))
	select {
	case <-one.readies:
		t.Error("the first agent took the consumer back at once")
	default:
	}
	if n := strings.Count(log.String(), "took over its consumer"); n != 1 {
		t.Errorf("the first agent said so %d times:\n%s", n, log)
	}
	if strings.Contains(quiet.String(), "another process") {
		t.Errorf("the second agent complains:\n%s", quiet)
	}

	// Who starts does not wait, whatever is left of others.
	two.stop(t)
	third, _ := openLogged(t, s, c)
	publish(t, hub, subscribe(t, third, fromStart, worksOf("hub", "c1")), work("hub", "c1", "k"))
}

// TestClonedSources runs two hubs with one source ID. They share a consumer,
// and the one that had it before is to say so.
func TestClonedSources(t *testing.T) {
	s := startServer(t, embedded.NATSOptions{})
	reports := brokers.Filter{Lane: brokers.ToSource, Source: "hub", Cluster: brokers.Any}
	c := brokers.Config{Role: brokers.RoleSource, Name: "hub"}
	before, quiet := openLogged(t, s, c)
	subscribe(t, before, nil, reports).stop(t)
	first, log := openLogged(t, s, c)
	subscribe(t, first, nil, reports)
	second, _ := openLogged(t, s, c)
	subscribe(t, second, nil, reports)
	until(t, "the first source says what is wrong", func() bool { return strings.Contains(log.String(), "another process uses this identity") })
	if strings.Contains(quiet.String(), "another process") {
		t.Errorf("a source that has ended complains:\n%s", quiet)
	}
}
