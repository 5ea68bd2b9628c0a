package work_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/pkg/work"
)

const limit = work.DefaultManifestLimit

func manifest(version, kind, meta string) string {
	return fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":%s}`, version, kind, meta)
}

// payloads are works and what is wrong with them.
var payloads = map[string]struct {
	reason    string
	manifests []string
	want      string // Part of the message, "" for a work that is let in.
}{
	"one":               {"the usual", []string{configMap("a", "")}, ""},
	"none":              {"nothing to do", nil, "no manifests"},
	"no metadata":       {"nobody could find the object again", []string{`{"apiVersion":"v1","kind":"ConfigMap"}`}, "no metadata.name"},
	"no name":           {"nobody could find the object again", []string{manifest("v1", "ConfigMap", `{"namespace":"a"}`)}, "no metadata.name"},
	"a generated name":  {"it would be another each time", []string{manifest("v1", "ConfigMap", `{"generateName":"a-"}`)}, "no metadata.name"},
	"both names":        {"one contradicts the other", []string{manifest("v1", "ConfigMap", `{"name":"a","generateName":"a-"}`)}, "generateName"},
	"the second of two": {"each is looked at", []string{configMap("a", ""), manifest("v1", "ConfigMap", `{"namespace":"b"}`)}, "no metadata.name"},
	"twice":             {"one would overwrite the other", []string{configMap("a", "1"), configMap("b", ""), configMap("a", "2")}, "ConfigMap default/a"},
	"two versions": {"they are one object", []string{
		manifest("autoscaling/v1", "HorizontalPodAutoscaler", `{"name":"a"}`), manifest("autoscaling/v2", "HorizontalPodAutoscaler", `{"name":"a"}`),
	}, "autoscaling/HorizontalPodAutoscaler /a"},
	"two namespaces": {"they are two objects", []string{
		manifest("v1", "ConfigMap", `{"name":"a","namespace":"a"}`), manifest("v1", "ConfigMap", `{"name":"a","namespace":"b"}`),
	}, ""},
	"two groups": {"they are two objects", []string{
		manifest("extensions/v1beta1", "Ingress", `{"name":"a"}`), manifest("networking.k8s.io/v1", "Ingress", `{"name":"a"}`),
	}, ""},
	"two kinds": {"they are two objects", []string{manifest("v1", "Secret", `{"name":"a"}`), manifest("v1", "ConfigMap", `{"name":"a"}`)}, ""},
}

// TestConformanceSpec is about what admission lets in, and TestConformanceValidation
// about when it is asked.
func TestConformanceSpec(t *testing.T) {
	h := newHub(t)
	h.install(work.PolicySettings{ManifestLimit: limit})
	namespace := apitest.Shared(t).Namespace(t)
	t.Run("Payload", func(t *testing.T) {
		for name, tc := range payloads {
			t.Run(name, func(t *testing.T) {
				for _, o := range []client.Object{workOf(namespace, "w", tc.manifests...), setOf(namespace, "w", tc.manifests...)} {
					verdict(t, tc.reason, h.Create(t.Context(), o, client.DryRunAll), tc.want, apierrors.IsInvalid)
				}
				// The hub judges alike where there is no admission.
				reason, message := work.Limits{}.Check(workOf(namespace, "w", tc.manifests...))
				if (reason == "") != (tc.want == "") || !strings.Contains(message, tc.want) {
					t.Errorf("%s: the hub says %s: %q, want %q", tc.reason, reason, message, tc.want)
				}
			})
		}
	})
	t.Run("Size_limit", func(t *testing.T) {
		overhead := len(configMap("a", ""))
		for name, tc := range map[string]struct {
			reason    string
			manifests []string
			want      string
		}{
			"at the limit":     {"it is the last that is allowed", []string{configMap("a", strings.Repeat("x", limit-overhead))}, ""},
			"a byte more":      {"and this the first that is not", []string{configMap("a", strings.Repeat("x", limit-overhead+1))}, fmt.Sprintf("%d bytes, and a work may have %d", limit+1, limit)},
			"of two":           {"they count together", []string{configMap("a", strings.Repeat("x", limit/2)), configMap("b", strings.Repeat("x", limit/2))}, "bytes"},
			"of two bytes":     {"bytes count, not letters", []string{configMap("a", strings.Repeat("ü", limit/2))}, "bytes"},
			"a MiB":            {"what etcd holds", []string{configMap("a", strings.Repeat("x", 1<<20))}, fmt.Sprintf("%d bytes", 1<<20+overhead)},
			"two MiB":          {"what the API server reads, and etcd would refuse", []string{configMap("a", strings.Repeat("x", 2<<20))}, "bytes"},
			"a MiB of entries": {"an object of many small parts", []string{manyFields(1 << 20)}, "bytes"},
		} {
			t.Run(name, func(t *testing.T) {
				for _, o := range []client.Object{workOf(namespace, "w", tc.manifests...), setOf(namespace, "w", tc.manifests...)} {
					verdict(t, tc.reason, h.Create(t.Context(), o, client.DryRunAll), tc.want, apierrors.IsRequestEntityTooLargeError)
				}
				reason, message := work.Limits{Manifests: limit}.Check(workOf(namespace, "w", tc.manifests...))
				if (reason == api.ReasonTooLarge) != (tc.want != "") || !strings.Contains(message, tc.want) {
					t.Errorf("%s: the hub says %s: %q, want %q", tc.reason, reason, message, tc.want)
				}
			})
		}
	})
	t.Run("TTL_after_completion", func(t *testing.T) {
		for ttl, want := range map[int64]string{-1: "ttlSecondsAfterFinished is -1", 0: "", 3600: "", 1 << 62: ""} {
			w, set := workOf(namespace, "w", configMap("a", "")), setOf(namespace, "w", configMap("a", ""))
			w.Spec.DeleteOption = &workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeForeground, TTLSecondsAfterFinished: &ttl}
			set.Spec.ManifestWorkTemplate.DeleteOption = w.Spec.DeleteOption
			for _, o := range []client.Object{w, set} {
				verdict(t, "a time to live is in the future", h.Create(t.Context(), o, client.DryRunAll), want, apierrors.IsInvalid)
			}
			if reason, message := (work.Limits{}).Check(w); !strings.Contains(message, want) || (reason == "") != (want == "") {
				t.Errorf("the hub says of %d %s: %q, want %q", ttl, reason, message, want)
			}
		}
	})
}

