package ocm_test

import (
	"slices"
	"strings"
	"testing"
)

// testHubLifecycle: this project's hub serves an OCM work agent through the
// whole life of a work.
func testHubLifecycle(w *world) {
	t, h, a := w.t, startHub(w), newAgent(w)
	a.connect()
	id := h.create("web-tier", "blue")
	h.awaitStatus(a, "web-tier", 1)
	first := a.received()[id][0]
	if kind := first.kind(); kind != "spec.create_request" && kind != "spec.resync_response" {
		t.Errorf("the work came as %s", kind)
	}
	if finalizers := h.get("web-tier").Finalizers; !slices.Equal(finalizers, []string{"cluster.open-cluster-management.io/manifest-work-cleanup"}) {
		t.Errorf("finalizers of the work are %q", finalizers)
	}

	h.update("web-tier", "green")
	h.awaitStatus(a, "web-tier", 2)
	if _, held, _ := a.work("web-tier"); held.mode != "green" {
		t.Errorf("the agent has mode %q", held.mode)
	}

	h.delete("web-tier")
	h.awaitGone("web-tier")
	events := a.received()[id]
	last := events[len(events)-1]
	if last.properties["ce-deletiontimestamp"] == "" || last.properties["ce-resourceversion"] != "3" {
		t.Errorf("the deletion came as %v", last.properties)
	}
	if _, _, held := a.work("web-tier"); held {
		t.Error("the agent still has the work")
	}
}

// testHubSpecResync: an agent whose session is gone tells what it has, and gets
// what is newer or to be deleted, and nothing else.
func testHubSpecResync(w *world) {
	t, h, a := w.t, startHub(w), newAgent(w)
	a.connect()
	ids := map[string]string{}
	for _, name := range []string{"changed", "deleted", "kept"} {
		ids[name] = h.create(name, "blue")
		h.awaitStatus(a, name, 1)
	}
	o := w.observe("sourceevents")
	a.disconnect()
	h.update("changed", "green")
	h.delete("deleted")
	ids["new"] = h.create("new", "blue")
	o.await(ids["changed"], "green")
	o.await(ids["deleted"], "ce-deletiontimestamp")
	o.await(ids["new"], "blue")
	// It is another source's, or that of a hub whose data is gone.
	const unknown = "7191eda0-1478-4abc-a625-69b6114a2f52"
	a.apply(unknown, agentWork{name: "unknown", generation: 7})

	a.connect()
	h.awaitStatus(a, "changed", 2)
	h.awaitStatus(a, "new", 1)
	h.awaitGone("deleted")
	_, kept, _ := a.work("kept")
	a.awaitQuestion(ids["kept"], kept.hash)
	// What the hub would have sent, it would have sent before this.
	ids["later"] = h.create("later", "blue")
	h.awaitStatus(a, "later", 1)
	events := a.received()
	for _, id := range []string{unknown, ids["kept"]} {
		if got := events[id]; len(got) > 0 {
			t.Errorf("work %s was not lacking, and came as %s %v", id, got[0].kind(), got[0].properties)
		}
	}
	for _, name := range []string{"changed", "deleted", "new"} {
		if len(events[ids[name]]) == 0 {
			t.Errorf("work %s did not come on the new connection", name)
		}
	}
	if _, _, held := a.work("unknown"); !held {
		t.Error("the work that the hub does not know was deleted")
	}

	// An agent that was restarted has nothing, and is sent everything.
	a.disconnect()
	clear(a.works)
	a.connect()
	for name, generation := range map[string]int64{"changed": 2, "kept": 1, "new": 1, "later": 1} {
		h.awaitStatus(a, name, generation)
		if n := len(a.received()[ids[name]]); n != 1 {
			t.Errorf("work %s came %d times", name, n)
		}
	}
}

