package memory_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/memory"
)

func work(cluster, name string) *workv1.ManifestWork {
	w := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Namespace: cluster, Name: name}}
	w.Spec.Workload.Manifests = []workv1.Manifest{{RawExtension: runtime.RawExtension{
		Raw: []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}`),
	}}}
	return w
}

func put(t *testing.T, s *memory.Source, w *workv1.ManifestWork) sources.Key {
	t.Helper()
	k, err := s.Put(w)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func bundle(t *testing.T, s *memory.Source, k sources.Key) codec.Bundle {
	t.Helper()
	b, ok, err := s.Bundle(t.Context(), k)
	if err != nil || !ok {
		t.Fatalf("bundle of %v: held %v, %v", k, ok, err)
	}
	return b
}

func report(t *testing.T, b codec.Bundle, sequence codec.Sequence, typ string) codec.Report {
	t.Helper()
	r, err := codec.NewReport(b, workv1.ManifestWorkStatus{Conditions: []metav1.Condition{{
		Type: typ, Status: metav1.ConditionTrue, Reason: "Test", ObservedGeneration: b.Generation,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	r.Sequence = sequence
	return r
}

func TestGenerationsRiseAcrossReCreation(t *testing.T) {
	s := memory.New("hub1")
	var changed []sources.Key
	s.Notify(func(k sources.Key) { changed = append(changed, k) })
	k := put(t, s, work("c1", "web"))
	if got := bundle(t, s, k).Generation; got != 1 {
		t.Errorf("first generation %d, want 1", got)
	}
	if err := s.Delete("c1", "web"); err != nil {
		t.Fatal(err)
	}
	deleting := bundle(t, s, k)
	if !deleting.Deleting() || deleting.Generation != 2 || len(deleting.Payload) > 0 {
		t.Errorf("deletion at generation %d, deleting %v, %d bytes", deleting.Generation, deleting.Deleting(), len(deleting.Payload))
	}
	gone := report(t, deleting, 5, api.ConditionDeleted)
	if got, err := s.Report(t.Context(), gone); got != sources.Accepted || err != nil {
		t.Fatalf("Deleted: %s, %v", got, err)
	}
	if _, ok := s.Work("c1", "web"); ok {
		t.Error("still held after the confirmation")
	}

	if again := put(t, s, work("c1", "web")); again != k {
		t.Errorf("key %v, want the same as before: %v", again, k)
	}
	if got := bundle(t, s, k); got.Generation != 3 || got.Deleting() {
		t.Errorf("re-created at generation %d, deleting %v; want 3, false", got.Generation, got.Deleting())
	}
	if got, err := s.Report(t.Context(), gone); got != sources.Stale || err != nil {
		t.Errorf("late Deleted: %s, %v; want %s", got, err, sources.Stale)
	}
	if diff := cmp.Diff([]sources.Key{k, k, k}, changed); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if err := s.Delete("c1", "other"); err != nil {
		t.Errorf("deleting what does not exist: %v", err)
	}
}

// TestLateConfirmationOfAnEarlierDeletion: the work was put and deleted again
// since, and what was put may still reach the cluster.
func TestLateConfirmationOfAnEarlierDeletion(t *testing.T) {
	s := memory.New("hub1")
	k := put(t, s, work("c1", "w"))
	remove := func() codec.Bundle {
		if err := s.Delete("c1", "w"); err != nil {
			t.Fatal(err)
		}
		return bundle(t, s, k)
	}
	first := remove()
	put(t, s, work("c1", "w"))
	second := remove()
	for _, step := range []struct {
		b    codec.Bundle
		want sources.Verdict
	}{{first, sources.Stale}, {second, sources.Accepted}} {
		got, err := s.Report(t.Context(), report(t, step.b, 1, api.ConditionDeleted))
		if err != nil || got != step.want {
			t.Errorf("confirmation of generation %d: %s, %v; want %s", step.b.Generation, got, err, step.want)
		}
	}
}

func TestVerdicts(t *testing.T) {
	s := memory.New("hub1")
	k := put(t, s, work("c1", "web"))
	b := bundle(t, s, k)
	future, foreign, unknown := b, b, b
	future.Generation = 2
	foreign.Cluster = "c2"
	unknown.ID = "x"
	broken := report(t, b, 9, "Applied")
	broken.Payload, broken.Hash = []byte("{"), ""
	for _, tc := range []struct {
		reason string
		report codec.Report
		want   sources.Verdict
	}{
		{"first", report(t, b, 3, "Applied"), sources.Accepted},
		{"same status", report(t, b, 4, "Applied"), sources.Unchanged},
		{"overtaken", report(t, b, 2, "Available"), sources.Stale},
		{"generation that there is not", report(t, future, 5, "Applied"), sources.Stale},
		{"Deleted of a live work", report(t, b, 5, api.ConditionDeleted), sources.Stale},
		{"another cluster's ID", report(t, foreign, 5, "Applied"), sources.Foreign},
		{"no such ID", report(t, unknown, 5, "Applied"), sources.Unknown},
		{"not readable", broken, sources.Invalid},
	} {
		if got, err := s.Report(t.Context(), tc.report); got != tc.want || err != nil {
			t.Errorf("%s: %s, %v; want %s", tc.reason, got, err, tc.want)
		}
	}
	held, err := s.Held(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	content, err := b.Digest()
	if err != nil {
		t.Fatal(err)
	}
	want := []sources.Held{{ID: k.ID, Generation: 1, Digest: content, Reported: 1, StatusHash: report(t, b, 1, "Applied").Hash, Sequence: 4}}
	if diff := cmp.Diff(want, held); diff != "" {
		t.Errorf("held (-want +got):\n%s", diff)
	}
}

func TestAwait(t *testing.T) {
	s := memory.New("hub1")
	exists := func() bool { _, ok := s.Work("c1", "web"); return ok }
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Await(ended, exists); !errors.Is(err, context.Canceled) {
		t.Errorf("Await of what does not happen: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error)
	go func() { done <- s.Await(ctx, exists) }()
	put(t, s, work("c1", "web"))
	if err := <-done; err != nil {
		t.Errorf("Await: %v", err)
	}
}

// TestTombstones: what was deleted is known after its cluster confirmed, by
// whoever asks for it, and nothing that a late copy has to say counts.
func TestTombstones(t *testing.T) {
	s := memory.New("hub1")
	k := put(t, s, work("c1", "w"))
	live := bundle(t, s, k)
	if err := s.Delete("c1", "w"); err != nil {
		t.Fatal(err)
	}
	deleting := bundle(t, s, k)
	if got, err := s.Report(t.Context(), report(t, deleting, 1, api.ConditionDeleted)); got != sources.Accepted || err != nil {
		t.Fatalf("confirmation: %s, %v", got, err)
	}
	if got := bundle(t, s, k); !got.Deleting() || got.Generation != deleting.Generation {
		t.Errorf("after the confirmation: generation %d, deleting %v; want %d, true", got.Generation, got.Deleting(), deleting.Generation)
	}
	if held, err := s.Held(t.Context(), "c1"); len(held) > 0 || err != nil {
		t.Errorf("held %v, %v; a confirmed deletion is owed to nobody", held, err)
	}
	if got, err := s.Report(t.Context(), report(t, live, 2, "Applied")); got != sources.Stale || err != nil {
		t.Errorf("report of a late copy: %s, %v; want %s", got, err, sources.Stale)
	}
	put(t, s, work("c1", "w"))
	if got := bundle(t, s, k); got.Deleting() || got.Generation <= deleting.Generation {
		t.Errorf("put again: generation %d, deleting %v; want one above %d, false", got.Generation, got.Deleting(), deleting.Generation)
	}
}

func TestSnapshotIsIndependent(t *testing.T) {
	s := memory.New("hub1")
	k := put(t, s, work("c1", "w"))
	epoch, term, err := s.Begin(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SaveAgent(t.Context(), sources.AgentState{Cluster: "c1", Agent: "a", Online: true}); err != nil {
		t.Fatal(err)
	}
	backup := s.Snapshot()
	put(t, s, work("c1", "w"))
	put(t, s, work("c1", "later"))
	if _, _, err := s.Begin(t.Context(), 40); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveAgent(t.Context(), sources.AgentState{Cluster: "c1", Agent: "a"}); err != nil {
		t.Fatal(err)
	}
	if got := bundle(t, backup, k).Generation; got != 1 {
		t.Errorf("generation %d in the snapshot, want 1", got)
	}
	if _, ok := backup.Work("c1", "later"); ok {
		t.Error("the snapshot holds what came after it")
	}
	if a, ok := backup.Agent("c1"); !ok || !a.Online {
		t.Errorf("agent in the snapshot: %v, %v; want what was known then", a, ok)
	}
	gotEpoch, gotTerm, err := backup.Begin(t.Context(), 0)
	if err != nil || gotEpoch != epoch || gotTerm != term+1 {
		t.Errorf("the snapshot begins epoch %q, term %d, %v; want %q, %d", gotEpoch, gotTerm, err, epoch, term+1)
	}
}

func TestTermsRise(t *testing.T) {
	s := memory.New("hub1")
	last := int64(0)
	for _, above := range []int64{0, 0, 7, 3} {
		epoch, term, err := s.Begin(t.Context(), above)
		if err != nil || epoch == "" || term <= last || term <= above {
			t.Errorf("Begin above %d: epoch %q, term %d after %d, %v", above, epoch, term, last, err)
		}
		last = term
	}
	mine, _, _ := s.Begin(t.Context(), 0)
	if other, _, _ := memory.New("hub1").Begin(t.Context(), 0); other == mine {
		t.Error("two sources have one epoch")
	}
}
