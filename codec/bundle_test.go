package codec_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

func manifest(raw string) workv1.Manifest {
	return workv1.Manifest{RawExtension: runtime.RawExtension{Raw: []byte(raw)}}
}

// long is a text of more than n bytes.
func long(n int) string { return strings.Repeat("x", n+1) }

func TestResourceIDVector(t *testing.T) {
	if got := codec.ResourceID(source, cluster, "web-tier"); got != workID {
		t.Errorf("got %s, want the ID that OCM's sources mint, %s", got, workID)
	}
}

func TestNewBundle(t *testing.T) {
	for _, tc := range []struct {
		reason string
		change func(*workv1.ManifestWork)
		holds  func(codec.Bundle) bool
	}{
		{
			"a work built in memory has no UID",
			func(w *workv1.ManifestWork) { w.UID = "" },
			func(b codec.Bundle) bool {
				return b.ID == workID && strings.Contains(string(b.Metadata), `"uid":"`+workID+`"`)
			},
		},
		{
			"the annotation wins over metadata.generation",
			func(w *workv1.ManifestWork) {
				w.Annotations = map[string]string{"cloudevents.open-cluster-management.io/resourceversion": "12"}
			},
			func(b codec.Bundle) bool { return b.Generation == 12 },
		},
		{
			"what only the API server and kubectl need stays at home",
			func(w *workv1.ManifestWork) {
				w.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
				w.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: strings.Repeat("x", 200<<10), "team": "edge"}
			},
			func(b codec.Bundle) bool {
				return string(b.Metadata) == `{"name":"web-tier","namespace":"edge-007","uid":"`+workID+
					`","resourceVersion":"77","generation":3,"annotations":{"team":"edge"}}`
			},
		},
		{
			"log fields travel beside the metadata, sorted",
			func(w *workv1.ManifestWork) {
				w.Annotations = map[string]string{
					"logging.open-cluster-management.io/op-id": "7", "logging.open-cluster-management.io/by": "me", "team": "edge",
				}
			},
			func(b codec.Bundle) bool {
				return b.Trace == `{"logging.open-cluster-management.io/by":"me","logging.open-cluster-management.io/op-id":"7"}`
			},
		},
		{
			"manifests keep their bytes, white space and order of keys included",
			func(w *workv1.ManifestWork) {
				w.Spec = workv1.ManifestWorkSpec{Workload: workv1.ManifestsTemplate{Manifests: []workv1.Manifest{
					manifest(`{"b": 1, "a":2.0}`), manifest("{\n}"),
				}}}
			},
			func(b codec.Bundle) bool { return string(b.Payload) == "{\"manifests\":[{\"b\": 1, \"a\":2.0},{\n}]}" },
		},
		{
			"a manifest that is an object is written",
			func(w *workv1.ManifestWork) {
				w.Spec = workv1.ManifestWorkSpec{Workload: workv1.ManifestsTemplate{Manifests: []workv1.Manifest{{
					RawExtension: runtime.RawExtension{Object: &corev1.Secret{Type: "t"}},
				}}}}
			},
			func(b codec.Bundle) bool { return string(b.Payload) == `{"manifests":[{"metadata":{},"type":"t"}]}` },
		},
		{
			"a work without manifests is a list without manifests",
			func(w *workv1.ManifestWork) { w.Spec = workv1.ManifestWorkSpec{} },
			func(b codec.Bundle) bool { return string(b.Payload) == `{"manifests":[]}` },
		},
		{
			"the executor is spelled as on OCM's wire",
			func(w *workv1.ManifestWork) {
				w.Spec = workv1.ManifestWorkSpec{Executor: &workv1.ManifestWorkExecutor{
					Subject: workv1.ManifestWorkExecutorSubject{Type: workv1.ExecutorSubjectTypeServiceAccount},
				}}
			},
			func(b codec.Bundle) bool {
				return string(b.Payload) == `{"manifests":[],"executer":{"subject":{"type":"ServiceAccount"}}}`
			},
		},
		{
			"a work being deleted is sent without its manifests",
			func(w *workv1.ManifestWork) {
				w.DeletionTimestamp = &metav1.Time{Time: time.Unix(1770091770, 0).In(time.FixedZone("", 3600))}
			},
			func(b codec.Bundle) bool {
				return b.DeletedAt.Equal(time.Unix(1770091770, 0)) && b.DeletedAt.Location() == time.UTC && b.Payload == nil
			},
		},
	} {
		w := webTier(3)
		tc.change(w)
		before := w.DeepCopy()
		b, err := codec.NewBundle(source, w)
		if err != nil {
			t.Errorf("%s: %v", tc.reason, err)
			continue
		}
		if !tc.holds(b) {
			t.Errorf("%s: got metadata %s, trace %s, payload %s", tc.reason, b.Metadata, b.Trace, b.Payload)
		}
		if diff := cmp.Diff(before, w); diff != "" {
			t.Errorf("%s: the work was changed:\n%s", tc.reason, diff)
		}
		if _, err := b.Encode(codec.Update); err != nil {
			t.Errorf("%s: what was bundled cannot be sent: %v", tc.reason, err)
		}
	}
}

