package nats_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/embedded"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

func newDeletion() event.Event {
	return event.Of(nil, append(attributesOf(newEvent()), event.Attribute{Name: "deletiontimestamp", Value: "2026-01-02T03:04:05Z"})...)
}

func newQuestion() event.Event {
	return event.New("io.fleetcast.test.resync_request", "test", time.Now(), 0)
}

func attributesOf(e event.Event) []event.Attribute {
	var all []event.Attribute
	for name, value := range e.All() {
		all = append(all, event.Attribute{Name: name, Value: value})
	}
	return all
}

func streamConfig(t *testing.T, js jetstream.JetStream, name string) jetstream.StreamConfig {
	t.Helper()
	stream, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().Config
}

// TestDeletionsAreForgotten fills a bounded stream with the deletions of works,
// and holds that there is room for others afterwards.
func TestDeletionsAreForgotten(t *testing.T) {
	s := startServer(t, embedded.NATSOptions{})
	_, js := operator(t, s)
	hub := open(t, s.url+"?max-bytes=20000&tombstone-age=1s", brokers.Config{Role: brokers.RoleSource, Name: "hub"})
	defer hub.Close(t.Context())
	send(t, hub, work("hub", "c1", "alive"), newEvent())
	full := false
	for i := 0; i < 10_000 && !full; i++ {
		err := hub.Publish(t.Context(), work("hub", "c1", fmt.Sprint("w", i)), newDeletion())
		if full = errors.Is(err, brokers.ErrRefused); err != nil && !full {
			t.Fatal(err)
		}
	}
	if !full {
		t.Log("the stream forgot faster than it was filled")
	}
	large := newEvent()
	large.Data = make([]byte, 10_000)
	until(t, "there is room again", func() bool {
		return hub.Publish(t.Context(), work("hub", "c1", "new"), large) == nil
	})
	stream, err := js.Stream(t.Context(), "FLEETCAST_SPEC")
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the stream has the marker and the two works that are alive", func() bool {
		info, err := stream.Info(t.Context())
		return err == nil && info.State.Msgs == 3
	})
	agent := openFor(t, s, brokers.Config{Role: brokers.RoleAgent, Name: "c1"})
	works := subscribe(t, agent, nil, worksOf("hub", "c1"))
	if got := works.keys(t, 2); got[0] != "alive" || got[1] != "new" {
		t.Errorf("a new agent gets %v, want the works that are alive", got)
	}
}

// TestQuestionsHaveNoPosition holds that an agent's position is never at an
// event that the stream forgets soon.
func TestQuestionsHaveNoPosition(t *testing.T) {
	s := startServer(t, embedded.NATSOptions{})
	_, js := operator(t, s)
	hub := openFor(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub"})
	agent := openFor(t, s, brokers.Config{Role: brokers.RoleAgent, Name: "c1"})
	works := subscribe(t, agent, nil, worksOf("hub", "c1"))
	if d := publish(t, hub, works, work("hub", "c1", "k")); d.Position == "" {
		t.Error("a work has no position")
	}
	question := newQuestion()
	send(t, hub, work("hub", "c1", ""), question)
	if d := works.await(t, question); d.Position != "" {
		t.Errorf("a question has position %q, want none", d.Position)
	}
	stream, err := js.Stream(t.Context(), "FLEETCAST_SPEC")
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetLastMsgForSubject(t.Context(), "fleetcast.spec.c1.hub.%")
	if err != nil || m.Header.Get(jetstream.MsgTTLHeader) != "10m0s" {
		t.Errorf("the question in the stream is %+v, %v, want one that is kept for ten minutes", m, err)
	}
}

// createOld creates the streams as older versions did, which kept everything.
func createOld(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	for name, subject := range map[string]string{"FLEETCAST_SPEC": "fleetcast.spec", "FLEETCAST_STATUS": "fleetcast.status"} {
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
			Name: name, Subjects: []string{subject + ".>"}, MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew,
			Duplicates: time.Minute, AllowDirect: true, DenyDelete: true,
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := js.Publish(t.Context(), subject+".stream", nil); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStreamsOfOlderVersion adapts streams that were made to keep everything.
func TestStreamsOfOlderVersion(t *testing.T) {
	s := startServer(t, embedded.NATSOptions{})
	_, js := operator(t, s)
	createOld(t, js)
	// An agent that is newer than the hub has to do with such streams.
	agent := openFor(t, s, brokers.Config{Role: brokers.RoleAgent, Name: "c1"})
	report := brokers.Topic{Lane: brokers.ToSource, Source: "hub", Cluster: "c1", Key: "k"}
	send(t, agent, report, newQuestion())
	kept := &cursor{}
	works := subscribe(t, agent, nil, worksOf("hub", "c1"))

	hub := openFor(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub"})
	kept.set(publish(t, hub, works, work("hub", "c1", "k")).Position)
	for name, age := range map[string]time.Duration{"FLEETCAST_SPEC": 0, "FLEETCAST_STATUS": 30 * 24 * time.Hour} {
		if c := streamConfig(t, js, name); !c.AllowMsgTTL || c.MaxAge != age {
			t.Errorf("%s has allow_msg_ttl %t and max_age %s, want true and %s", name, c.AllowMsgTTL, c.MaxAge, age)
		}
	}
	stream, err := js.Stream(t.Context(), "FLEETCAST_STATUS")
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetLastMsgForSubject(t.Context(), "fleetcast.status.stream")
	if err != nil || m.Header.Get(jetstream.MsgTTLHeader) != "never" {
		t.Errorf("the marker of the reports is %+v, %v, want one that outlives them", m, err)
	}
	// The stream of works is still the same to agents.
	works.stop(t)
	again := listen(t, agent, kept.get, func(d brokers.Delivery) { d.Done(nil) }, worksOf("hub", "c1"))
	if !again.ready(t).Resumed {
		t.Error("an agent's position in the stream of works is lost")
	}
}

// TestStreamsThatCannotForget has a hub that may not change the streams of an
// older version. It works with them, and says what is to be done.
func TestStreamsThatCannotForget(t *testing.T) {
	_, source := documented(t)
	source.Publish = &server.SubjectPermission{Allow: slices.DeleteFunc(source.Publish.Allow, func(subject string) bool {
		return strings.HasPrefix(subject, "$JS.API.STREAM.UPDATE.")
	})}
	s := startServer(t, embedded.NATSOptions{Configure: func(o *server.Options) {
		o.Users = []*server.User{{Username: "hub", Password: "secret", Permissions: &source}, {Username: "admin", Password: "secret"}}
	}})
	nc, err := natsgo.Connect(s.url, natsgo.UserInfo("admin", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	createOld(t, js)
	password := filepath.Join(t.TempDir(), "password")
	write(t, password, []byte("secret"))
	hub, log := openLogged(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub", Username: "hub", PasswordFile: password})
	send(t, hub, work("hub", "c1", "k"), newDeletion())
	for _, name := range []string{"FLEETCAST_SPEC", "FLEETCAST_STATUS"} {
		says := func(line string) bool {
			return strings.Contains(line, "set allow_msg_ttl on it") && strings.Contains(line, "stream="+name)
		}
		if !slices.ContainsFunc(strings.Split(log.String(), "\n"), says) {
			t.Errorf("the log does not say what to do about %s:\n%s", name, log)
		}
	}
}
