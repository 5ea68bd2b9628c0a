package kube_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/sources"
)

// TestRestartEndsWithTheNewestReport: a hub that does not know any more which
// report it took last may take one that is older, and has the cluster correct
// it at once.
func TestRestartEndsWithTheNewestReport(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	b := a.takeGeneration(h.create("web"))
	before := a.reportOn(b, applied(1), condition(workv1.WorkAvailable, "Before", 1))
	newest := a.reportOn(b, applied(1), condition(workv1.WorkAvailable, "Newest", 1))
	if got := h.report(newest); got != sources.Accepted {
		t.Fatalf("verdict %s", got)
	}

	restarted := startHubOf(t, h.cluster, mem.Options{})
	a = restarted.agent()
	a.send(before)
	a.awaitQuestion(before)
	a.send(newest)
	h.eventually("the newest is back", func() error {
		if got := summary(h.mustGet("web")); got != "Applied=True AppliedManifestWorkComplete, Available=True Newest" {
			return errors.New(got)
		}
		return nil
	})
	if got := restarted.report(before); got != sources.Stale {
		t.Errorf("once a report was taken, an older one is %s, want %s", got, sources.Stale)
	}
}

// TestUnorderedIsOnlyWhatMayBeOlder: most reports after a restart need no
// further question.
func TestUnorderedIsOnlyWhatMayBeOlder(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	first := a.takeGeneration(h.create("web"))
	if got := h.report(a.reportOn(first, applied(1))); got != sources.Accepted {
		t.Fatalf("verdict %s", got)
	}
	second := a.takeGeneration(h.change("web", func(w *workv1.ManifestWork) { w.Spec.Workload.Manifests = manifests("b") }))
	for _, tc := range []struct {
		reason string
		report codec.Report
		want   sources.Verdict
	}{
		{"the status that is there", a.reportOn(first, applied(1)), sources.Unchanged},
		{"another one of the generation that was reported on", a.reportOn(first, applied(1), condition("Available", "Other", 1)), sources.Unordered},
		{"a generation that was not reported on", a.reportOn(second, applied(2)), sources.Accepted},
	} {
		restarted := startHubOf(t, h.cluster, mem.Options{})
		if got := restarted.report(tc.report); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.reason, got, tc.want)
		}
	}
}