func TestNewBundleRefuses(t *testing.T) {
	for _, tc := range []struct {
		reason string
		change func(*workv1.ManifestWork)
		want   error
	}{
		{"neither UID nor name", func(w *workv1.ManifestWork) { w.UID, w.Name = "", "" }, codec.ErrMalformed},
		{"no cluster", func(w *workv1.ManifestWork) { w.Namespace = "" }, codec.ErrMalformed},
		{"an annotation that is no number", func(w *workv1.ManifestWork) {
			w.Annotations = map[string]string{"cloudevents.open-cluster-management.io/resourceversion": "new"}
		}, codec.ErrMalformed},
		{"a generation over 32 bits", func(w *workv1.ManifestWork) { w.Generation = 1 << 31 }, codec.ErrGenerationRange},
		{"annotations over the limit", func(w *workv1.ManifestWork) {
			w.Annotations = map[string]string{"a": strings.Repeat("x", codec.MaxMetadata)}
		}, codec.ErrMetadataTooLarge},
		{"manifests over the limit", func(w *workv1.ManifestWork) {
			w.Spec.Workload.Manifests = []workv1.Manifest{manifest(`{"a":"` + strings.Repeat("x", codec.MaxPayload) + `"}`)}
		}, codec.ErrPayloadTooLarge},
		{"a manifest that is no object", func(w *workv1.ManifestWork) {
			w.Spec.Workload.Manifests = []workv1.Manifest{manifest(`[]`)}
		}, codec.ErrMalformed},
		{"an empty manifest", func(w *workv1.ManifestWork) {
			w.Spec.Workload.Manifests = []workv1.Manifest{{}}
		}, codec.ErrMalformed},
		{"a manifest that would close the list", func(w *workv1.ManifestWork) {
			w.Spec.Workload.Manifests = []workv1.Manifest{manifest(`{}],"executer":{}`)}
		}, codec.ErrMalformed},
		{"a manifest as deep as a whole body may be", func(w *workv1.ManifestWork) {
			w.Spec.Workload.Manifests = []workv1.Manifest{manifest(strings.Repeat(`{"a":`, codec.MaxDepth-1) + "1" + strings.Repeat("}", codec.MaxDepth-1))}
		}, codec.ErrMalformed},
	} {
		w := webTier(3)
		tc.change(w)
		_, err := codec.NewBundle(source, w)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: error %v, want %v", tc.reason, err, tc.want)
		}
	}
}

// TestDeletionNeedsNoMetadata: what people wrote into a work keeps its deletion
// from nothing.
func TestDeletionNeedsNoMetadata(t *testing.T) {
	for _, tc := range []struct {
		reason string
		change func(*workv1.ManifestWork)
	}{
		{"annotations over the limit", func(w *workv1.ManifestWork) { w.Annotations = map[string]string{"a": long(codec.MaxMetadata)} }},
		{"a generation in words", func(w *workv1.ManifestWork) {
			w.Annotations = map[string]string{"cloudevents.open-cluster-management.io/resourceversion": "new"}
		}},
		{"a generation over 32 bits", func(w *workv1.ManifestWork) {
			w.Annotations = map[string]string{"cloudevents.open-cluster-management.io/resourceversion": "2147483648"}
		}},
		{"log fields over the limit", func(w *workv1.ManifestWork) {
			w.Annotations = map[string]string{"logging.open-cluster-management.io/op-id": long(event.MaxValue)}
		}},
	} {
		w := webTier(3)
		tc.change(w)
		w.DeletionTimestamp = &metav1.Time{Time: time.Unix(1770091770, 0)}
		b, err := codec.NewBundle(source, w)
		if err != nil {
			t.Errorf("%s: %v", tc.reason, err)
			continue
		}
		if _, err := b.Encode(codec.Delete); err != nil {
			t.Errorf("%s: what was bundled cannot be sent: %v", tc.reason, err)
		}
		got, err := b.Work()
		if err != nil {
			t.Errorf("%s: what was sent cannot be read: %v", tc.reason, err)
			continue
		}
		if got.Name != w.Name || got.UID != w.UID || got.Generation != 3 || got.DeletionTimestamp == nil {
			t.Errorf("%s: the agent sees %s, UID %s, generation %d, deleted at %v", tc.reason, got.Name, got.UID, got.Generation, got.DeletionTimestamp)
		}
	}
}