// verdict compares what an API server answered.
func verdict(t *testing.T, reason string, err error, want string, kind func(error) bool) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", reason, err)
	case want != "" && (err == nil || !kind(err) || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: got %v (%v), want an error with %q", reason, err, apierrors.ReasonForError(err), want)
	}
}

// manyFields is a manifest of about so many bytes in fields of a few.
func manyFields(size int) string {
	var b strings.Builder
	b.WriteString(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"many"},"data":{"0":""`)
	for i := 1; b.Len() < size; i++ {
		fmt.Fprintf(&b, `,"%d":""`, i)
	}
	b.WriteString("}}")
	return b.String()
}

// TestManyManifests: what an expression may cost bounds how many manifests are
// compared, and never keeps a work out. The hub compares all.
func TestManyManifests(t *testing.T) {
	h := newHub(t)
	h.install(work.PolicySettings{ManifestLimit: limit})
	namespace := apitest.Shared(t).Namespace(t)
	for _, tc := range []struct {
		reason   string
		number   int
		kind     string
		name     string // With the number.
		compared bool
	}{
		{"what a chart has at most", 500, "Secret", "configuration-%04d", true},
		{"more than can be compared", 1000, "Secret", "configuration-%04d", false},
		{"long names cost more", 500, "Secret", strings.Repeat("long-", 10) + "%04d", false},
		{"as many as the limit has room for", 6000, "Secret", "%04d", false},
		{"the most that are compared, one being there twice", 599, "Pod", "%04d", true},
		{"short names cost an expression nothing, but the API server all the same", 600, "Pod", "%04d", false},
		{"with so many it would take the API server half a minute", 7000, "Pod", "%04d", false},
	} {
		manifests := make([]string, tc.number)
		for i := range manifests {
			manifests[i] = manifest("v1", tc.kind, fmt.Sprintf(`{"name":%q}`, fmt.Sprintf(tc.name, i)))
		}
		verdict(t, tc.reason, h.Create(t.Context(), workOf(namespace, "w", manifests...), client.DryRunAll), "", nil)
		twice := slices.Concat(manifests, manifests[tc.number-1:])
		want := ""
		if tc.compared {
			want = "is there twice"
		}
		verdict(t, tc.reason, h.Create(t.Context(), workOf(namespace, "w", twice...), client.DryRunAll), want, apierrors.IsInvalid)
		if reason, message := (work.Limits{}).Check(workOf(namespace, "w", twice...)); reason != api.ReasonInvalid || !strings.Contains(message, "same object") {
			t.Errorf("%s: the hub says %s: %q", tc.reason, reason, message)
		}
	}
}

func TestConformanceValidation(t *testing.T) {
	t.Run("ValidatingWebhookConfiguration", func(t *testing.T) {
		h := newHub(t)
		namespace := apitest.Shared(t).Namespace(t)
		bad := workOf(namespace, "old", configMap("a", "1"), configMap("a", "2"))
		bad.Finalizers = []string{api.WorkFinalizer}
		good := workOf(namespace, "new", configMap("a", "1"))
		for _, w := range []*workv1.ManifestWork{bad, good} {
			if err := h.Create(t.Context(), w); err != nil {
				t.Fatal(err)
			}
		}
		h.install(work.PolicySettings{ManifestLimit: limit})

		change := func(w *workv1.ManifestWork, change func(*workv1.ManifestWork)) error {
			t.Helper()
			if err := h.Get(t.Context(), client.ObjectKeyFromObject(w), w); err != nil {
				t.Fatal(err)
			}
			change(w)
			return h.Update(t.Context(), w)
		}
		twice := func(w *workv1.ManifestWork) {
			w.Spec.Workload.Manifests = raw([]string{configMap("b", "1"), configMap("b", "2")})
		}
		verdict(t, "an update is looked at", change(good, twice), "ConfigMap default/b", apierrors.IsInvalid)
		verdict(t, "also that of a work that was let in before", change(bad, twice), "ConfigMap default/b", apierrors.IsInvalid)
		verdict(t, "a label asks for nothing", change(bad, func(w *workv1.ManifestWork) { w.Labels = map[string]string{"a": "b"} }), "", nil)
		bad.Status.Conditions = []metav1.Condition{{
			Type: workv1.WorkApplied, Status: metav1.ConditionFalse, Reason: api.ReasonWorkFailed, LastTransitionTime: metav1.Now(),
		}}
		verdict(t, "nor does the status", h.Status().Update(t.Context(), bad), "", nil)
		verdict(t, "a deletion is not looked at", h.Delete(t.Context(), bad), "", nil)
		verdict(t, "nor how it is to be deleted", change(bad, func(w *workv1.ManifestWork) {
			w.Spec.DeleteOption = &workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeOrphan}
		}), "", nil)
		verdict(t, "nor the end of it", change(bad, func(w *workv1.ManifestWork) { w.Finalizers = nil }), "", nil)
		h.eventually("the work is gone", func() error {
			err := h.Get(t.Context(), client.ObjectKeyFromObject(bad), bad)
			if err == nil {
				return errors.New("it is there")
			}
			return client.IgnoreNotFound(err)
		})
	})
}

// TestWithoutSizeLimit: a limit of 0 leaves the size to the API server.
func TestWithoutSizeLimit(t *testing.T) {
	h := newHub(t)
	h.install(work.PolicySettings{})
	w := workOf(apitest.Shared(t).Namespace(t), "w", configMap("a", strings.Repeat("x", 1<<20)))
	verdict(t, "there is no limit", h.Create(t.Context(), w, client.DryRunAll), "", nil)
	if reason, message := (work.Limits{}).Check(w); reason != "" {
		t.Errorf("the hub says %s: %s", reason, message)
	}
}

// TestPoliciesAndHubAgree on all but what the policies cannot know.
func TestPoliciesAndHubAgree(t *testing.T) {
	h := newHub(t)
	const small = 300
	h.install(work.PolicySettings{ManifestLimit: small})
	namespace := apitest.Shared(t).Namespace(t)
	text := rapid.StringOf(rapid.RuneFrom([]rune("ab,  \"\\\n\tü世")))
	rapid.Check(t, func(t *rapid.T) {
		var manifests []string
		for range rapid.IntRange(0, 4).Draw(t, "manifests") {
			manifests = append(manifests, rapid.OneOf(
				rapid.Custom(func(t *rapid.T) string {
					return configMap(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"), text.Draw(t, "text"))
				}),
				rapid.Custom(func(t *rapid.T) string {
					return manifest(
						rapid.SampledFrom([]string{"v1", "apps/v1", "apps/v2"}).Draw(t, "version"),
						rapid.SampledFrom([]string{"ConfigMap", "Secret"}).Draw(t, "kind"),
						rapid.SampledFrom([]string{"{}", `{"name":"a"}`, `{"name":"b","namespace":"default"}`, `{"name":"c","generateName":"c"}`}).Draw(t, "metadata"))
				}),
			).Draw(t, "manifest"))
		}
		w := workOf(namespace, "w", manifests...)
		reason, message := work.Limits{Manifests: small}.Check(w)
		err := h.Create(h.t.Context(), w, client.DryRunAll)
		// Blanks after commas in texts are not counted by the policies, each of
		// which the hub finds.
		unseen := reason == api.ReasonTooLarge && strings.Contains(strings.Join(manifests, ""), ", ")
		if (err == nil) != (reason == "") && (err != nil || !unseen) {
			t.Fatalf("the hub says %q (%s), the API server %v", reason, message, err)
		}
	})
}
