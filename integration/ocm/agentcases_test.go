package ocm_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// testAgentLifecycle: an OCM source drives this project's agent through the
// whole life of a work.
func testAgentLifecycle(w *world) {
	t, s := w.t, newSource(w)
	w.startAgent()
	if listed := s.awaitAsked(0); len(listed) != 0 {
		t.Errorf("a new agent lists %v", listed)
	}

	s.create("web-tier", 3, "blue")
	first := s.awaitApplied("web-tier", 3)
	w.holds("web-tier", "blue")
	s.update("web-tier", 4, "green")
	second := s.awaitApplied("web-tier", 4)
	w.holds("web-tier", "green")
	if !newerSequence(second.sequence, first.sequence) {
		t.Errorf("sequence %d follows %d", second.sequence, first.sequence)
	}

	s.delete("web-tier", 5, time.Now())
	s.awaitDeleted(s.id("web-tier"), 1)
	w.holds("web-tier", "")
	if last := s.reportsOn("web-tier"); last[len(last)-1].version != 5 {
		t.Errorf("the deletion of version 5 is confirmed for version %d", last[len(last)-1].version)
	}

	// A source whose agent lost a work deletes it all the same.
	s.keep(sourceWork{name: "never-seen", version: 7, mode: "red", reported: true})
	s.delete("never-seen", 8, time.Now())
	s.awaitDeleted(s.id("never-seen"), 1)
	if n, _ := s.asked(); n != 1 {
		t.Errorf("the agent connected once and asked %d times", n)
	}
}

// testAgentUnversioned: works of OCM's ManifestWorkReplicaSet controller travel
// without version, which is 0 on the wire.
func testAgentUnversioned(w *world) {
	s := newSource(w)
	stop := w.startAgent()
	s.awaitAsked(0)

	s.create("web-tier", 0, "blue")
	s.awaitApplied("web-tier", 0)
	w.holds("web-tier", "blue")
	s.update("web-tier", 0, "green")
	until(w.t, "the update is applied", func() error { return differ("green", w.mode("web-tier")) })

	// A source sends an unversioned work in answer to every question.
	stop()
	s.change("web-tier", func(sent *sourceWork) { sent.mode = "red" })
	w.startAgent()
	if diff := cmp.Diff(map[string]int64{s.id("web-tier"): 0}, s.awaitAsked(1)); diff != "" {
		w.t.Errorf("the agent lists (-want +got):\n%s", diff)
	}
	until(w.t, "the answer is applied", func() error { return differ("red", w.mode("web-tier")) })

	s.delete("web-tier", 0, time.Now())
	s.awaitDeleted(s.id("web-tier"), 1)
	w.holds("web-tier", "")
	s.create("web-tier", 0, "blue")
	s.awaitApplied("web-tier", 0)
	w.holds("web-tier", "blue")
}

// testAgentCreatedAgain: a work that is deleted and created again has the same
// ID, and its versions begin anew.
func testAgentCreatedAgain(w *world) {
	s := newSource(w)
	stop := w.startAgent()
	s.awaitAsked(0)

	old := s.create("web-tier", 5, "blue")
	s.awaitApplied("web-tier", 5)
	s.delete("web-tier", 6, time.Now())
	s.awaitDeleted(s.id("web-tier"), 1)

	s.publish(old) // As a broker delivers it again.
	// The agent handles events in order, and says what it holds when it is new.
	s.create("other", 1, "blue")
	s.awaitApplied("other", 1)
	stop()
	stop = w.startAgent()
	if diff := cmp.Diff(map[string]int64{s.id("other"): 1}, s.awaitAsked(1)); diff != "" {
		w.t.Errorf("after the old creation came again the agent lists (-want +got):\n%s", diff)
	}
	w.holds("web-tier", "")

	s.create("web-tier", 1, "green")
	s.awaitApplied("web-tier", 1)
	w.holds("web-tier", "green")
	s.publish(old)
	s.update("other", 2, "green")
	s.awaitApplied("other", 2)
	stop()
	w.startAgent()
	want := map[string]int64{s.id("other"): 2, s.id("web-tier"): 1}
	if diff := cmp.Diff(want, s.awaitAsked(2)); diff != "" {
		w.t.Errorf("after the old creation came again the agent lists (-want +got):\n%s", diff)
	}
	w.holds("web-tier", "green")
}

// testAgentSameSecond is testAgentCreatedAgain within one second, which is what
// the deletion timestamps of Kubernetes count.
func testAgentSameSecond(w *world) {
	s := newSource(w)
	stop := w.startAgent()
	s.awaitAsked(0)

	old := s.create("web-tier", 0, "blue")
	s.awaitApplied("web-tier", 0)
	sent, err := time.Parse(time.RFC3339Nano, old.properties["ce-time"])
	if err != nil {
		w.t.Fatal(err)
	}
	second := sent.Truncate(time.Second)
	s.delete("web-tier", 0, second)
	s.awaitDeleted(s.id("web-tier"), 1)

	s.publish(old)
	s.create("other", 1, "blue")
	s.awaitApplied("other", 1)
	stop()
	w.startAgent()
	if diff := cmp.Diff(map[string]int64{s.id("other"): 1}, s.awaitAsked(1)); diff != "" {
		w.t.Errorf("after the old creation came again the agent lists (-want +got):\n%s", diff)
	}
	w.holds("web-tier", "")

	s.create("web-tier", 0, "green")
	s.awaitApplied("web-tier", 0)
	w.holds("web-tier", "green")
	s.delete("web-tier", 0, second)
	s.awaitDeleted(s.id("web-tier"), 2)
	w.holds("web-tier", "")
}