// TestDeletionSaysWhatStays: the agent may hold a generation with another option,
// or none.
func TestDeletionSaysWhatStays(t *testing.T) {
	orphan := &workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeOrphan}
	foreground := &workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeForeground}
	selective := &workv1.DeleteOption{
		PropagationPolicy: workv1.DeletePropagationPolicyTypeSelectivelyOrphan,
		SelectivelyOrphan: &workv1.SelectivelyOrphan{OrphaningRules: []workv1.OrphaningRule{{Resource: "secrets", Namespace: "ns", Name: "keys"}}},
	}
	own := map[string]string{codec.DeleteOptionAnnotation: `{"propagationPolicy":"Orphan"}`}
	for _, tc := range []struct {
		reason      string
		annotations map[string]string
		option      *workv1.DeleteOption
		held        *workv1.DeleteOption
		want        *workv1.DeleteOption
	}{
		{"nothing stays", nil, nil, nil, nil},
		{"nothing stays, in so many words", nil, foreground, nil, nil},
		{"all stays", nil, orphan, nil, orphan},
		{"some stays", nil, selective, nil, selective},
		{"the deletion knows better than what is held", nil, selective, orphan, selective},
		{"what is held counts if the deletion says nothing", nil, nil, orphan, orphan},
		{"an annotation that somebody wrote is no option", own, nil, nil, nil},
		{"annotations over the limit", map[string]string{"a": long(codec.MaxMetadata)}, selective, nil, selective},
	} {
		w := webTier(3)
		w.Annotations, w.Spec.DeleteOption = tc.annotations, tc.held
		held, err := codec.NewBundle(source, &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{UID: "id", Namespace: cluster}, Spec: w.Spec})
		if err != nil {
			t.Fatal(err)
		}
		w.Spec.DeleteOption = tc.option
		w.DeletionTimestamp = &metav1.Time{Time: time.Unix(1770091770, 0)}
		b, err := codec.NewBundle(source, w)
		if err != nil {
			t.Errorf("%s: %v", tc.reason, err)
			continue
		}
		b.Payload = held.Payload
		got, err := b.Work()
		if err != nil {
			t.Errorf("%s: %v", tc.reason, err)
			continue
		}
		if diff := cmp.Diff(tc.want, got.Spec.DeleteOption); diff != "" {
			t.Errorf("%s: delete option (-want +got):\n%s", tc.reason, diff)
		}
		if text, ok := got.Annotations[codec.DeleteOptionAnnotation]; ok {
			t.Errorf("%s: the annotation %q is left", tc.reason, text)
		}
	}
	b := codec.Bundle{
		ID: "id", Source: source, Cluster: cluster, DeletedAt: time.Unix(1770091770, 0),
		Metadata: []byte(`{"annotations":{"` + codec.DeleteOptionAnnotation + `":"keep it"}}`),
	}
	if _, err := b.Work(); !errors.Is(err, codec.ErrMalformed) {
		t.Errorf("an option that cannot be read: error %v, want %v", err, codec.ErrMalformed)
	}
}

// TestMetadataThatNoAttributeCanHold: the API server takes characters in
// annotations that CloudEvents does not allow.
func TestMetadataThatNoAttributeCanHold(t *testing.T) {
	w := webTier(3)
	value := "delete \x7f, next line \u0085, no character \ufdd0, nor \U0001ffff, but \u00e9"
	w.Annotations = map[string]string{"team": value, "logging.open-cluster-management.io/op-id": value}
	b := newBundle(t, w)
	if _, err := b.Encode(codec.Update); err != nil {
		t.Fatal(err)
	}
	got, err := b.Work()
	if err != nil {
		t.Fatal(err)
	}
	for name := range w.Annotations {
		if got.Annotations[name] != value {
			t.Errorf("%s arrives as %q, want %q", name, got.Annotations[name], value)
		}
	}
	if r := newReport(t, b, appliedStatus(), 1); !event.IsText(string(r.Metadata)) {
		t.Errorf("the report's metadata %q fits no attribute", r.Metadata)
	}
}

