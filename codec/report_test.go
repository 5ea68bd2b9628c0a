package codec_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	workv1 "open-cluster-management.io/api/work/v1"
	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/codec"
)

func TestHashStatusVectors(t *testing.T) {
	for _, tc := range []struct {
		reason string
		status workv1.ManifestWorkStatus
		want   string
	}{
		{"an applied work", appliedStatus(), "9f7591c2d611cb6ffaa062b4b8f4909015684ceeea01a4199fa5fcc045551ada"},
		{"a deleted work", deletedStatus(), "3fd9b2bad267c65b262e68daf6337e8c8c4fa87ea0bf9725b1a31420778335e3"},
		{"an empty status still has its struct", workv1.ManifestWorkStatus{}, "3a4ba43801251ccdf889a3154674d23a35ab996aacfc00de92e61dbb2f5cf189"},
	} {
		got, err := codec.HashStatus(tc.status)
		if err != nil || got != tc.want {
			t.Errorf("%s: %s, %v, want %s", tc.reason, got, err, tc.want)
		}
	}
}

// slowHash is the definition: the status as a map, as JSON, hashed.
func slowHash(t testing.TB, status workv1.ManifestWorkStatus) string {
	t.Helper()
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&workv1.ManifestWork{Status: status})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(m["status"])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

var status = rapid.Custom(func(t *rapid.T) workv1.ManifestWorkStatus {
	text := rapid.OneOf(rapid.Just(""), rapid.String(), rapid.Just("a<b>&c\u2028\xff"))
	condition := rapid.Custom(func(t *rapid.T) metav1.Condition {
		c := metav1.Condition{
			Type: text.Draw(t, "type"), Status: metav1.ConditionStatus(text.Draw(t, "status")),
			ObservedGeneration: rapid.Int64Range(-1, 1<<40).Draw(t, "observed"),
			Reason:             text.Draw(t, "reason"), Message: text.Draw(t, "message"),
		}
		if rapid.Bool().Draw(t, "has time") {
			at := time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns"))
			c.LastTransitionTime = metav1.NewTime(at)
		}
		return c
	})
	conditions := rapid.OneOf(rapid.Just([]metav1.Condition(nil)), rapid.SliceOfN(condition, 0, 3))
	feedback := rapid.Custom(func(t *rapid.T) workv1.FeedbackValue {
		v := workv1.FeedbackValue{Name: text.Draw(t, "name")}
		v.Value.Type = workv1.ValueType(text.Draw(t, "value type"))
		v.Value.Integer = rapid.Ptr(rapid.Int64(), true).Draw(t, "integer")
		v.Value.String = rapid.Ptr(text, true).Draw(t, "string")
		v.Value.Boolean = rapid.Ptr(rapid.Bool(), true).Draw(t, "boolean")
		v.Value.JsonRaw = rapid.Ptr(text, true).Draw(t, "raw")
		return v
	})
	manifest := rapid.Custom(func(t *rapid.T) workv1.ManifestCondition {
		return workv1.ManifestCondition{
			ResourceMeta: workv1.ManifestResourceMeta{
				Ordinal: rapid.Int32().Draw(t, "ordinal"),
				Group:   text.Draw(t, "group"), Version: text.Draw(t, "version"), Kind: text.Draw(t, "kind"),
				Resource: text.Draw(t, "resource"), Name: text.Draw(t, "name"), Namespace: text.Draw(t, "namespace"),
			},
			StatusFeedbacks: workv1.StatusFeedbackResult{Values: rapid.SliceOfN(feedback, 0, 3).Draw(t, "feedback")},
			Conditions:      conditions.Draw(t, "conditions"),
		}
	})
	s := workv1.ManifestWorkStatus{Conditions: conditions.Draw(t, "conditions")}
	s.ResourceStatus.Manifests = rapid.OneOf(rapid.Just([]workv1.ManifestCondition(nil)), rapid.SliceOfN(manifest, 0, 3)).Draw(t, "manifests")
	return s
})

func TestHashStatusIsOCMs(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := status.Draw(rt, "status")
		got, err := codec.HashStatus(s)
		if err != nil {
			rt.Fatal(err)
		}
		if want := slowHash(t, s); got != want {
			rt.Fatalf("hash %s, want %s", got, want)
		}
	})
}

// TestHashStatusKnowsEveryField fails when the work API gains a status field:
// HashStatus lists them by hand.
func TestHashStatusKnowsEveryField(t *testing.T) {
	var s workv1.ManifestWorkStatus
	n := fill(reflect.ValueOf(&s).Elem())
	if n == 0 {
		t.Fatal("nothing was filled in")
	}
	got, err := codec.HashStatus(s)
	if err != nil || got != slowHash(t, s) {
		t.Errorf("the status has a field that HashStatus leaves out: error %v", err)
	}
}