// testAgentSpecResync: the source changed and forgot works while the agent was
// away and the broker kept nothing.
func testAgentSpecResync(w *world) {
	s := newSource(w)
	stop := w.startAgent()
	s.awaitAsked(0)
	for _, name := range []string{"changed", "forgotten", "kept", "deleted"} {
		s.create(name, 3, "blue")
		s.awaitApplied(name, 3)
	}
	stop()

	s.change("changed", func(sent *sourceWork) { sent.version, sent.mode = 4, "green" })
	s.forget("forgotten")
	s.change("deleted", func(sent *sourceWork) { sent.version, sent.deletedAt = 4, time.Now() })
	s.keep(sourceWork{name: "new", version: 1, mode: "green"})
	before := len(s.reportsOn("kept"))

	w.startAgent()
	want := map[string]int64{s.id("changed"): 3, s.id("forgotten"): 3, s.id("kept"): 3, s.id("deleted"): 3}
	if diff := cmp.Diff(want, s.awaitAsked(1)); diff != "" {
		w.t.Errorf("the agent lists (-want +got):\n%s", diff)
	}
	s.awaitApplied("changed", 4)
	s.awaitApplied("new", 1)
	// The answer for this one does not say its name.
	s.awaitDeleted(s.id("forgotten"), 1)
	s.awaitDeleted(s.id("deleted"), 1)
	for name, mode := range map[string]string{"changed": "green", "new": "green", "kept": "blue", "forgotten": "", "deleted": ""} {
		w.holds(name, mode)
	}
	if n, _ := s.asked(); n != 2 {
		w.t.Errorf("the agent connected twice and asked %d times", n)
	}
	if after := len(s.reportsOn("kept")); after != before {
		w.t.Errorf("the work that nobody touched was reported on %d times more", after-before)
	}
}

// testAgentStatusResync: the agent answers what differs, and everything to an
// empty list.
func testAgentStatusResync(w *world) {
	s := newSource(w)
	w.startAgent()
	s.awaitAsked(0)
	names := []string{"same", "differs", "unlisted"}
	for _, name := range names {
		s.create(name, 1, "blue")
		s.awaitApplied(name, 1)
	}
	counts := func() map[string]int {
		n := map[string]int{}
		for _, name := range names {
			n[name] = len(s.reportsOn(name))
		}
		return n
	}
	// ask waits for one more report on each of these works, and then holds that
	// no others came: they would have been sent along.
	ask := func(what, topic, cluster string, hashes map[string]string, answered ...string) {
		w.t.Helper()
		want := counts()
		for _, name := range answered {
			want[name]++
		}
		s.askForStatus(topic, cluster, hashes)
		until(w.t, what, func() error {
			for name, n := range counts() {
				if n < want[name] {
					return differ(want, counts())
				}
			}
			return nil
		})
		if diff := cmp.Diff(want, counts()); diff != "" {
			w.t.Errorf("%s: reports per work (-want +got):\n%s", what, diff)
		}
	}
	held := s.hashes(noStatus)
	hashes := map[string]string{s.id("same"): held[s.id("same")], s.id("differs"): noStatus}
	broadcast := "sources/" + s.name + "/sourcebroadcast"
	ask("what differs is sent", s.topic(), s.cluster, hashes, "differs")
	ask("a question to all clusters is the same", broadcast, "", hashes, "differs")
	ask("who holds nothing is sent everything", broadcast, "", nil, names...)
	ask("nothing else was sent meanwhile", s.topic(), s.cluster, hashes, "differs")
}

// testAgentCreationLost: a work was created again and the broker lost that. The
// source asks for its status, which it cannot have. Were the agent to say again
// that the old work is deleted, the source would drop the new one.
func testAgentCreationLost(w *world) {
	s := newSource(w)
	stop := w.startAgent()
	s.awaitAsked(0)
	s.create("other", 1, "blue")
	s.awaitApplied("other", 1)
	s.create("web-tier", 1, "blue")
	s.awaitApplied("web-tier", 1)
	s.delete("web-tier", 2, time.Now())
	s.awaitDeleted(s.id("web-tier"), 1)

	s.keep(sourceWork{name: "web-tier", version: 1, mode: "green"})
	n := len(s.reportsOn("other"))
	s.askForStatus(s.topic(), s.cluster, map[string]string{s.id("web-tier"): noStatus, s.id("other"): noStatus})
	until(w.t, "the question is answered", func() error { return differ(n+1, len(s.reportsOn("other"))) })

	stop()
	w.startAgent()
	s.awaitApplied("web-tier", 1)
	w.holds("web-tier", "green")
}