// testHubForeignReports: what is old, is not the cluster's own or cannot be read
// changes nothing; all spellings of CloudEvents are understood.
func testHubForeignReports(w *world) {
	t, h, a := w.t, startHub(w), newAgent(w)
	a.connect()
	old := a.sequencer.next()
	id := h.create("web-tier", "blue")
	h.awaitStatus(a, "web-tier", 1)
	other := h.create("other", "blue")
	h.awaitStatus(a, "other", 1)
	_, held, _ := a.work("web-tier")
	report := func(change func(map[string]string)) message {
		m := a.report(id, "web-tier", 1, "not to be believed")
		change(m.properties)
		return m
	}
	none := func(map[string]string) {}

	const anotherLane = "it came from another cluster"
	for reason, m := range map[string]message{
		"its sequence is older":             report(func(p map[string]string) { p["ce-sequenceid"] = old }),
		"it has no sequence":                report(func(p map[string]string) { delete(p, "ce-sequenceid") }),
		"its sequence is no number":         report(func(p map[string]string) { p["ce-sequenceid"] = "newest" }),
		"it claims another cluster":         report(func(p map[string]string) { p["ce-clustername"] = "another-cluster" }),
		anotherLane:                         report(none),
		"it claims another source":          report(func(p map[string]string) { p["ce-originalsource"] = "another-source" }),
		"no such generation was sent":       report(func(p map[string]string) { p["ce-resourceversion"] = "2" }),
		"it is no CloudEvent":               report(func(p map[string]string) { delete(p, "ce-specversion") }),
		"nobody is deleting the work":       a.deleted(id, "web-tier", 1),
		"it is about a work that is no one": a.report("7191eda0-1478-4abc-a625-69b6114a2f52", "unknown", 1, "unknown"),
	} {
		if m.topic = a.lane("agentevents"); reason == anotherLane {
			m.topic = strings.Replace(m.topic, a.cluster, "another-cluster", 1)
		}
		if err := a.link.publish(m); err != nil {
			t.Fatal(err)
		}
		// The hub is done with it when it has what came afterwards.
		a.publish(a.apply(other, agentWork{name: "other", generation: 1, message: reason}))
		h.awaitStatus(a, "other", 1)
		if err := h.status("web-tier", held.status); err != nil {
			t.Errorf("%s: the report changed the work: %v", reason, err)
		}
	}
	for spelling, as := range map[string]func(*testing.T, message) message{"structured": structured, "unprefixed": unprefixed} {
		a.publish(as(t, a.apply(other, agentWork{name: "other", generation: 1, message: spelling})))
		h.awaitStatus(a, "other", 1)
	}
	if err := h.status("web-tier", held.status); err != nil {
		t.Errorf("in the end: %v", err)
	}
	// That it is said to be gone already does not keep it from being deleted.
	h.delete("web-tier")
	h.awaitGone("web-tier")
	if _, _, held := a.work("web-tier"); held {
		t.Error("the work is gone and the agent was not told to delete it")
	}
}

// testHubAgentAway: what the hub says while the agent is away is lost with the
// agent's session; what the agent says while the hub is away is not. Either way
// both have the same when they meet again.
func testHubAgentAway(w *world) {
	t, h, a := w.t, startHub(w), newAgent(w)
	a.connect()
	// The version of this one is its user's and does not grow with the deletion.
	id := h.create("web-tier", "blue", "cloudevents.open-cluster-management.io/resourceversion", "5")
	h.awaitStatus(a, "web-tier", 5)
	unheld := h.create("unheld", "blue")
	h.awaitStatus(a, "unheld", 1)
	other := h.create("other", "blue")
	h.awaitStatus(a, "other", 1)

	o := w.observe("sourceevents")
	a.disconnect()
	for name, id := range map[string]string{"web-tier": id, "unheld": unheld} {
		h.delete(name)
		if work := h.get(name); work == nil || work.DeletionTimestamp == nil {
			t.Fatalf("work %s is gone before its cluster said so", name)
		}
		o.await(id, "ce-deletiontimestamp")
	}
	delete(a.works, unheld) // The agent lost its memory of this one.
	a.connect()
	h.awaitGone("web-tier")
	h.awaitGone("unheld")
	for _, id := range []string{id, unheld} {
		if got := a.received()[id]; len(got) == 0 || got[0].kind() != "spec.resync_response" {
			t.Errorf("the agent's question was not answered with the deletion of %s, but with %v", id, got)
		}
	}

	// A report on its way while the hub is down waits for it.
	h.stop()
	a.publish(a.apply(other, agentWork{name: "other", generation: 1, message: "while the hub was away"}))
	h.start()
	h.awaitStatus(a, "other", 1)
	_, held, _ := a.work("other")

	// One that was lost altogether is asked for.
	h.stop()
	a.apply(other, agentWork{name: "other", generation: 1, message: "said to nobody"})
	h.start()
	a.awaitQuestion(other, held.hash)
	h.awaitStatus(a, "other", 1)
}
