package kube_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/sources"
)

func TestVerdicts(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	w := h.create("web")
	first := a.takeGeneration(w)
	w = h.change("web", func(w *workv1.ManifestWork) { w.Spec.Workload.Manifests = manifests("b") })
	second := a.takeGeneration(w)
	future, other, unknown := second, second, second
	future.Generation = 3
	other.Cluster = "another"
	unknown.ID = "4bd0e6ab-5f3f-4c19-8b12-9a7c4fd1f5a0"

	early := a.reportOn(second, applied(1))
	// Each step depends on those before.
	for _, tc := range []struct {
		reason string
		report codec.Report
		want   sources.Verdict
	}{
		{"the cluster has not come to the newest yet, and says what it runs", a.reportOn(first, applied(1)), sources.Accepted},
		{"the same status again is no write", a.reportOn(first, applied(1)), sources.Unchanged},
		{"a report that was overtaken", early, sources.Stale},
		{"a generation that was never published", a.reportOn(future, applied(3)), sources.Stale},
		{"another cluster knows the ID", a.reportOn(other, applied(2)), sources.Foreign},
		{"nobody knows the ID", a.reportOn(unknown, applied(2)), sources.Unknown},
		{"the newest", a.reportOn(second, applied(2)), sources.Accepted},
		{"later by sequence, of a generation that the cluster had left", a.reportOn(first, applied(1)), sources.Stale},
		{"a status that the API does not take", a.reportOn(second, condition("Applied", "no reason can have spaces", 2)), sources.Invalid},
		{"the API's no is no obstacle to the next", a.reportOn(second, applied(2), condition("Available", api.ReasonResourcesAvailable, 2)), sources.Accepted},
	} {
		if got := h.report(tc.report); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.reason, got, tc.want)
		}
	}
	if got := h.held()[second.ID].Sequence; got != a.sequence {
		t.Errorf("the cluster is told of sequence %d, want that of the last report taken, %d", got, a.sequence)
	}
	if got, want := summary(h.mustGet("web")), "Applied=True AppliedManifestWorkComplete, Available=True ResourcesAvailable"; got != want {
		t.Errorf("conditions %s, want %s", got, want)
	}
}

func TestUnchangedReportIsNoWrite(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	b := a.takeGeneration(h.create("web"))
	if got := h.report(a.reportOn(b, applied(1))); got != sources.Accepted {
		t.Fatalf("verdict %s", got)
	}
	before := h.mustGet("web")
	silent := a.reportOn(b, applied(1))
	silent.Hash = "" // Agents of before 2025 do not send it.
	for _, r := range []codec.Report{a.reportOn(b, applied(1)), silent} {
		r.Sequence = a.reportOn(b).Sequence
		if got := h.report(r); got != sources.Unchanged {
			t.Errorf("hash %q: %s, want %s", r.Hash, got, sources.Unchanged)
		}
	}
	if after := h.mustGet("web"); after.ResourceVersion != before.ResourceVersion {
		t.Errorf("version %s became %s", before.ResourceVersion, after.ResourceVersion)
	}
}

