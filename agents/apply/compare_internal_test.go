package apply

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	workv1 "open-cluster-management.io/api/work/v1"
)

func fromJSON(t testing.TB, text string) any {
	t.Helper()
	var v map[string]any
	if err := utiljson.Unmarshal([]byte(`{"v":`+text+`}`), &v); err != nil {
		t.Fatal(err)
	}
	return v["v"]
}

func TestContains(t *testing.T) {
	for _, tt := range []struct {
		reason        string
		live, desired string
		zeroIsAbsent  bool
		want          bool
	}{
		{"the server added a default", `{"a":1,"b":2}`, `{"a":1}`, false, true},
		{"a value differs", `{"a":2}`, `{"a":1}`, false, false},
		{"a field is missing", `{}`, `{"a":1}`, false, false},
		{"a null asks for nothing", `{"a":1}`, `{"a":null}`, false, true},
		{"an empty object and list are stored as nothing", `{}`, `{"a":{},"b":[],"c":{"d":{}}}`, false, true},
		{"a zero is a value for a custom resource", `{}`, `{"a":0}`, false, false},
		{"the server's own types do not store zeros", `{}`, `{"a":0,"b":"","c":false,"d":{"e":""}}`, true, true},
		{"a zero against another value", `{"a":1}`, `{"a":0}`, true, false},
		{"whole numbers and fractions", `{"a":1}`, `{"a":1.0}`, false, true},
		{"elements of lists are compared one by one", `[{"a":1,"b":2}]`, `[{"a":1}]`, false, true},
		{"a list that grew", `[{"a":1},{"a":2}]`, `[{"a":1}]`, false, false},
		{"a list in another order", `["a","b"]`, `["b","a"]`, false, false},
		{"quantities where quantities are", `{"requests":{"cpu":"1"},"limits":{"cpu":2}}`, `{"requests":{"cpu":"1000m"},"limits":{"cpu":"2"}}`, false, true},
		{"no quantities elsewhere", `{"data":{"cpu":"1"}}`, `{"data":{"cpu":"1000m"}}`, false, false},
		{"different types", `{"a":[1]}`, `{"a":{"b":1}}`, false, false},
		{"text against number", `{"a":"1"}`, `{"a":1}`, false, false},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			if got := contains(fromJSON(t, tt.live), fromJSON(t, tt.desired), tt.zeroIsAbsent); got != tt.want {
				t.Errorf("contains(%s, %s) = %v", tt.live, tt.desired, got)
			}
		})
	}
}

func TestEqual(t *testing.T) {
	for _, tt := range []struct {
		reason, a, b string
		zeroIsAbsent bool
		want         bool
	}{
		{"a field more", `{"a":1,"b":2}`, `{"a":1}`, false, false},
		{"nothing and an empty object", `null`, `{}`, false, true},
		{"nothing and something", `null`, `{"a":"x"}`, false, false},
		{"an empty string is data", `{"a":""}`, `{}`, false, false},
		{"an empty string is a default", `{"a":""}`, `{}`, true, true},
		{"a longer list", `[1,2]`, `[1]`, false, false},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			a, b := fromJSON(t, tt.a), fromJSON(t, tt.b)
			if got, back := equal(a, b, tt.zeroIsAbsent), equal(b, a, tt.zeroIsAbsent); got != tt.want || back != tt.want {
				t.Errorf("equal = %v, the other way %v", got, back)
			}
		})
	}
}

func FuzzContains(f *testing.F) {
	f.Add(`{"a":[1,{"requests":{"cpu":"1"}}]}`, `{"a":null}`)
	f.Fuzz(func(t *testing.T, a, b string) {
		var live, desired any
		if json.Unmarshal([]byte(a), &live) != nil || json.Unmarshal([]byte(b), &desired) != nil {
			return
		}
		for _, zeroIsAbsent := range []bool{false, true} {
			if !contains(live, live, zeroIsAbsent) || !equal(live, live, zeroIsAbsent) {
				t.Errorf("%s is not what it is", a)
			}
			if equal(live, desired, zeroIsAbsent) && !contains(live, desired, zeroIsAbsent) {
				t.Errorf("%s equals %s but does not contain it", a, b)
			}
		}
	})
}

func TestMatchGlob(t *testing.T) {
	for _, tt := range []struct {
		reason, pattern, text string
		want                  bool
	}{
		{"no asterisk means equality", "web", "web", true},
		{"no asterisk is no prefix", "web", "web-1", false},
		{"an asterisk alone", "*", "anything", true},
		{"an asterisk matches nothing as well", "web*", "web", true},
		{"in the middle", "a*c", "abbc", true},
		{"the end must not overlap the beginning", "ab*b", "ab", false},
		{"several", "*a*b*", "xxaxxbxx", true},
		{"several out of order", "*b*a", "ab", false},
		{"a cluster-scoped object has no namespace", "", "", true},
		{"an asterisk matches no namespace", "*", "", true},
		{"signs of regular expressions mean themselves", "a.c", "abc", false},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			if got := matchGlob(tt.pattern, tt.text); got != tt.want {
				t.Errorf("matchGlob(%q, %q) = %v", tt.pattern, tt.text, got)
			}
		})
	}
}

