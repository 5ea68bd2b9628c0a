package kube_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/sources"
)

func TestCreatedWorkIsPublishedWithItsFinalizer(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	w := h.create("web")
	b := a.takeGeneration(w)
	if diff := cmp.Diff([]string{api.WorkFinalizer}, h.mustGet("web").Finalizers); diff != "" {
		t.Errorf("finalizers once it is published (-want +got):\n%s", diff)
	}
	got, err := b.Work()
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "web" || got.Namespace != h.cluster || got.Generation != 1 || len(got.Spec.Workload.Manifests) != 1 {
		t.Errorf("published %s/%s@%d with %d manifests", got.Namespace, got.Name, got.Generation, len(got.Spec.Workload.Manifests))
	}
}

func TestChangesThatArePublished(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	w := h.create("web")
	a.takeGeneration(w)

	w = h.change("web", func(w *workv1.ManifestWork) { w.Spec.Workload.Manifests = manifests("b") })
	a.takeGeneration(w)
	h.change("web", func(w *workv1.ManifestWork) { w.Labels = map[string]string{"tier": "front"} })
	a.take("the new label", func(b codec.Bundle) bool { return strings.Contains(string(b.Metadata), "front") })
	h.change("web", func(w *workv1.ManifestWork) {
		w.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: "{}"}
		w.Finalizers = append(w.Finalizers, "example.com/other")
	})
	if got := h.report(a.reportOn(codec.Bundle{ID: string(w.UID), Source: sourceID, Cluster: h.cluster, Generation: 2}, applied(2))); got != sources.Accepted {
		t.Fatalf("verdict %s", got)
	}
	h.change("web", func(w *workv1.ManifestWork) { w.Annotations = map[string]string{"note": "last"} })
	a.take("the new annotation", func(b codec.Bundle) bool { return strings.Contains(string(b.Metadata), "last") })

	if got := h.changes(); got != 4 {
		t.Errorf("%d changes were published, want 4: neither statuses nor finalizers nor what kubectl keeps", got)
	}
}

func TestFinalizerIsPutBack(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	a.takeGeneration(h.create("web"))
	h.change("web", func(w *workv1.ManifestWork) { w.Finalizers = nil })
	h.eventually("the finalizer is back", func() error {
		if w := h.mustGet("web"); !slices.Contains(w.Finalizers, api.WorkFinalizer) {
			return fmt.Errorf("finalizers %v", w.Finalizers)
		}
		return nil
	})
}

func TestDeletionWaitsForItsCluster(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	first := a.takeGeneration(h.create("web"))

	if got := h.report(a.reportOn(first, gone())); got != sources.Stale {
		t.Errorf("Deleted for a work that nobody deleted: %s, want %s", got, sources.Stale)
	}
	if err := h.Delete(t.Context(), h.mustGet("web")); err != nil {
		t.Fatal(err)
	}
	b := a.take("the deletion", func(b codec.Bundle) bool { return b.ID == first.ID && b.Deleting() })
	if !strings.Contains(string(b.Metadata), `"web"`) {
		t.Errorf("metadata %s of the deletion has no name", b.Metadata)
	}
	if got := h.report(a.reportOn(first, gone())); got != sources.Stale {
		t.Errorf("Deleted at a generation before the deletion: %s, want %s", got, sources.Stale)
	}
	if got := h.report(a.reportOn(b, condition(api.ConditionDeleting, api.ReasonDeleting, 0))); got != sources.Accepted {
		t.Errorf("Deleting: %s, want %s", got, sources.Accepted)
	}
	if w := h.mustGet("web"); !slices.Contains(w.Finalizers, api.WorkFinalizer) {
		t.Fatal("the finalizer is gone before the cluster confirmed")
	}
	a.send(a.reportOn(b, gone()))
	h.eventually("the work is gone", func() error {
		_, err := h.get("web")
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("get: %w", errors.Join(errors.New("still there"), err))
	})
	h.eventually("nothing is held and nothing remembered", func() error {
		if held := h.held(); len(held) > 0 || h.source.Remembers(first.ID) {
			return fmt.Errorf("held: %v, remembered: %v", held, h.source.Remembers(first.ID))
		}
		return nil
	})
}

func TestOtherFinalizersOutliveTheConfirmation(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	a.takeGeneration(h.create("web"))
	h.change("web", func(w *workv1.ManifestWork) { w.Finalizers = append(w.Finalizers, "example.com/other") })
	if err := h.Delete(t.Context(), h.mustGet("web")); err != nil {
		t.Fatal(err)
	}
	b := a.take("the deletion", codec.Bundle.Deleting)
	if got := h.report(a.reportOn(b, gone())); got != sources.Accepted {
		t.Fatalf("Deleted: %s", got)
	}
	if diff := cmp.Diff([]string{"example.com/other"}, h.mustGet("web").Finalizers); diff != "" {
		t.Errorf("finalizers (-want +got):\n%s", diff)
	}
	if held := h.held(); len(held) > 0 {
		t.Errorf("a confirmed deletion is still held: %v", held)
	}
	h.change("web", func(w *workv1.ManifestWork) { w.Finalizers = nil })
	h.eventually("the work is gone", func() error {
		if _, err := h.get("web"); !apierrors.IsNotFound(err) {
			return errors.New("still there")
		}
		return nil
	})
	if held := h.held(); len(held) > 0 {
		t.Errorf("a confirmed deletion became a tombstone: %v", held)
	}
}

