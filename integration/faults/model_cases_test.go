package faults_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
	"github.com/fleetcast-io/fleetcast/sources"
)

// TestModelCases runs the cases of docs/reliability.md that need no processes,
// by their numbers there, over both kinds of broker. The promises are checked
// throughout; a case adds what is its own.
func TestModelCases(t *testing.T) {
	cases := map[string]struct {
		bend func(*settings)
		play func(*testing.T, *world)
	}{
		"4 broker restored from an older copy":     {play: caseBrokerRestored},
		"14 hub restored from an older copy":       {play: caseHubRestored},
		"15 hub is empty after a disaster":         {play: caseHubEmpty},
		"17 two sources, one cluster":              {bend: twoSources, play: caseTwoSources},
		"19 every event ten times":                 {play: caseRepeated},
		"20 events out of order":                   {bend: recurringIDs, play: caseReordered},
		"21 half of the events are lost":           {play: caseLost},
		"22 events late by hours":                  {bend: recurringIDs, play: caseLate},
		"23 all of history again":                  {bend: recurringIDs, play: caseReplayed},
		"24 damaged events":                        {play: caseDamaged},
		"25 clocks wrong by ten years":             {play: caseClocks},
		"28 agent away for thirty days":            {bend: shortQueue, play: caseAway},
		"29 agent lost its state":                  {play: caseAgentEmpty},
		"29 agent lost its state and its clock":    {play: caseAgentEmptyClocks},
		"29 agent lost a deletion, then its state": {play: caseAgentForgets},
		"29 cluster restored to before a deletion": {play: caseClusterSetBack},
		"30 two agents of one cluster":             {play: caseCloned},
		"40 events that nobody should send":        {play: casePoison},
		"41 a work that is too large":              {bend: smallPackets, play: caseTooLarge},
		"41 more works than an event can carry":    {bend: smallPackets, play: caseManyWorks},
		"42 a body that unpacks to much":           {play: caseBomb},
	}
	for name, c := range cases {
		for _, kind := range kinds {
			t.Run(name+"/"+kind.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := settings{seed: 1, sources: []string{"hub1"}, clusters: []string{"c1", "c2"}}
					s.broker.Log, s.broker.Delay, s.broker.Reconnect = kind.log, 50*time.Millisecond, time.Second
					if c.bend != nil {
						c.bend(&s)
					}
					w := newWorld(t, s)
					w.begin()
					c.play(t, w)
					for _, breach := range w.end() {
						t.Error(breach)
					}
				})
			})
		}
	}
}

func twoSources(s *settings)   { s.sources = []string{"hub1", "hub2"} }
func recurringIDs(s *settings) { s.recurring = true }
func shortQueue(s *settings)   { s.broker.Queue = 10 }
func smallPackets(s *settings) { s.broker.MaxSize = 8000 }

// Bounds of docs/reliability.md.
const (
	soon   = time.Minute
	later  = 2 * time.Minute
	atLast = 5 * time.Minute
)

func (w *world) put(source, cluster, name, content string) {
	w.t.Helper()
	w.must(w.desks[source].put(cluster, name, cluster+":"+content))
}

func (w *world) remove(source, cluster, name string) {
	w.t.Helper()
	w.must(w.desks[source].remove(cluster, name))
}

// fill gives every cluster works w0 to w9 and waits until they are there.
func (w *world) fill() {
	w.t.Helper()
	for _, id := range w.settings.sources {
		for _, name := range w.settings.clusters {
			for i := range 10 {
				w.put(id, name, fmt.Sprint("w", i), "first")
			}
		}
	}
	w.mustConverge(soon)
}

// stir changes half of the works of c1 and deletes two.
func (w *world) stir(content string) {
	w.t.Helper()
	for i := range 5 {
		w.put("hub1", "c1", fmt.Sprint("w", i), content)
	}
	w.remove("hub1", "c1", "w8")
	w.remove("hub1", "c1", "w9")
}

func caseBrokerRestored(t *testing.T, w *world) {
	t.Helper()
	w.fill()
	copied := len(w.net.published())
	w.stir("second")
	w.mustConverge(soon)
	w.restoreBroker(copied)
	w.pass(time.Second)
	t.Logf("converged after %s", w.mustConverge(later))
	w.pass(time.Hour)
	w.mustConverge(0)
}