// TestConflictWithALaterReport: another leader saved what the cluster said of a
// later generation while this one was about to write.
func TestConflictWithALaterReport(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	first := a.takeGeneration(h.create("web"))
	old := h.mustGet("web")
	a.takeGeneration(h.change("web", func(w *workv1.ManifestWork) { w.Spec.Workload.Manifests = manifests("b") }))
	w := h.mustGet("web")
	w.Status.Conditions = []metav1.Condition{applied(2)}
	if err := h.Status().Update(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	verdict, err := h.source.Save(t.Context(), old, a.reportOn(first, applied(1)))
	if verdict != sources.Stale || err != nil {
		t.Errorf("%q, %v; want %s", verdict, err, sources.Stale)
	}
	if got := h.mustGet("web").Status.Conditions[0].ObservedGeneration; got != 2 {
		t.Errorf("the status of generation %d replaced that of 2", got)
	}
}

// TestRestoredHub: after a restore from a backup the cluster holds a later
// generation than the hub and ignores what the hub sends, but for a deletion.
func TestRestoredHub(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	w := h.create("web")
	b := a.takeGeneration(w)
	if got := h.report(a.reportOn(b, applied(1))); got != sources.Accepted {
		t.Fatalf("verdict %s", got)
	}
	later := b
	later.Generation = 2
	if got := h.report(a.reportOn(later, applied(2))); got != sources.Stale {
		t.Errorf("report on a generation that this hub does not have: %s, want %s", got, sources.Stale)
	}
	const ahead = "Applied=True AppliedManifestWorkComplete, Dispatched=False ClusterAhead"
	saved := h.mustGet("web")
	if got := summary(saved); got != ahead {
		t.Fatalf("conditions %s, want %s", got, ahead)
	}
	if c := saved.Status.Conditions[1]; !strings.Contains(c.Message, "above 2") || c.ObservedGeneration != 1 {
		t.Errorf("condition of generation %d: %s", c.ObservedGeneration, c.Message)
	}
	h.eventOn(w, api.ReasonClusterAhead)

	// Publishing and reporting go on, and write nothing.
	if got := h.report(a.reportOn(later, applied(2), condition("Available", "Other", 2))); got != sources.Stale {
		t.Errorf("again: %s, want %s", got, sources.Stale)
	}
	if err := h.source.Refused(t.Context(), sources.Key{Cluster: h.cluster, ID: b.ID}, 1, nil); err != nil {
		t.Error(err)
	}
	if got := h.mustGet("web"); got.ResourceVersion != saved.ResourceVersion {
		t.Errorf("version %s became %s, conditions %s", saved.ResourceVersion, got.ResourceVersion, summary(got))
	}

	for _, data := range []string{"b", "c"} {
		w = h.change("web", func(w *workv1.ManifestWork) { w.Spec.Workload.Manifests = manifests(data) })
	}
	if got := h.report(a.reportOn(a.takeGeneration(w), applied(3))); got != sources.Accepted {
		t.Errorf("once the work is above: %s, want %s", got, sources.Accepted)
	}
	if got, want := summary(h.mustGet("web")), "Applied=True AppliedManifestWorkComplete"; got != want {
		t.Errorf("conditions %s, want %s", got, want)
	}

	if err := h.Delete(t.Context(), h.mustGet("web")); err != nil {
		t.Fatal(err)
	}
	deletion := a.take("the deletion", codec.Bundle.Deleting)
	deletion.Generation += 5 // Agents answer with the generation that they hold.
	if got := h.report(a.reportOn(deletion, condition(api.ConditionDeleting, api.ReasonDeleting, 0))); got != sources.Accepted {
		t.Errorf("Deleting at a later generation: %s, want %s", got, sources.Accepted)
	}
	if got := h.report(a.reportOn(deletion, gone())); got != sources.Accepted {
		t.Errorf("Deleted at a later generation: %s, want %s", got, sources.Accepted)
	}
	h.eventually("the work is gone", func() error {
		if _, err := h.get("web"); !apierrors.IsNotFound(err) {
			return errors.New("still there")
		}
		return nil
	})
}

// TestDeletedAfterTheBackup: the cluster remembers a deletion that the hub does
// not, and ignores the work, which says so until the cluster takes part again.
func TestDeletedAfterTheBackup(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	w := h.create("web")
	b := a.takeGeneration(w)
	if got := h.report(a.reportOn(b, applied(1))); got != sources.Accepted {
		t.Fatalf("verdict %s", got)
	}
	old := b
	old.Generation = 0
	if got := h.report(a.reportOn(old, gone())); got != sources.Stale || summary(h.mustGet("web")) != "Applied=True AppliedManifestWorkComplete" {
		t.Errorf("Deleted, of an earlier generation: %s, conditions %s", got, summary(h.mustGet("web")))
	}
	deleted := b
	deleted.Generation = 2
	for range 2 {
		if got := h.report(a.reportOn(deleted, gone())); got != sources.Stale {
			t.Errorf("Deleted, of a work that is not: %s, want %s", got, sources.Stale)
		}
	}
	saved := h.mustGet("web")
	if got, want := summary(saved), "Applied=True AppliedManifestWorkComplete, Dispatched=False ClusterDeleted"; got != want || len(saved.Finalizers) == 0 {
		t.Fatalf("conditions %s, want %s; finalizers %v", got, want, saved.Finalizers)
	}
	if c := saved.Status.Conditions[1]; !strings.Contains(c.Message, "above 2") || c.ObservedGeneration != 1 {
		t.Errorf("condition of generation %d: %s", c.ObservedGeneration, c.Message)
	}
	h.eventOn(w, api.ReasonClusterDeleted)
	if err := h.source.Refused(t.Context(), sources.Key{Cluster: h.cluster, ID: b.ID}, 1, nil); err != nil {
		t.Error(err)
	}
	if got := h.mustGet("web"); got.ResourceVersion != saved.ResourceVersion {
		t.Errorf("sent in vain: version %s became %s, conditions %s", saved.ResourceVersion, got.ResourceVersion, summary(got))
	}
	for _, data := range []string{"b", "c"} {
		w = h.change("web", func(w *workv1.ManifestWork) { w.Spec.Workload.Manifests = manifests(data) })
	}
	if got := h.report(a.reportOn(a.takeGeneration(w), applied(3))); got != sources.Accepted {
		t.Errorf("once the work is above: %s, want %s", got, sources.Accepted)
	}
	if got, want := summary(h.mustGet("web")), "Applied=True AppliedManifestWorkComplete"; got != want {
		t.Errorf("conditions %s, want %s", got, want)
	}
}

// TestStatusTooLargeToSave fits the wire and not etcd: it is dropped at once,
// and the work says so.
func TestStatusTooLargeToSave(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	b := a.takeGeneration(h.create("big"))
	before := h.mustGet("big")
	text := strings.Repeat("y", 2500<<10)
	r, err := codec.NewReport(b, workv1.ManifestWorkStatus{
		Conditions: []metav1.Condition{applied(1)},
		ResourceStatus: workv1.ManifestResourceStatus{Manifests: []workv1.ManifestCondition{{
			Conditions: []metav1.Condition{},
			StatusFeedbacks: workv1.StatusFeedbackResult{Values: []workv1.FeedbackValue{{
				Name: "x", Value: workv1.FieldValue{Type: workv1.String, String: &text},
			}}},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r.Sequence = a.reportOn(b).Sequence
		if got := h.report(r); got != sources.Invalid {
			t.Errorf("%s, want %s", got, sources.Invalid)
		}
	}
	h.eventOn(before, api.ReasonStatusNotSaved)
	if after := h.mustGet("big"); after.ResourceVersion != before.ResourceVersion {
		t.Errorf("version %s became %s", before.ResourceVersion, after.ResourceVersion)
	}
	if got := h.report(a.reportOn(b, applied(1))); got != sources.Accepted {
		t.Errorf("the next one: %s, want %s", got, sources.Accepted)
	}
}

// TestRefusalsSayWhy: each kind of refusal has its reason and its cure.
func TestRefusalsSayWhy(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	b := a.takeGeneration(h.create("web"))
	k := sources.Key{Cluster: h.cluster, ID: b.ID}
	for _, tc := range []struct {
		reason error
		want   string
	}{
		{fmt.Errorf("publish: %w", brokers.ErrRefused), "Dispatched=False RefusedByBroker"},
		{fmt.Errorf("publish: %w", brokers.ErrTooLarge), "Dispatched=False TooLarge"},
		{fmt.Errorf("bundle: %w", codec.ErrMalformed), "Dispatched=False Invalid"},
		{nil, ""},
	} {
		if err := h.source.Refused(t.Context(), k, 1, tc.reason); err != nil {
			t.Errorf("%v: %v", tc.reason, err)
		}
		if got := summary(h.mustGet("web")); got != tc.want {
			t.Errorf("%v: conditions %q, want %q", tc.reason, got, tc.want)
		}
	}
}