func TestForcedRemovalIsStillADeletion(t *testing.T) {
	for name, tc := range map[string]struct {
		reason   string
		deleting bool
	}{
		"of a deleting work": {reason: "the cluster had not confirmed", deleting: true},
		"of a live work":     {reason: "without finalizers the object is gone at once"},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, mem.Options{})
			a := h.agent()
			first := a.takeGeneration(h.create("web"))
			if tc.deleting {
				if err := h.Delete(t.Context(), h.mustGet("web")); err != nil {
					t.Fatal(err)
				}
				a.take("the deletion", codec.Bundle.Deleting)
			}
			// The finalizer comes back as soon as the hub sees a live work
			// without it, so this races on purpose until it wins.
			h.eventually("remove by force", func() error {
				w, err := h.get("web")
				if apierrors.IsNotFound(err) {
					return nil
				}
				if err == nil {
					err = h.Patch(t.Context(), w, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))
				}
				if err == nil {
					err = h.Delete(t.Context(), w)
				}
				return errors.Join(errors.New("still there"), client.IgnoreNotFound(err))
			})
			b := a.take("the deletion after the removal", func(b codec.Bundle) bool { return b.ID == first.ID && b.Deleting() })
			if !strings.Contains(string(b.Metadata), `"web"`) {
				t.Errorf("%s: metadata %s of the deletion has no name", tc.reason, b.Metadata)
			}
			h.eventually("the source holds the deletion", func() error {
				if held := h.held()[first.ID]; !held.Deleting {
					return fmt.Errorf("%s: held: %+v", tc.reason, held)
				}
				return nil
			})
			foreign := a.reportOn(b, gone())
			foreign.Cluster = "another"
			if got := h.report(foreign); got != sources.Unknown {
				t.Errorf("Deleted by another cluster: %s, want %s", got, sources.Unknown)
			}
			if got := h.report(a.reportOn(b, gone())); got != sources.Accepted {
				t.Errorf("Deleted: %s, want %s", got, sources.Accepted)
			}
			if held := h.held(); len(held) > 0 {
				t.Errorf("still held after the confirmation: %v", held)
			}
		})
	}
}

func TestReCreatedWorkIsAnother(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	old := a.takeGeneration(h.create("web"))
	if err := h.Delete(t.Context(), h.mustGet("web")); err != nil {
		t.Fatal(err)
	}
	deletion := a.take("the deletion", codec.Bundle.Deleting)
	a.send(a.reportOn(deletion, gone()))
	h.eventually("the work is gone", func() error {
		if _, err := h.get("web"); !apierrors.IsNotFound(err) {
			return errors.New("still there")
		}
		return nil
	})
	w := h.create("web")
	b := a.takeGeneration(w)
	if b.ID == old.ID {
		t.Fatalf("both have the ID %s", b.ID)
	}
	late := a.reportOn(deletion, gone())
	h.eventually("the late confirmation says nothing new", func() error {
		if got := h.report(late); got != sources.Unchanged {
			return fmt.Errorf("verdict %s", got)
		}
		return nil
	})
	if got := h.mustGet("web"); got.UID != w.UID || got.DeletionTimestamp != nil {
		t.Errorf("the new work is touched: %s, deleted %v", got.UID, got.DeletionTimestamp)
	}
}

func TestTooLargeWorkSaysSo(t *testing.T) {
	h := startHub(t, mem.Options{MaxSize: 16 << 10})
	a := h.agent()
	w := h.create("web")
	a.takeGeneration(w)
	if got := h.report(a.reportOn(codec.Bundle{ID: string(w.UID), Source: sourceID, Cluster: h.cluster, Generation: 1}, applied(1))); got != sources.Accepted {
		t.Fatalf("verdict %s", got)
	}
	w = h.change("web", func(w *workv1.ManifestWork) { w.Spec.Workload.Manifests = manifests(strings.Repeat("x", 20<<10)) })
	var c *metav1.Condition
	h.eventually("the condition says so", func() error {
		got := h.mustGet("web")
		if summary(got) != "Applied=True AppliedManifestWorkComplete, Dispatched=False TooLarge" {
			return errors.New(summary(got))
		}
		c = &got.Status.Conditions[1]
		return nil
	})
	if c.ObservedGeneration != w.Generation || !strings.Contains(c.Message, "Split") {
		t.Errorf("condition of generation %d: %s", c.ObservedGeneration, c.Message)
	}
	h.eventOn(w, api.ReasonTooLarge)

	// The hub's own condition is nobody else's: a report keeps it and the hash
	// does not see it.
	r := a.reportOn(codec.Bundle{ID: string(w.UID), Source: sourceID, Cluster: h.cluster, Generation: 1}, applied(1), condition(workv1.WorkAvailable, api.ReasonResourcesAvailable, 1))
	if got := h.report(r); got != sources.Accepted {
		t.Errorf("report: %s, want %s", got, sources.Accepted)
	}
	if got, want := summary(h.mustGet("web")), "Applied=True AppliedManifestWorkComplete, Available=True ResourcesAvailable, Dispatched=False TooLarge"; got != want {
		t.Errorf("conditions %s, want %s", got, want)
	}
	if got := h.held()[string(w.UID)].StatusHash; got != r.Hash {
		t.Errorf("held hash %s, want the agent's %s", got, r.Hash)
	}

	w = h.change("web", func(w *workv1.ManifestWork) { w.Spec.Workload.Manifests = manifests("small") })
	a.takeGeneration(w)
	h.eventually("the condition is cleared", func() error {
		if got := summary(h.mustGet("web")); strings.Contains(got, api.ConditionDispatched) {
			return errors.New(got)
		}
		return nil
	})
}