func caseHubRestored(t *testing.T, w *world) {
	t.Helper()
	w.fill()
	older := w.desks["hub1"].backup()
	w.put("hub1", "c1", "w0", "newer")
	w.put("hub1", "c1", "new", "newer")
	w.remove("hub1", "c1", "w9")
	w.mustConverge(soon)
	has, deletes := w.clusters["c1"].all(), len(w.clusters["c1"].deletes)
	w.restoreHub("hub1", older)
	w.pass(atLast)
	if after := w.clusters["c1"].all(); !maps.Equal(after, has) {
		t.Errorf("the cluster has %v, want what it had: %v", after, has)
	}
	if n := len(w.clusters["c1"].deletes); n != deletes {
		t.Errorf("%d works were deleted, want none", n-deletes)
	}
	if got := len(w.agentState("hub1", "c1").Unclaimed); got != 1 {
		t.Errorf("%d works are known to be unclaimed, want the one that was made after the copy", got)
	}
	if got := w.desks["hub1"].ahead("c1", "w0"); got != 2 {
		t.Errorf("the hub knows of generation %d of what it was set back on, want 2", got)
	}
	// Whoever edits what was set back is heard, once that is newer.
	w.put("hub1", "c1", "w0", "edited")
	w.put("hub1", "c1", "w0", "edited again")
	w.mustConverge(later)
}

func caseHubEmpty(t *testing.T, w *world) {
	t.Helper()
	w.fill()
	has := w.clusters["c1"].all()
	w.restoreHub("hub1", newDesk("hub1", false, w.rng).backup())
	w.pass(time.Hour)
	if after := w.clusters["c1"].all(); !maps.Equal(after, has) {
		t.Errorf("the cluster has %v, want what it had: %v", after, has)
	}
	if got := len(w.agentState("hub1", "c1").Unclaimed); got != len(has) {
		t.Errorf("%d works are known to be unclaimed, want %d", got, len(has))
	}
}

// agentState is what a desk knows of a cluster's agent.
func (w *world) agentState(source, cluster string) sources.AgentState {
	d := w.desks[source]
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.data.roster[cluster]
}

func caseTwoSources(t *testing.T, w *world) {
	t.Helper()
	w.fill()
	for i := range 10 {
		w.remove("hub1", "c1", fmt.Sprint("w", i))
	}
	w.put("hub2", "c1", "w0", "of the other")
	w.mustConverge(soon)
	for k := range w.clusters["c1"].deletes {
		if k.Source != "hub1" {
			t.Errorf("work %s of %s was deleted, which only hub1 asked for", k.ID, k.Source)
		}
	}
}

func caseRepeated(t *testing.T, w *world) {
	t.Helper()
	w.net.set(trouble{repeat: 1, copies: 10, delay: time.Second})
	w.fill()
	w.stir("second")
	w.mustConverge(soon)
	w.pass(later)
	w.mustConverge(0)
	for c, n := range w.clusters["c1"].changes {
		if n > 1 {
			t.Errorf("generation %d of %s took effect %d times", c.generation, c.key.ID, n)
		}
	}
	for k, n := range w.clusters["c1"].deletes {
		if n > 1 {
			t.Errorf("work %s was deleted %d times", k.ID, n)
		}
	}
}

func caseReordered(t *testing.T, w *world) {
	t.Helper()
	w.fill()
	w.net.set(trouble{late: 0.9, delay: 20 * time.Second})
	for i := range 20 {
		w.stir(fmt.Sprint(i))
		w.pass(time.Second)
	}
	w.net.heal()
	t.Logf("converged after %s", w.mustConverge(soon))
	w.pass(later)
	w.mustConverge(0)
}

func caseLost(t *testing.T, w *world) {
	t.Helper()
	w.fill()
	w.net.set(trouble{drop: 0.5})
	w.stir("half")
	t.Logf("with half of the events lost, converged after %s", w.mustConverge(2*atLast))
	w.net.set(trouble{drop: 0.99})
	w.stir("nearly nothing")
	w.pass(time.Hour)
	w.net.heal()
	t.Logf("after an hour with one in a hundred arriving, converged after %s", w.mustConverge(atLast))
}

func caseLate(t *testing.T, w *world) {
	t.Helper()
	w.fill()
	w.net.set(trouble{late: 0.5, delay: 5 * time.Hour})
	for i := range 10 {
		w.stir(fmt.Sprint(i))
		w.pass(20 * time.Minute)
	}
	w.net.set(trouble{})
	w.mustConverge(atLast)
	w.pass(6 * time.Hour) // The rest arrives.
	w.mustConverge(0)
}

func caseReplayed(t *testing.T, w *world) {
	t.Helper()
	w.fill()
	w.stir("second")
	w.mustConverge(soon)
	w.put("hub1", "c1", "w9", "made again")
	w.mustConverge(soon)
	has, changes := w.clusters["c1"].all(), len(w.clusters["c1"].changes)
	for range 3 {
		for i, p := range w.net.published() {
			w.net.inject(p, time.Duration(i)*time.Millisecond)
		}
		w.pass(atLast)
	}
	w.mustConverge(0)
	if after := w.clusters["c1"].all(); !maps.Equal(after, has) || len(w.clusters["c1"].changes) != changes {
		t.Errorf("the cluster has %v, want what it had: %v", after, has)
	}
}

