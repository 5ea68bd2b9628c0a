package codec_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"
	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

func digestOf(t testing.TB, b codec.Bundle) digest.Content {
	t.Helper()
	content, err := b.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestDigestCounts tells what makes another work of it from what the API
// servers and kubectl write beside it.
func TestDigestCounts(t *testing.T) {
	labelled := func() *workv1.ManifestWork {
		w := webTier(3)
		w.Labels = map[string]string{"tier": "web", "team": "edge"}
		w.Annotations = map[string]string{"owner": "a"}
		return w
	}
	want := digestOf(t, newBundle(t, labelled()))
	if want == (digest.Content{}) {
		t.Error("the digest of a deletion")
	}
	for _, tc := range []struct {
		reason string
		change func(*workv1.ManifestWork)
		counts bool
	}{
		{"the generation is beside it", func(w *workv1.ManifestWork) { w.Generation = 4 }, false},
		{"a resource version", func(w *workv1.ManifestWork) { w.ResourceVersion = "78" }, false},
		{"a creation time", func(w *workv1.ManifestWork) { w.CreationTimestamp = metav1.Now() }, false},
		{"finalizers", func(w *workv1.ManifestWork) { w.Finalizers = []string{"a"} }, false},
		{"owners", func(w *workv1.ManifestWork) { w.OwnerReferences = []metav1.OwnerReference{{Name: "a"}} }, false},
		{"managed fields", func(w *workv1.ManifestWork) { w.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "a"}} }, false},
		{
			"what kubectl applied last",
			func(w *workv1.ManifestWork) {
				w.Annotations["kubectl.kubernetes.io/last-applied-configuration"] = "{}"
			}, false,
		},
		{
			"the last status sequence",
			func(w *workv1.ManifestWork) {
				w.Annotations["cloudevents.open-cluster-management.io/sequenceid"] = "1"
			}, false,
		},
		{"a status", func(w *workv1.ManifestWork) { w.Status = appliedStatus() }, false},
		{"another name", func(w *workv1.ManifestWork) { w.Name = "web" }, true},
		{"another label", func(w *workv1.ManifestWork) { w.Labels["tier"] = "db" }, true},
		{"a label less", func(w *workv1.ManifestWork) { delete(w.Labels, "tier") }, true},
		{"an annotation more", func(w *workv1.ManifestWork) { w.Annotations["a"] = "" }, true},
		{"a label that became an annotation", func(w *workv1.ManifestWork) { w.Labels, w.Annotations = w.Annotations, w.Labels }, true},
		{"an option", func(w *workv1.ManifestWork) { w.Spec.DeleteOption = nil }, true},
		{"a manifest more", func(w *workv1.ManifestWork) {
			w.Spec.Workload.Manifests = append(w.Spec.Workload.Manifests, w.Spec.Workload.Manifests[0])
		}, true},
		{"the bytes of a manifest", func(w *workv1.ManifestWork) {
			raw := &w.Spec.Workload.Manifests[0].Raw
			*raw = append((*raw)[:len(*raw)-1], " }"...)
		}, true},
	} {
		w := labelled()
		tc.change(w)
		if got := digestOf(t, newBundle(t, w)); (got != want) != tc.counts {
			t.Errorf("%s: counts: %v, want %v", tc.reason, got != want, tc.counts)
		}
	}
}

func TestDigestOfDeletion(t *testing.T) {
	if got := digestOf(t, newBundle(t, deletedWebTier())); got != (digest.Content{}) {
		t.Errorf("digest %s, want zero", got)
	}
	broken := codec.Bundle{ID: "a", DeletedAt: time.Unix(1, 0), Metadata: []byte(`{`)}
	if got := digestOf(t, broken); got != (digest.Content{}) {
		t.Errorf("digest %s of a deletion that cannot be read, want zero", got)
	}
}

func TestDigestOfAnotherPeersBundle(t *testing.T) {
	b := codec.Bundle{ID: "a", Payload: []byte(`{"manifests":[]}`)}
	nameless := digestOf(t, b)
	for _, same := range []string{`{}`, `{"name":"a"}`, ` {"labels":null,"annotations":{},"name":""}`, `{"name":"\u0061"}`} {
		b.Metadata = []byte(same)
		if got := digestOf(t, b); got != nameless {
			t.Errorf("metadata %s counts", same)
		}
	}
	for _, text := range []string{`{`, `[]`, `{"labels":{"a":1}}`, `{"name":{}}`} {
		b.Metadata = []byte(text)
		if content, err := b.Digest(); !errors.Is(err, codec.ErrMalformed) || content != (digest.Content{}) {
			t.Errorf("metadata %s: %s, error %v", text, content, err)
		}
	}
}

// TestDigestAtBothEnds: what travelled has the digest that it had.
func TestDigestAtBothEnds(t *testing.T) {
	text := rapid.MapOfN(rapid.String(), rapid.StringN(-1, -1, 200), 0, 20)
	rapid.Check(t, func(t *rapid.T) {
		w := webTier(rapid.Int64Range(1, 9).Draw(t, "generation"))
		w.Labels, w.Annotations = text.Draw(t, "labels"), text.Draw(t, "annotations")
		delete(w.Annotations, "cloudevents.open-cluster-management.io/resourceversion")
		raw, err := json.Marshal(map[string]any{"data": text.Draw(t, "data")})
		if err != nil {
			t.Fatal(err)
		}
		w.Spec.Workload.Manifests[0].Raw = raw
		sent, err := codec.NewBundle(source, w)
		if err != nil {
			t.Fatal(err)
		}
		e, err := sent.Encode(codec.Update)
		if err != nil {
			t.Fatal(err)
		}
		_, m, err := codec.Decode(e)
		if err != nil {
			t.Fatal(err)
		}
		before, err := sent.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if after, err := m.(codec.Bundle).Digest(); err != nil || after != before {
			t.Fatalf("digest %s became %s, %v", before, after, err)
		}
	})
}