func TestWork(t *testing.T) {
	sent := webTier(3)
	sent.Annotations = map[string]string{"logging.open-cluster-management.io/op-id": "7", "team": "edge"}
	sent.Finalizers = []string{"a.example/b"}
	sent.Spec.Executor = &workv1.ManifestWorkExecutor{
		Subject: workv1.ManifestWorkExecutorSubject{Type: workv1.ExecutorSubjectTypeServiceAccount},
	}
	got, err := newBundle(t, sent).Work()
	if err != nil {
		t.Fatal(err)
	}
	want := sent.DeepCopy()
	want.ResourceVersion = ""
	want.Labels = map[string]string{"cloudevents.open-cluster-management.io/originalsource": source}
	want.Annotations["cloudevents.open-cluster-management.io/datatype"] = codec.DataType
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWorkOfLittle(t *testing.T) {
	at := time.Date(2026, 2, 3, 5, 0, 0, 400e6, time.UTC)
	b := codec.Bundle{
		ID: "an-id", Source: source, Cluster: cluster, Generation: 2, DeletedAt: at,
		Trace: `{"logging.open-cluster-management.io/op-id":"7","other":"8"}`,
	}
	got, err := b.Work()
	if err != nil {
		t.Fatal(err)
	}
	want := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{
		Name: "an-id", Namespace: cluster, UID: "an-id", Generation: 2,
		DeletionTimestamp: &metav1.Time{Time: at.Truncate(time.Second)},
		Labels:            map[string]string{"cloudevents.open-cluster-management.io/originalsource": source},
		Annotations: map[string]string{
			"cloudevents.open-cluster-management.io/datatype": codec.DataType,
			"logging.open-cluster-management.io/op-id":        "7",
		},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("a tombstone without metadata is named by its ID (-want +got):\n%s", diff)
	}
}

func TestWorkHoldsAgainstMetadata(t *testing.T) {
	b := newBundle(t, webTier(3))
	b.Metadata = []byte(`{"name":"web-tier","namespace":"kube-system","uid":"other","generation":99,` +
		`"deletionTimestamp":"2026-02-03T04:09:30Z","labels":{"cloudevents.open-cluster-management.io/originalsource":"evil"}}`)
	w, err := b.Work()
	if err != nil {
		t.Fatal(err)
	}
	if w.Namespace != cluster || w.UID != workID || w.Generation != 3 || w.DeletionTimestamp != nil ||
		w.Labels["cloudevents.open-cluster-management.io/originalsource"] != source {
		t.Errorf("metadata overrode what the bundle says: %+v", w.ObjectMeta)
	}
}

func TestWorkRefuses(t *testing.T) {
	for _, tc := range []struct{ reason, payload, metadata string }{
		{"manifests that are no list", `{"manifests":{}}`, `{}`},
		{"a manifest that is null", `{"manifests":[null]}`, `{}`},
		{"a manifest that is a string", `{"manifests":["a"]}`, `{}`},
		{"options of the wrong type", `{"manifests":[],"deleteOption":"Orphan"}`, `{}`},
		{"metadata of the wrong type", `{"manifests":[]}`, `{"labels":[]}`},
		{"a body cut short", `{"manifests":[`, `{}`},
		{"a body too deep", `{"a":` + strings.Repeat("[", codec.MaxDepth) + strings.Repeat("]", codec.MaxDepth) + `}`, `{}`},
		{"a body too large", `{"a":"` + strings.Repeat("a", codec.MaxPayload) + `"}`, `{}`},
	} {
		b := codec.Bundle{ID: "a", Source: source, Cluster: cluster, Payload: []byte(tc.payload), Metadata: []byte(tc.metadata)}
		if w, err := b.Work(); !errors.Is(err, codec.ErrMalformed) || w != nil {
			t.Errorf("%s: %v, error %v", tc.reason, w, err)
		}
	}
	b := codec.Bundle{ID: "a", Source: source, Cluster: cluster, Payload: []byte(`{"manifests":[{}],"later":1,"Executer":1}`)}
	if w, err := b.Work(); err != nil || len(w.Spec.Workload.Manifests) != 1 {
		t.Errorf("fields of a later protocol are ignored: %v, error %v", w, err)
	}
}
