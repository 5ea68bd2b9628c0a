package kube_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/kube"
)

// agentObject reads the hub's record of the test's cluster.
func (h *hub) agentObject() (*v1alpha1.Agent, error) {
	a := &v1alpha1.Agent{}
	err := h.Get(h.t.Context(), client.ObjectKey{Namespace: h.cluster, Name: sourceID}, a)
	return a, err
}

// state is that of an agent that is there and in sync.
func (h *hub) state(unclaimed ...sources.Unclaimed) sources.AgentState {
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	return sources.AgentState{
		Cluster: h.cluster, Agent: h.cluster + "-agent", Capabilities: []string{codec.CapDigest},
		Online: true, Since: at, LastSeen: at, InSync: true, SyncedAt: at, Unclaimed: unclaimed,
	}
}

func (h *hub) save(s sources.AgentState) {
	h.t.Helper()
	if err := h.source.SaveAgent(h.t.Context(), s); err != nil {
		h.t.Fatal(err)
	}
}

// removeByForce takes a work's finalizer off until the object is gone.
func (h *hub) removeByForce(name string) {
	h.t.Helper()
	h.eventually("remove by force", func() error {
		w, err := h.get(name)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err == nil {
			err = h.Patch(h.t.Context(), w, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`)))
		}
		if err == nil {
			err = h.Delete(h.t.Context(), w)
		}
		return errors.Join(errors.New("still there"), client.IgnoreNotFound(err))
	})
}

// TestTombstonesOutlastTheHub: the deletion of a work that was removed by force
// is published by the next hub, too, with all that identifies it, until it is
// confirmed; and it is remembered after that.
func TestTombstonesOutlastTheHub(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	w := h.create("web")
	first := a.takeGeneration(w)
	w = h.change("web", func(w *workv1.ManifestWork) {
		w.Spec.DeleteOption = &workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeOrphan}
	})
	a.takeGeneration(w)
	h.removeByForce("web")
	deletion := a.take("the deletion", codec.Bundle.Deleting)
	h.eventually("the tombstone is saved", func() error {
		agent, err := h.agentObject()
		if err == nil && len(agent.Status.Tombstones) != 1 {
			err = fmt.Errorf("%d tombstones", len(agent.Status.Tombstones))
		}
		return err
	})
	restarted := h.restart(kube.Options{})
	b := a.take("the deletion, of the next hub", codec.Bundle.Deleting)
	if b.ID != first.ID || b.Generation != deletion.Generation || b.Generation <= w.Generation {
		t.Errorf("deletion %s of generation %d, want %s of %d, above %d", b.ID, b.Generation, first.ID, deletion.Generation, w.Generation)
	}
	work, err := b.Work()
	if err != nil {
		t.Fatal(err)
	}
	if work.Name != "web" || work.Spec.DeleteOption == nil || work.Spec.DeleteOption.PropagationPolicy != workv1.DeletePropagationPolicyTypeOrphan {
		t.Errorf("deletion of %q with the option %v, want that of web, which leaves its objects", work.Name, work.Spec.DeleteOption)
	}
	if got := restarted.report(a.reportOn(b, gone())); got != sources.Accepted {
		t.Errorf("Deleted: %s, want %s", got, sources.Accepted)
	}
	if held := restarted.held(); len(held) > 0 {
		t.Errorf("still held after the confirmation: %v", held)
	}
	// The confirmation waits to be saved; the end of the hub does not wait for it.
	third := restarted.restart(kube.Options{})
	if held := third.held(); len(held) > 0 {
		t.Errorf("a confirmed deletion is held again after a restart: %v", held)
	}
	again, ok, err := third.source.Bundle(t.Context(), sources.Key{Cluster: h.cluster, ID: b.ID})
	if err != nil || !ok || !again.Deleting() || again.Generation != b.Generation {
		t.Errorf("asked for by an agent that came back with it: %+v, %t, %v; want the deletion", again, ok, err)
	}
	if got := third.report(a.reportOn(b, gone())); got != sources.Unchanged {
		t.Errorf("confirmed again: %s, want %s", got, sources.Unchanged)
	}
}

// TestUnclaimedWorksGoOnlyWhenNamed: a hub that lost its data keeps what its
// cluster holds, until an operator names it.
func TestUnclaimedWorksGoOnlyWhenNamed(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	one := sources.Unclaimed{ID: "11111111-1111-4111-8111-111111111111", Name: "one", Generation: 7}
	two := sources.Unclaimed{ID: "22222222-2222-4222-8222-222222222222", Name: "two", Generation: 3}
	h.save(h.state(one, two))
	agent, err := h.agentObject()
	if err != nil {
		t.Fatal(err)
	}
	want := []v1alpha1.UnclaimedWork{v1alpha1.UnclaimedWork(one), v1alpha1.UnclaimedWork(two)}
	if diff := cmp.Diff(want, agent.Status.Unclaimed); diff != "" || agent.Status.UnclaimedCount != 2 {
		t.Errorf("%d unclaimed (-want +got):\n%s", agent.Status.UnclaimedCount, diff)
	}
	if !meta.IsStatusConditionTrue(agent.Status.Conditions, api.ConditionUnclaimed) {
		t.Errorf("conditions %v, want %s", agent.Status.Conditions, api.ConditionUnclaimed)
	}
	if held := h.held(); len(held) > 0 {
		t.Fatalf("unclaimed works are held: %v", held)
	}

	live := h.create("live")
	a.takeGeneration(live)
	unknown := "33333333-3333-4333-8333-333333333333"
	h.ask(one.ID, string(live.UID), unknown)
	b := a.take("the deletion", codec.Bundle.Deleting)
	if b.ID != one.ID || b.Generation != 8 {
		t.Errorf("deletion of %s at generation %d, want %s at 8", b.ID, b.Generation, one.ID)
	}
	h.eventually("the spec is done", func() error {
		agent, err = h.agentObject()
		if err == nil && len(agent.Spec.Delete) > 0 {
			err = fmt.Errorf("it lists %v", agent.Spec.Delete)
		}
		return err
	})
	if got := agent.Status.Unclaimed; len(got) != 1 || got[0].ID != two.ID || agent.Status.UnclaimedCount != 1 {
		t.Errorf("unclaimed %v, want two", got)
	}
	if got := agent.Status.Tombstones; len(got) != 1 || got[0].ID != one.ID || got[0].Name != "one" || got[0].ConfirmedAt != nil {
		t.Errorf("tombstones %v, want one", got)
	}
	h.eventOnObject(string(agent.UID), api.ReasonNotUnclaimed)
	h.eventOnObject(string(agent.UID), api.ReasonDeletionConfirmed)
	if held := h.held(); len(held) != 2 || held[one.ID].Generation != 8 || held[string(live.UID)].Deleting {
		t.Errorf("held %v, want the deletion of one, and live", held)
	}

	// Named in advance, it deletes nothing later.
	h.save(h.state(two, sources.Unclaimed{ID: unknown, Name: "three"}))
	if _, ok, err := h.source.Bundle(t.Context(), sources.Key{Cluster: h.cluster, ID: unknown}); ok || err != nil {
		t.Errorf("a work that was unclaimed later is published: %t, %v", ok, err)
	}
	if got := h.report(a.reportOn(b, gone())); got != sources.Accepted {
		t.Errorf("Deleted: %s, want %s", got, sources.Accepted)
	}
	if held := h.held(); len(held) != 1 {
		t.Errorf("held %v, want live", held)
	}
}

// ask names works in the spec of the Agent.
func (h *hub) ask(ids ...string) {
	h.t.Helper()
	h.eventually("write the spec", func() error {
		a, err := h.agentObject()
		if err != nil {
			return err
		}
		a.Spec.Delete = ids
		return h.Update(h.t.Context(), a)
	})
}

// TestSpecIsDoneAfterARestart: an operator may ask while no hub runs.
func TestSpecIsDoneAfterARestart(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	one := sources.Unclaimed{ID: "11111111-1111-4111-8111-111111111111", Name: "one", Generation: 7}
	h.save(h.state(one))
	h.stop()
	h.ask(one.ID)
	h.restart(kube.Options{})
	if b := a.take("the deletion", codec.Bundle.Deleting); b.ID != one.ID {
		t.Errorf("deletion of %s, want %s", b.ID, one.ID)
	}
}

// TestAgentStateComesBack: what a dispatcher saves the next one starts from.
func TestAgentStateComesBack(t *testing.T) {
	h := startHub(t, mem.Options{})
	want := h.state(sources.Unclaimed{ID: "a", Name: "one", Generation: 7, Deleting: true})
	want.Online, want.Duplicate = false, true
	h.save(want)
	want.InSync = false // Nobody knows of an agent that is offline.
	restarted := h.restart(kube.Options{})
	all, err := restarted.source.Agents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(s sources.AgentState) bool { return s.Cluster == h.cluster })
	if i < 0 {
		t.Fatalf("not among %d agents", len(all))
	}
	if diff := cmp.Diff(want, all[i], cmp.Comparer(time.Time.Equal)); diff != "" {
		t.Errorf("state after a restart (-want +got):\n%s", diff)
	}
}

// TestAgentIsWrittenWhenSomethingChanges: signs of life alone cost the API server
// nothing, and neither do reports that say nothing new.
func TestAgentIsWrittenWhenSomethingChanges(t *testing.T) {
	h := startHub(t, mem.Options{})
	s := h.state()
	h.save(s)
	if got := h.writes.of("agents"); got != 1 {
		t.Errorf("%d writes to create the Agent, want 1", got)
	}
	before := h.writes.of("agents/status")
	for range 20 {
		s.LastSeen = s.LastSeen.Add(time.Minute)
		s.SyncedAt = s.LastSeen
		h.save(s)
	}
	if got := h.writes.of("agents/status"); got != before {
		t.Errorf("%d writes for signs of life, want none", got-before)
	}
	s.Online, s.Since = false, s.LastSeen
	h.save(s)
	if got := h.writes.of("agents/status"); got != before+1 {
		t.Errorf("%d writes for going offline, want 1", got-before)
	}
	agent, err := h.agentObject()
	if err != nil {
		t.Fatal(err)
	}
	online := meta.FindStatusCondition(agent.Status.Conditions, api.ConditionOnline)
	if online.Status != metav1.ConditionFalse || !online.LastTransitionTime.Time.Equal(s.Since) || !agent.Status.LastSeen.Time.Equal(s.LastSeen) {
		t.Errorf("offline since %s, seen %s: %+v", s.Since, agent.Status.LastSeen, online)
	}
}

// TestConfirmationsAreSavedTogether: many deletions in a row are few writes.
func TestConfirmationsAreSavedTogether(t *testing.T) {
	h := startHub(t, mem.Options{})
	h.source.Coalesce(2 * time.Second)
	a := h.agent()
	const works = 8
	for i := range works {
		a.takeGeneration(h.create(fmt.Sprintf("web%d", i)))
	}
	for i := range works {
		if err := h.Delete(t.Context(), h.mustGet(fmt.Sprintf("web%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	for range works {
		b := a.take("a deletion", codec.Bundle.Deleting)
		if got := h.report(a.reportOn(b, gone())); got != sources.Accepted {
			t.Fatalf("Deleted: %s", got)
		}
	}
	h.eventually("all are saved", func() error {
		agent, err := h.agentObject()
		if err != nil {
			return err
		}
		n := 0
		for _, stone := range agent.Status.Tombstones {
			if stone.ConfirmedAt != nil {
				n++
			}
		}
		if n < works {
			return fmt.Errorf("%d confirmed tombstones", n)
		}
		return nil
	})
	// The first may have been saved while the last were under way.
	if got := h.writes.of("agents/status"); got > 2 {
		t.Errorf("%d writes for %d deletions, want at most 2", got, works)
	}
}

// TestAgentSurvivesOthers: somebody else writes or deletes the object.
func TestAgentSurvivesOthers(t *testing.T) {
	h := startHub(t, mem.Options{})
	s := h.state()
	h.save(s)
	agent, err := h.agentObject()
	if err != nil {
		t.Fatal(err)
	}
	agent.Labels = map[string]string{"team": "edge"}
	if err := h.Update(t.Context(), agent); err != nil {
		t.Fatal(err)
	}
	s.InSync = false
	h.save(s)
	if agent, err = h.agentObject(); err != nil || agent.Labels["team"] != "edge" || meta.IsStatusConditionTrue(agent.Status.Conditions, api.ConditionInSync) {
		t.Errorf("after a conflict: labels %v, conditions %v, %v", agent.Labels, agent.Status.Conditions, err)
	}
	if err := h.Delete(t.Context(), agent); err != nil {
		t.Fatal(err)
	}
	h.eventually("it is made again", func() error {
		again, err := h.agentObject()
		if err == nil && (again.UID == agent.UID || again.Status.Agent == "") {
			err = errors.New("not yet")
		}
		return err
	})
}

// TestLiveWorksAreNeverUnclaimed: a list that is not up to date deletes no work
// of this hub.
func TestLiveWorksAreNeverUnclaimed(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	w := h.create("live")
	a.takeGeneration(w)
	id := string(w.UID)
	h.save(h.state(sources.Unclaimed{ID: id, Name: "live", Generation: 1}))
	h.ask(id)
	agent := h.awaitAgent("the spec is done", func(a *v1alpha1.Agent) bool { return len(a.Spec.Delete) == 0 })
	if len(agent.Status.Tombstones) > 0 || h.held()[id].Deleting {
		t.Errorf("tombstones %v, held %+v", agent.Status.Tombstones, h.held()[id])
	}
	h.eventOnObject(string(agent.UID), api.ReasonNotUnclaimed)
}

// TestDeletionsAreSavedBeforeTheyAreSent: one that is only in this process could
// be sent, forgotten, and the work be made again by an agent with older data.
func TestDeletionsAreSavedBeforeTheyAreSent(t *testing.T) {
	h := startHub(t, mem.Options{})
	one := sources.Unclaimed{ID: "11111111-1111-4111-8111-111111111111", Name: "one", Generation: 7}
	h.save(h.state(one))
	before := h.changes()
	refused := h.writes.refuse("agents/status")
	h.ask(one.ID)
	for range 3 {
		select {
		case <-refused:
		case <-time.After(patience):
			t.Fatal("the hub does not try to save it")
		}
	}
	if got := h.changes(); got != before {
		t.Errorf("%d works were named as changed while nothing could be saved", got-before)
	}
	if a, err := h.agentObject(); err != nil || len(a.Spec.Delete) != 1 {
		t.Errorf("the spec forgot it: %v, %v", a.Spec, err)
	}
	h.writes.refuse("")
	h.eventually("it is sent", func() error {
		if h.changes() == before {
			return errors.New("not yet")
		}
		return nil
	})
	if a, err := h.agentObject(); err != nil || len(a.Status.Tombstones) != 1 {
		t.Errorf("tombstones %v, %v", a.Status.Tombstones, err)
	}
}

// TestDeletionsBeyondTheLimitWait in the spec: none is lost.
func TestDeletionsBeyondTheLimitWait(t *testing.T) {
	h := startHub(t, mem.Options{})
	h.source.Coalesce(100 * time.Millisecond)
	a := h.agent()
	var all []sources.Unclaimed
	for i := range 1005 {
		all = append(all, sources.Unclaimed{ID: fmt.Sprintf("11111111-1111-4111-8111-%012d", i), Name: fmt.Sprintf("w%d", i), Generation: 1})
	}
	h.save(h.state(all...))
	ask := func(us []sources.Unclaimed) {
		var ids []string
		for _, u := range us {
			ids = append(ids, u.ID)
		}
		h.ask(ids...)
	}
	tombstones := func(spec int, saved int) func(a *v1alpha1.Agent) bool {
		return func(a *v1alpha1.Agent) bool { return len(a.Spec.Delete) == spec && len(a.Status.Tombstones) == saved }
	}
	ask(all[:900])
	h.awaitAgent("those are saved", tombstones(0, 900))
	ask(all[900:])
	h.awaitAgent("some wait", tombstones(5, 1000))
	restarted := h.restart(kube.Options{})
	restarted.source.Coalesce(100 * time.Millisecond)
	if got := len(restarted.held()); got != 1000 {
		t.Errorf("%d deletions are known after a restart, want 1000", got)
	}
	for range 5 {
		b := a.take("a deletion", codec.Bundle.Deleting)
		if got := restarted.report(a.reportOn(b, gone())); got != sources.Accepted {
			t.Fatalf("Deleted: %s", got)
		}
	}
	restarted.save(restarted.state(all...))
	restarted.awaitAgent("the rest has room", tombstones(0, 1005))
}

// TestLargestRecordIsTaken by an API server on etcd's own limits, and with all
// that an operator may ask for.
func TestLargestRecordIsTaken(t *testing.T) {
	h := startHub(t, mem.Options{})
	s := h.state()
	for i := range 5000 {
		s.Unclaimed = append(s.Unclaimed, sources.Unclaimed{
			ID: fmt.Sprintf("%05d%s", i, strings.Repeat("i", v1alpha1.MaxID-5)), Name: strings.Repeat("n", 1000), Generation: 1,
		})
	}
	h.save(s)
	agent, err := h.agentObject()
	if err != nil {
		t.Fatal(err)
	}
	listed := len(agent.Status.Unclaimed)
	if int(agent.Status.UnclaimedCount) != len(s.Unclaimed) || listed < 500 || listed > v1alpha1.MaxUnclaimed {
		t.Errorf("%d of %d are listed, want as many as fit", listed, agent.Status.UnclaimedCount)
	}
	var ids []string
	for _, u := range s.Unclaimed[:v1alpha1.MaxUnclaimed] {
		ids = append(ids, u.ID)
	}
	h.ask(ids...)
	// Its bytes are those of some of them; the others wait.
	h.awaitAgent("as many deletions as fit", func(a *v1alpha1.Agent) bool {
		return len(a.Status.Tombstones) > 500 && len(a.Spec.Delete)+len(a.Status.Tombstones) == len(ids)
	})
	s.Online = false
	h.save(s)
	agent, err = h.agentObject()
	if err != nil || meta.IsStatusConditionTrue(agent.Status.Conditions, api.ConditionOnline) {
		t.Errorf("the full record says that the agent is online: %v", err)
	}
	raw, err := json.Marshal(agent)
	if err != nil {
		t.Fatal(err)
	}
	if fields, err := json.Marshal(agent.ManagedFields); err != nil || len(fields) > 512<<10 {
		t.Errorf("%d of %d bytes are names of fields, %v", len(fields), len(raw), err)
	}
}