func caseDamaged(t *testing.T, w *world) {
	t.Helper()
	w.fill()
	w.net.set(trouble{corrupt: 0.3})
	for i := range 100 {
		w.stir(fmt.Sprint(i))
		w.pass(10 * time.Second)
	}
	w.net.heal()
	t.Logf("after a third of the events were damaged, converged after %s", w.mustConverge(atLast))
}

func caseClocks(t *testing.T, w *world) {
	t.Helper()
	w.fill()
	content := 0
	for _, whose := range []string{"c1", "hub1"} {
		for _, offset := range []time.Duration{decade, -decade, time.Hour, -time.Second, 0} {
			w.clocks[whose].set(offset)
			content++
			w.put("hub1", "c1", "w0", fmt.Sprint(content))
			w.remove("hub1", "c1", "w1")
			w.mustConverge(soon)
			w.put("hub1", "c1", "w1", fmt.Sprint(content))
			w.mustConverge(soon)
		}
	}
	if t.Failed() {
		t.Logf("after %d changes", content)
	}
}

func caseAway(t *testing.T, w *world) {
	t.Helper()
	w.fill()
	w.stop(agentOf("c1"))
	for i := range 30 {
		w.stir(fmt.Sprint(i))
		w.pass(24 * time.Hour)
	}
	before := len(w.net.published())
	w.startAgent("c1", agentOf("c1"), w.stores["c1"])
	w.pass(time.Second)
	t.Logf("converged after %s", w.mustConverge(atLast))
	sent := map[string]int{}
	for _, p := range w.net.published()[before:] {
		if _, m, err := codec.Decode(p.event); err == nil {
			if b, ok := m.(codec.Bundle); ok {
				sent[b.ID]++
			}
		}
	}
	for id, n := range sent {
		if n > 1 {
			t.Errorf("work %s was sent %d times, want its newest state once", id, n)
		}
	}
}

func caseAgentEmpty(t *testing.T, w *world) {
	t.Helper()
	w.fill()
	w.stop(agentOf("c1"))
	w.remove("hub1", "c1", "w0")
	w.put("hub1", "c1", "w1", "changed meanwhile")
	w.setBack("c1", &agents.Volatile{})
	t.Logf("converged after %s", w.mustConverge(atLast))
}

// caseAgentEmptyClocks: what an agent says after it lost its disk is ordered
// after what it said before, though its clock says otherwise. The hub runs all the
// time and remembers what it took.
func caseAgentEmptyClocks(t *testing.T, w *world) {
	t.Helper()
	w.fill()
	content := 0
	for _, offset := range []time.Duration{0, -time.Minute, -time.Hour, decade, -decade} {
		w.clocks["c1"].set(offset)
		w.setBack("c1", &agents.Volatile{})
		for range 2 {
			content++
			w.put("hub1", "c1", "w0", fmt.Sprint(content))
			w.remove("hub1", "c1", "w1")
			t.Logf("clock %s off: converged after %s", offset, w.mustConverge(soon))
			w.put("hub1", "c1", "w1", fmt.Sprint(content))
			w.mustConverge(soon)
		}
	}
}

func caseCloned(t *testing.T, w *world) {
	t.Helper()
	w.fill()
	copied, err := copyOf(w.stores["c1"])
	w.must(err)
	w.clusters["c1"].shared = true
	w.startAgent("c1", "c1-clone", copied)
	for i := range 10 {
		w.put("hub1", "c1", "w0", fmt.Sprint(i))
		w.pass(30 * time.Second)
	}
	if !w.agentState("hub1", "c1").Duplicate {
		t.Error("nobody noticed that the cluster has two agents")
	}
	w.stop("c1-clone")
	t.Logf("without the clone, converged after %s", w.mustConverge(15*time.Minute))
	w.pass(time.Hour)
	if w.agentState("hub1", "c1").Duplicate {
		t.Error("the cluster still counts as one with two agents")
	}
}

