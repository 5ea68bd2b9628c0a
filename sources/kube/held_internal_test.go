package kube

import (
	"fmt"
	"maps"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	workv1 "open-cluster-management.io/api/work/v1"
	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

// TestDigestIsThatOfTheBundle: after any edits, as the API server makes
// versions of them, the cached digest is the one that a bundle made now has; and
// an edit is published exactly when it changes what is compared.
func TestDigestIsThatOfTheBundle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, rec := &Source{id: "hub1"}, &record{}
		w := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{
			Namespace: "c1", Name: "web", UID: "d413c17e-d14b-467d-87b3-5cc5ff557269", Generation: 1, Finalizers: []string{api.WorkFinalizer},
		}}
		for i := range rapid.IntRange(1, 30).Draw(t, "edits") {
			old := w
			w = old.DeepCopy()
			w.ResourceVersion = fmt.Sprint(i)
			edit(t, w)
			before, after := compared(t, s, old), compared(t, s, w)
			if got := s.digest(w, rec); got != after.digest {
				t.Fatalf("cached digest %x, that of the bundle %x", got, after.digest)
			}
			lost := hasFinalizer(old) && !hasFinalizer(w)
			confirmed := w.DeletionTimestamp != nil && !confirmedByOperator(old) && confirmedByOperator(w)
			if got, want := publishable(old, w), before != after || lost || confirmed; got != want {
				t.Fatalf("publishable %t, want %t: %+v became %+v", got, want, old, w)
			}
			if computed := s.digests.Load(); computed > int64(i+1) {
				t.Fatalf("%d digests of %d versions", computed, i+1)
			}
		}
	})
}

// edit changes one thing of a work.
func edit(t *rapid.T, w *workv1.ManifestWork) {
	value := rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "value")
	set := func(m map[string]string, key string) map[string]string {
		m = maps.Clone(m)
		if m == nil {
			m = map[string]string{}
		}
		if m[key] = value; value == "" {
			delete(m, key)
		}
		return m
	}
	switch rapid.IntRange(0, 8).Draw(t, "edit") {
	case 0:
		w.Spec.Workload.Manifests = []workv1.Manifest{{RawExtension: runtime.RawExtension{Raw: []byte(`{"kind":"` + value + `"}`)}}}
		w.Generation++
	case 1:
		w.Labels = set(w.Labels, "label")
	case 2:
		w.Annotations = set(w.Annotations, "annotation")
	case 3:
		w.Annotations = set(w.Annotations, corev1.LastAppliedConfigAnnotation)
	case 4:
		w.Annotations = set(w.Annotations, api.SequenceAnnotation)
	case 5:
		w.Status.Conditions = []metav1.Condition{{Type: "Available", Reason: value}}
	case 6:
		w.Finalizers = nil
	case 7:
		if w.DeletionTimestamp == nil {
			now := metav1.NewTime(time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC))
			w.DeletionTimestamp = &now
			w.Generation++
		}
	case 8:
		if value != "" {
			w.Annotations = set(w.Annotations, api.ConfirmDeletionAnnotation)
			w.Annotations[api.ConfirmDeletionAnnotation] = "true"
		}
	}
}

// what source and cluster compare of a work.
type what struct {
	generation int64
	deleting   bool
	digest     digest.Content
}

func compared(t *rapid.T, s *Source, w *workv1.ManifestWork) what {
	b, err := codec.NewBundle(s.id, w)
	if err != nil {
		t.Fatal(err)
	}
	d, err := b.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return what{b.Generation, b.Deleting(), d}
}