// TestReportReplacesTheStatus: what the agent does not say any more goes.
func TestReportReplacesTheStatus(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	b := a.takeGeneration(h.create("web"))
	full := workv1.ManifestWorkStatus{
		Conditions: []metav1.Condition{applied(1), condition(workv1.WorkAvailable, api.ReasonResourcesAvailable, 1)},
		ResourceStatus: workv1.ManifestResourceStatus{Manifests: []workv1.ManifestCondition{{
			ResourceMeta: workv1.ManifestResourceMeta{Version: "v1", Kind: "ConfigMap", Resource: "configmaps", Name: "cm", Namespace: "default"},
			Conditions:   []metav1.Condition{condition(workv1.ManifestApplied, api.ReasonManifestApplied, 1)},
		}}},
	}
	for _, want := range []workv1.ManifestWorkStatus{full, {Conditions: []metav1.Condition{applied(1)}}, {}} {
		r, err := codec.NewReport(b, want)
		if err != nil {
			t.Fatal(err)
		}
		r.Agent, r.Sequence = "agent", a.reportOn(b).Sequence
		if got := h.report(r); got != sources.Accepted {
			t.Fatalf("verdict %s", got)
		}
		got := h.mustGet("web")
		if diff := cmp.Diff(want, got.Status, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("status (-reported +saved):\n%s", diff)
		}
		held := h.held()[b.ID]
		if held.StatusHash != r.Hash {
			t.Errorf("held hash %s, want the agent's %s: the agent would report for ever", held.StatusHash, r.Hash)
		}
		var reported int64
		if len(want.Conditions) > 0 {
			reported = 1
		}
		if held.Reported != reported {
			t.Errorf("reported generation %d, want %d", held.Reported, reported)
		}
	}
}

// TestStatusOfARecreatedWork covers a cache that still has a work whose name
// another took: what its cluster says is not written to the other.
func TestStatusOfARecreatedWork(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	w := h.create("web")
	b := a.takeGeneration(w)
	before := h.change("web", func(w *workv1.ManifestWork) { w.Labels = map[string]string{"a": "b"} })
	old := w.DeepCopy()
	old.UID = "4bd0e6ab-5f3f-4c19-8b12-9a7c4fd1f5a0"
	verdict, err := h.source.Save(t.Context(), old, a.reportOn(b, applied(1)))
	if verdict != sources.Unknown || err != nil {
		t.Errorf("status: %q, %v; want %s", verdict, err, sources.Unknown)
	}
	now := metav1.Now()
	old.DeletionTimestamp = &now
	verdict, err = h.source.Confirm(t.Context(), old, a.reportOn(b, gone()))
	if verdict != sources.Accepted || err != nil {
		t.Errorf("deletion: %q, %v; want %s: the old work is gone", verdict, err, sources.Accepted)
	}
	if after := h.mustGet("web"); after.ResourceVersion != before.ResourceVersion {
		t.Errorf("the other work was written: %s, finalizers %v", summary(after), after.Finalizers)
	}
}

// TestWritesOutliveConflicts: somebody else writes the work at the same time.
func TestWritesOutliveConflicts(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	first := a.takeGeneration(h.create("web"))
	old := h.change("web", func(w *workv1.ManifestWork) { w.Finalizers = append(w.Finalizers, "example.com/other") })
	old = old.DeepCopy()
	h.change("web", func(w *workv1.ManifestWork) { w.Labels = map[string]string{"at": "first"} })
	if verdict, err := h.source.Save(t.Context(), old, a.reportOn(first, applied(1))); verdict != sources.Accepted || err != nil {
		t.Errorf("status: %q, %v; want %s", verdict, err, sources.Accepted)
	}
	if err := h.Delete(t.Context(), h.mustGet("web")); err != nil {
		t.Fatal(err)
	}
	deletion := a.take("the deletion", codec.Bundle.Deleting)
	old = h.mustGet("web")
	h.change("web", func(w *workv1.ManifestWork) { w.Labels = map[string]string{"at": "second"} })
	if verdict, err := h.source.Confirm(t.Context(), old, a.reportOn(deletion, gone())); verdict != sources.Accepted || err != nil {
		t.Errorf("deletion: %q, %v; want %s", verdict, err, sources.Accepted)
	}
	w := h.mustGet("web")
	if diff := cmp.Diff([]string{"example.com/other"}, w.Finalizers); diff != "" || w.Labels["at"] != "second" || summary(w) == "" {
		t.Errorf("somebody's write is lost: labels %v, conditions %q, finalizers (-want +got):\n%s", w.Labels, summary(w), diff)
	}
	h.change("web", func(w *workv1.ManifestWork) { w.Finalizers = nil })
}