func casePoison(t *testing.T, w *world) {
	t.Helper()
	w.fill()
	bundle, ok, err := newClerk(w.desks["hub1"], &crash{}).Bundle(t.Context(), w.anyKey("hub1", "c1"))
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	good, err := bundle.Encode(codec.Update)
	w.must(err)
	with := func(name, value string) event.Event {
		e := good.Clone()
		e.Set(name, value)
		return e
	}
	body := func(data string) event.Event {
		e := good.Clone()
		e.Data = []byte(data)
		return e
	}
	poison := []event.Event{
		with("type", "io.fleetcast.v1.unheard-of"), with("type", "io.fleetcast.v9.hello"), with("type", "x"),
		with("resourceversion", "-1"), with("resourceversion", "99999999999999999999"), with("resourceversion", "NaN"),
		with("clustername", "c2"), with("clustername", "c1/../c2"), with("source", "hub2"), with("resourceid", ""),
		with("resourceid", "../../etc/passwd\x00"), with("metadata", `{"name":`), with("metadata", strings.Repeat("x", 70_000)),
		with("deletiontimestamp", "yesterday"), with("datacontenttype", "text/plain"), with("time", "when it suits"),
		body(`{"manifests":[{"a":NaN}]}`), body("\xff\xfe{}"), body(strings.Repeat(`{"a":`, 100_000)), body(strings.Repeat("[", 1<<20)),
		body(`{"manifests":"none"}`), body(""), body("null"),
	}
	for i, e := range poison {
		for _, to := range []brokers.Topic{
			{Lane: brokers.ToCluster, Source: "hub1", Cluster: "c1", Key: fmt.Sprint("poison", i)},
			{Lane: brokers.ToSource, Source: "hub1", Cluster: "c1", Key: fmt.Sprint("poison", i)},
		} {
			w.net.inject(passed{"mallory", to, e}, 0)
		}
	}
	w.pass(time.Second)
	has := len(w.clusters["c2"].all())
	for i := range 10 {
		w.put("hub1", "c2", fmt.Sprint("w", i), "second")
	}
	if took := w.mustConverge(soon); took > 10*time.Second || len(w.clusters["c2"].all()) != has {
		t.Errorf("the other cluster took %s and has %d works", took, len(w.clusters["c2"].all()))
	}
	w.stir("second")
	w.mustConverge(soon)
}

// anyKey is that of one of a cluster's works.
func (w *world) anyKey(source, cluster string) sources.Key {
	w.t.Helper()
	for _, id := range w.desks[source].known(cluster) {
		return sources.Key{Cluster: cluster, ID: id}
	}
	w.t.Fatalf("cluster %s has no works", cluster)
	return sources.Key{}
}

func caseTooLarge(t *testing.T, w *world) {
	t.Helper()
	w.fill()
	w.put("hub1", "c1", "large", noise(14_000))
	w.pass(later)
	before := len(w.net.published())
	w.stir("second")
	w.pass(later)
	for _, problem := range w.problems() {
		if !strings.Contains(problem, "it is not there, want generation 1") {
			t.Error(problem)
		}
	}
	if n := w.traffic(before)["Bundle"]; n > 7 {
		t.Errorf("%d bundles were sent for 7 changes", n)
	}
	if !w.agentState("hub1", "c1").InSync {
		t.Errorf("the cluster does not count as in sync, though it has all that it can have: %v", w.traffic(before))
	}
	w.put("hub1", "c1", "large", "small now")
	w.mustConverge(soon)
}

func caseManyWorks(t *testing.T, w *world) {
	t.Helper()
	for i := range 500 {
		w.put("hub1", "c1", fmt.Sprint("many", i), "first")
	}
	w.mustConverge(atLast)
	w.pass(later)
	w.setBack("c1", &agents.Volatile{})
	w.put("hub1", "c1", "many7", "second")
	t.Logf("converged after %s", w.mustConverge(atLast))
	w.pass(atLast)
	if !w.agentState("hub1", "c1").InSync {
		t.Error("the cluster is not in sync")
	}
}

// noise is a text that compresses to no less than three quarters of its size.
func noise(size int) string {
	random := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random) // Never fails.
	return base64.StdEncoding.EncodeToString(random)[:size]
}

// zstdOf compresses without regard to what a receiver takes.
func zstdOf(t *testing.T, content []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return z.EncodeAll(content, nil)
}

func caseBomb(t *testing.T, w *world) {
	t.Helper()
	w.fill()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	for range 64 {
		if _, err := z.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	w.must(z.Close())
	zstdBomb := zstdOf(t, make([]byte, codec.MaxPayload))
	for i, p := range w.net.published()[:20] {
		p.event = p.event.Clone()
		p.event.Data = packed.Bytes()
		for _, name := range []string{"contentencoding", "datacontentencoding", "encoding"} {
			p.event.Set(name, "gzip")
		}
		if i%2 == 0 {
			p.event.Data = zstdBomb
			p.event.Set(event.DataContentType, "application/json+zstd")
		}
		w.net.inject(p, 0)
	}
	w.pass(time.Second)
	w.stir("second")
	w.mustConverge(soon)
}