// testAgentSourceAway: what the agent says while the source is away is lost
// with the source's session, and said again when the source asks.
func testAgentSourceAway(w *world) {
	s := newSource(w)
	w.startAgent()
	s.awaitAsked(0)
	s.create("deleted", 1, "blue")
	s.awaitApplied("deleted", 1)

	// The last that it sent arrives, the answers find nobody.
	o := w.observe("agentevents")
	s.disconnect()
	created := sourceWork{name: "created", version: 1, mode: "blue"}
	s.keep(created)
	deleted := s.change("deleted", func(sent *sourceWork) { sent.version, sent.deletedAt = 2, time.Now() })
	for _, m := range []message{s.spec("spec.create_request", created), s.spec("spec.delete_request", deleted)} {
		if err := o.publish(m); err != nil {
			w.t.Fatal(err)
		}
	}
	o.await(s.id("created"), `"Applied"`)
	o.await(s.id("deleted"), `"Deleted"`)
	s.connect()
	s.awaitApplied("created", 1)
	s.awaitDeleted(s.id("deleted"), 1)

	// A source that was restarted holds nothing and is told everything.
	s.disconnect()
	s.forget("created")
	n := len(s.reportsOn("created"))
	s.connect()
	until(w.t, "the new source hears of the work", func() error { return differ(n+1, len(s.reportsOn("created"))) })
}

// testAgentForeignPublishers: others publish as the CloudEvents specifications
// say, in structured mode or with attributes without a prefix. What is no event
// is dropped and costs the others nothing.
func testAgentForeignPublishers(w *world) {
	s := newSource(w)
	stop := w.startAgent()
	s.awaitAsked(0)

	none := s.spec("spec.create_request", sourceWork{name: "none", version: 1, mode: "blue"})
	delete(none.properties, "ce-specversion")
	s.publish(none)

	want := map[string]int64{}
	for name, as := range map[string]func(*testing.T, message) message{"structured": structured, "unprefixed": unprefixed} {
		work := sourceWork{name: name, version: 1, mode: "blue"}
		s.keep(work)
		s.publish(as(w.t, s.spec("spec.create_request", work)))
		s.awaitApplied(name, 1)
		w.holds(name, "blue")
		want[s.id(name)] = 1
	}

	stop()
	w.startAgent()
	if diff := cmp.Diff(want, s.awaitAsked(1)); diff != "" {
		w.t.Errorf("the agent lists (-want +got):\n%s", diff)
	}
	w.holds("none", "")
}

// testAgentMaestro: Maestro has other topics, names works by their ID, asks each
// consumer for its statuses and takes reports on its very version only.
func testAgentMaestro(w *world) {
	s := newSource(w)
	stop := w.startAgent()
	s.awaitAsked(0)
	s.create("web-tier", 1, "blue")
	s.awaitApplied("web-tier", 1)
	s.update("web-tier", 2, "green")
	s.awaitApplied("web-tier", 2)
	for _, r := range s.reportsOn("web-tier") {
		if want := r.status.Conditions[0].ObservedGeneration; r.version != want {
			w.t.Errorf("a report on version %d says that it is on %d", want, r.version)
		}
	}

	// It was restarted and has no status of the work in its database yet.
	s.disconnect()
	n := len(s.reportsOn("web-tier"))
	s.change("web-tier", func(sent *sourceWork) { sent.reported = false })
	s.connect()
	until(w.t, "Maestro gets the status", func() error { return differ(n+1, len(s.reportsOn("web-tier"))) })

	stop()
	s.change("web-tier", func(sent *sourceWork) { sent.version, sent.deletedAt = 3, time.Now() })
	w.startAgent()
	s.awaitDeleted(s.id("web-tier"), 1)
	w.holds("web-tier", "")
}

// structured is m in the structured mode of CloudEvents.
func structured(t *testing.T, m message) message {
	t.Helper()
	event := map[string]any{"datacontenttype": m.contentType, "data": json.RawMessage(m.payload)}
	for key, value := range m.properties {
		event[key[len("ce-"):]] = value
	}
	event["id"] = uuid.NewString()
	if text, ok := m.properties["ce-resourceversion"]; ok {
		event["resourceversion"] = json.Number(text) // An integer is one in JSON.
	}
	body, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	return message{topic: m.topic, contentType: "application/cloudevents+json", payload: body, properties: map[string]string{}}
}

// unprefixed is m as the MQTT binding of CloudEvents spells attributes.
func unprefixed(_ *testing.T, m message) message {
	bare := m
	bare.properties = map[string]string{}
	for key, value := range m.properties {
		bare.properties[key[len("ce-"):]] = value
	}
	return bare
}

// differ is nil if got is what is wanted.
func differ[T any](want, got T) error {
	if diff := cmp.Diff(want, got); diff != "" {
		return diffError(diff)
	}
	return nil
}

type diffError string

func (e diffError) Error() string { return "(-want +got)\n" + string(e) }