// fill gives every field a value that omitempty does not leave out.
func fill(v reflect.Value) int {
	if at, ok := reflect.TypeAssert[*metav1.Time](v.Addr()); ok {
		*at = metav1.Unix(1770091507, 0)
		return 1
	}
	switch v.Kind() {
	case reflect.Struct:
		n := 0
		for _, field := range v.Fields() {
			n += fill(field)
		}
		return n
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		return fill(v.Index(0))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return fill(v.Elem())
	case reflect.String:
		v.SetString("a")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(1)
	default:
		panic("unknown kind " + v.Kind().String())
	}
	return 1
}

func TestReportStatus(t *testing.T) {
	want := appliedStatus()
	want.ResourceStatus.Manifests[0].StatusFeedbacks.Values = []workv1.FeedbackValue{{
		Name: "replicas", Value: workv1.FieldValue{Type: workv1.Integer, Integer: new(int64(1 << 60))},
	}}
	r := newReport(t, newBundle(t, webTier(3)), want, 1)
	got, err := r.Status()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-reported +read):\n%s", diff)
	}
	if empty := newReport(t, newBundle(t, webTier(3)), workv1.ManifestWorkStatus{}, 1); string(empty.Payload) != "{}" {
		t.Errorf("an empty status has the body %s", empty.Payload)
	}
}

// TestReportOnTheLargestBundle: what an agent adds to metadata that just fits
// does not keep it from reporting.
func TestReportOnTheLargestBundle(t *testing.T) {
	w := webTier(3)
	room := codec.MaxMetadata - len(newBundle(t, w).Metadata) - len(`,"annotations":{"a":""}`)
	w.Annotations = map[string]string{"a": strings.Repeat("x", room)}
	b := newBundle(t, w)
	if len(b.Metadata) != codec.MaxMetadata {
		t.Fatalf("metadata of %d bytes, want the %d that fit", len(b.Metadata), codec.MaxMetadata)
	}
	r := newReport(t, b, appliedStatus(), 1)
	want := `{"name":"web-tier","namespace":"` + cluster + `","uid":"` + workID +
		`","generation":3,"labels":{"cloudevents.open-cluster-management.io/originalsource":"` + source + `"}}`
	if diff := cmp.Diff(want, string(r.Metadata)); diff != "" {
		t.Errorf("metadata of the report (-want +got):\n%s", diff)
	}
}

func TestReportDeleted(t *testing.T) {
	for _, tc := range []struct {
		reason, payload string
		want            bool
	}{
		{"the condition is true", `{"conditions":[{"type":"Applied","status":"True"},{"type":"Deleted","status":"True"}]}`, true},
		{"escaped letters are the same letters", `{"conditions":[{"type":"\u0044eleted","status":"True"}]}`, true},
		{"the condition is false", `{"conditions":[{"type":"Deleted","status":"False"}]}`, false},
		{"there is none", `{"conditions":[{"type":"Applied","status":"True"}]}`, false},
		{"a manifest's condition says nothing of the work", `{"resourceStatus":[{"conditions":[{"type":"Deleted","status":"True"}]}]}`, false},
		{"the word elsewhere", `{"conditions":[{"type":"Applied","status":"True","message":"Deleted","reason":"Deleted"}]}`, false},
		{"an empty status", `{}`, false},
	} {
		got, err := codec.Report{Payload: []byte(tc.payload)}.Deleted()
		if err != nil || got != tc.want {
			t.Errorf("%s: %v, %v", tc.reason, got, err)
		}
	}
	if _, err := (codec.Report{Payload: []byte(`{"conditions":"Deleted"`)}).Deleted(); !errors.Is(err, codec.ErrMalformed) {
		t.Errorf("a body cut short: error %v", err)
	}
}

func TestStatusRefuses(t *testing.T) {
	for payload, reason := range map[string]string{
		"":                                  "nothing",
		`[]`:                                "a list",
		`{"conditions":{}}`:                 "conditions that are no list",
		`{"conditions":[{"type":1}]}`:       "a type that is a number",
		`{"resourceStatus":[{"a":1}`:        "cut short",
		`{"resourceStatus":{"manifests":0}`: "the shape of the API, not of the wire",
		`{"conditions":[{"lastTransitionTime":"` + strings.Repeat("x", 4000) + `"}]}`:             "a time that is none, and long",
		`{"a":` + strings.Repeat("[", codec.MaxDepth) + strings.Repeat("]", codec.MaxDepth) + `}`: "too deep",
	} {
		_, err := codec.Report{ID: "a", Payload: []byte(payload)}.Status()
		if !errors.Is(err, codec.ErrMalformed) {
			t.Errorf("%s: error %v", reason, err)
		}
		if err != nil && len(err.Error()) > 500 {
			t.Errorf("%s: an error of %d bytes", reason, len(err.Error()))
		}
	}
}

func TestNewReportOfBadBundle(t *testing.T) {
	b := newBundle(t, webTier(3))
	b.Metadata = []byte(`{"name":1}`)
	if _, err := codec.NewReport(b, appliedStatus()); !errors.Is(err, codec.ErrMalformed) {
		t.Errorf("error %v", err)
	}
}