func FuzzMatchGlob(f *testing.F) {
	f.Add("a*b*", "axxbb")
	f.Add("*", "")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > 100 {
			return
		}
		expression, err := regexp.Compile(`(?s)\A` + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`) + `\z`)
		if err != nil || strings.ToValidUTF8(text, "?") != text {
			return
		}
		if got, want := matchGlob(pattern, text), expression.MatchString(text); got != want {
			t.Errorf("matchGlob(%q, %q) = %v, want %v", pattern, text, got, want)
		}
	})
}

func FuzzReadManifests(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"},"data":{"a":7}}`))
	f.Add([]byte(`{"apiVersion":"v1","kind":"List","metadata":null,"items":[]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		limits := Options{}.withDefaults().Limits
		m := readManifests([]workv1.Manifest{{RawExtension: runtime.RawExtension{Raw: raw}}}, limits)[0]
		if (m.object == nil) != (m.outcome.err != nil) {
			t.Fatalf("object %v, error %v", m.object, m.outcome.err)
		}
		definedKinds([]*manifest{m})
		if m.object == nil {
			return
		}
		if m.meta.Name == "" || m.meta.Kind == "" || m.sum == "" {
			t.Errorf("read %+v", m.meta)
		}
		m.resource = resource{namespaced: true}
		m.option.owned = true
		live := toCreate(m, ownerRef("owner", "uid"))
		if toUpdate(live, m, ownerRef("owner", "uid"), strictly, memory{}) != nil {
			t.Errorf("an object that was just made from %s differs from it", raw)
		}
	})
}

func TestSort(t *testing.T) {
	var manifests []*manifest
	for i, kind := range []string{"Widget", "Deployment", "", "Service", "ConfigMap", "Namespace", "APIService", "Secret", "CustomResourceDefinition", "Role", "NetworkPolicy"} {
		manifests = append(manifests, &manifest{meta: workv1.ManifestResourceMeta{Ordinal: int32(i), Kind: kind}})
	}
	sortForApply(manifests)
	var got []string
	for _, m := range manifests {
		got = append(got, m.meta.Kind)
	}
	want := []string{"Namespace", "CustomResourceDefinition", "Role", "NetworkPolicy", "ConfigMap", "Secret", "Service", "Deployment", "APIService", "Widget", ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}

	var entries []entry
	for _, resource := range []string{"namespaces", "networkpolicies", "widgets", "storageclasses", "deployments"} {
		entries = append(entries, entry{objectID: objectID{Resource: resource}})
	}
	sortForDelete(entries)
	got = nil
	for _, e := range entries {
		got = append(got, e.Resource)
	}
	want = []string{"widgets", "deployments", "networkpolicies", "namespaces", "storageclasses"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order of deletion (-want +got):\n%s", diff)
	}
}

func TestWithOwner(t *testing.T) {
	ours, other := ownerRef("hub-web", "1"), ownerRef("hub-db", "2")
	stale := ownerRef("hub-web", "0")
	foreign := metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "x", UID: "3"}
	for _, tt := range []struct {
		reason string
		have   []metav1.OwnerReference
		owned  bool
		want   []metav1.OwnerReference
	}{
		{"the first owner", nil, true, []metav1.OwnerReference{ours}},
		{"others stay", []metav1.OwnerReference{foreign, other}, true, []metav1.OwnerReference{foreign, other, ours}},
		{"once is enough", []metav1.OwnerReference{ours, other}, true, []metav1.OwnerReference{ours, other}},
		{"orphaning removes only ours", []metav1.OwnerReference{ours, other}, false, []metav1.OwnerReference{other}},
		{"an earlier incarnation goes", []metav1.OwnerReference{stale}, true, []metav1.OwnerReference{ours}},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, withOwner(tt.have, ours, tt.owned)); diff != "" {
				t.Errorf("owners (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFirstMatchingStrategyCounts(t *testing.T) {
	config := func(name string, s workv1.UpdateStrategyType) workv1.ManifestConfigOption {
		o := workv1.ManifestConfigOption{ResourceIdentifier: workv1.ResourceIdentifier{Resource: "configmaps", Namespace: "*", Name: name}}
		if s != "" {
			o.UpdateStrategy = &workv1.UpdateStrategy{Type: s}
		}
		return o
	}
	spec := &workv1.ManifestWorkSpec{ManifestConfigs: []workv1.ManifestConfigOption{
		config("web-*", ""), config("web-*", workv1.UpdateStrategyTypeReadOnly), config("*", workv1.UpdateStrategyTypeCreateOnly),
	}}
	for name, want := range map[string]option{
		"web-1": {strategy: workv1.UpdateStrategyTypeReadOnly},
		"db":    {strategy: workv1.UpdateStrategyTypeCreateOnly, owned: true},
	} {
		got, err := resolveOption(spec, workv1.ResourceIdentifier{Resource: "configmaps", Namespace: "ns", Name: name})
		if err != nil || !cmp.Equal(got, want, cmp.AllowUnexported(option{})) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, want)
		}
	}
}
