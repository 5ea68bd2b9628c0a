package codec_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

var update = flag.Bool("update", false, "rewrite the golden files of this project's own events")

const (
	source  = "hub-alpha"
	cluster = "edge-007"
	agent   = "edge-007-work-agent"
	workID  = "d413c17e-d14b-567d-87b3-5cc5ff557269"
)

// A golden is an event as it is on the wire of MQTT.
type golden struct {
	ContentType string            `json:"contentType,omitempty"`
	Properties  map[string]string `json:"userProperties"`
	Payload     json.RawMessage   `json:"payload,omitempty"`
}

func readGolden(t testing.TB, path string) golden {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(path))
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return g
}

func (g golden) event(t testing.TB) event.Event {
	t.Helper()
	e, err := event.FromProperties(g.ContentType, maps.All(g.Properties), g.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func goldenOf(e event.Event) golden {
	g := golden{Properties: map[string]string{}, Payload: e.Data}
	for name, value := range e.All() {
		if name == event.DataContentType {
			g.ContentType = value
		} else {
			g.Properties["ce-"+name] = value
		}
	}
	return g
}

// timeless makes goldens comparable: id and time differ by nature, JSON by its
// white space.
func (g golden) timeless(t testing.TB) golden {
	t.Helper()
	g.Properties = maps.Clone(g.Properties)
	if len(g.Properties["ce-id"]) == 36 {
		g.Properties["ce-id"] = "00000000-0000-4000-8000-000000000000"
	} else {
		g.Properties["ce-id"] = "AAAAAAAAAAA"
	}
	if _, ok := g.Properties["ce-time"]; ok {
		g.Properties["ce-time"] = "2026-02-03T04:05:06Z"
	}
	if len(g.Payload) > 0 {
		var compact bytes.Buffer
		if err := json.Compact(&compact, g.Payload); err != nil {
			t.Fatal(err)
		}
		g.Payload = compact.Bytes()
	}
	return g
}

// webTier is the work that OCM's codecs were given for the golden events.
func webTier(generation int64) *workv1.ManifestWork {
	return &workv1.ManifestWork{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web-tier", Namespace: cluster, UID: workID, ResourceVersion: "77", Generation: generation,
		},
		Spec: workv1.ManifestWorkSpec{
			Workload: workv1.ManifestsTemplate{Manifests: []workv1.Manifest{{RawExtension: runtime.RawExtension{Raw: []byte(
				`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"settings","namespace":"web"},"data":{"mode":"blue"}}`,
			)}}}},
			DeleteOption: &workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeForeground},
			ManifestConfigs: []workv1.ManifestConfigOption{{
				ResourceIdentifier: workv1.ResourceIdentifier{Resource: "configmaps", Name: "settings", Namespace: "web"},
				UpdateStrategy: &workv1.UpdateStrategy{
					Type:            workv1.UpdateStrategyTypeServerSideApply,
					ServerSideApply: &workv1.ServerSideApplyConfig{Force: true, FieldManager: "work-agent-demo"},
				},
			}},
		},
	}
}

func deletedWebTier() *workv1.ManifestWork {
	w := webTier(4)
	w.DeletionTimestamp = &metav1.Time{Time: time.Date(2026, 2, 3, 4, 9, 30, 0, time.UTC)}
	return w
}

func appliedStatus() workv1.ManifestWorkStatus {
	applied := []metav1.Condition{{
		Type: workv1.WorkApplied, Status: metav1.ConditionTrue, ObservedGeneration: 3,
		LastTransitionTime: metav1.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC),
		Reason:             "AppliedManifestComplete", Message: "Apply manifest complete",
	}}
	return workv1.ManifestWorkStatus{
		Conditions: applied,
		ResourceStatus: workv1.ManifestResourceStatus{Manifests: []workv1.ManifestCondition{{
			ResourceMeta: workv1.ManifestResourceMeta{
				Version: "v1", Kind: "ConfigMap", Resource: "configmaps", Name: "settings", Namespace: "web",
			},
			Conditions: applied,
		}}},
	}
}

func deletedStatus() workv1.ManifestWorkStatus {
	return workv1.ManifestWorkStatus{Conditions: []metav1.Condition{{
		Type: "Deleted", Status: metav1.ConditionTrue,
		LastTransitionTime: metav1.Date(2026, 2, 3, 4, 9, 30, 0, time.UTC),
		Reason:             "ManifestsDeleted", Message: "The manifests are deleted from the cluster edge-007",
	}}}
}

func newBundle(t testing.TB, w *workv1.ManifestWork) codec.Bundle {
	t.Helper()
	b, err := codec.NewBundle(source, w)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newReport(t testing.TB, b codec.Bundle, status workv1.ManifestWorkStatus, s codec.Sequence) codec.Report {
	t.Helper()
	r, err := codec.NewReport(b, status)
	if err != nil {
		t.Fatal(err)
	}
	r.Agent, r.Sequence = agent, s
	return r
}

// TestOCMGolden holds this package against what OCM's own codecs wrote for the
// same objects: both must write the same, and what they wrote must read as the
// same message.
func TestOCMGolden(t *testing.T) {
	for file, tc := range map[string]struct {
		reason  string
		action  codec.Action
		message codec.Message
	}{
		"spec-create": {
			reason: "a work is written attribute by attribute as OCM's sources do",
			action: codec.Create, message: newBundle(t, webTier(3)),
		},
		"spec-delete": {
			reason: "a deletion keeps its metadata and has no body",
			action: codec.Delete, message: newBundle(t, deletedWebTier()),
		},
		"status-update": {
			reason: "a report is flattened, and hashed as it was",
			action: codec.Update, message: newReport(t, newBundle(t, webTier(3)), appliedStatus(), 2123830931272765440),
		},
		"status-deleted": {
			reason: "a confirmed deletion is a report like any other",
			action: codec.Update, message: newReport(t, newBundle(t, webTier(4)), deletedStatus(), 2123830931272765441),
		},
	} {
		t.Run(file, func(t *testing.T) {
			want := readGolden(t, "testdata/ocm/"+file+".json")
			e, err := tc.message.Encode(tc.action)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want.timeless(t), goldenOf(e).timeless(t)); diff != "" {
				t.Errorf("%s: written (-OCM +this):\n%s", tc.reason, diff)
			}
			action, m, err := codec.Decode(want.event(t))
			if err != nil {
				t.Fatal(err)
			}
			// The file is indented, the message is not.
			switch got := m.(type) {
			case codec.Bundle:
				got.Payload = compact(t, got.Payload)
				m = got
			case codec.Report:
				got.Payload = compact(t, got.Payload)
				m = got
			}
			if action != tc.action {
				t.Errorf("read action %q, want %q", action, tc.action)
			}
			if diff := cmp.Diff(tc.message, m); diff != "" {
				t.Errorf("%s: read (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func compact(t testing.TB, text []byte) []byte {
	t.Helper()
	if len(text) == 0 {
		return nil
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestGolden pins what this project writes, messages that OCM's golden files
// do not have among them. Run with -update after an intended change, and read
// the difference as the peers will.
func TestGolden(t *testing.T) {
	traced := webTier(3)
	traced.Annotations = map[string]string{
		"logging.open-cluster-management.io/op-id": "rollout-81",
		"team": "edge",
	}
	traced.Spec.Executor = &workv1.ManifestWorkExecutor{Subject: workv1.ManifestWorkExecutorSubject{
		Type:           workv1.ExecutorSubjectTypeServiceAccount,
		ServiceAccount: &workv1.ManifestWorkSubjectServiceAccount{Namespace: "apps", Name: "deployer"},
	}}
	tombstone := codec.Bundle{
		ID: "71913eda-1478-4abc-a625-69b6114a2f52", Source: source, Cluster: cluster, Generation: 1,
		DeletedAt: time.Date(2026, 2, 3, 5, 0, 0, 400e6, time.UTC),
	}
	for file, tc := range map[string]struct {
		action  codec.Action
		message codec.Message
	}{
		"bundle":           {codec.Update, newBundle(t, traced)},
		"bundle-deleted":   {codec.Delete, newBundle(t, deletedWebTier())},
		"bundle-tombstone": {codec.ResyncResponse, tombstone},
		"report":           {codec.Update, newReport(t, newBundle(t, traced), appliedStatus(), 2018536199680954368)},
		"report-deleted":   {codec.ResyncResponse, newReport(t, newBundle(t, deletedWebTier()), deletedStatus(), 2018537347955560448)},
		"spec-resync": {codec.ResyncRequest, codec.SpecResync{
			Agent: agent, Cluster: cluster,
			Versions: []codec.Version{{ID: workID, Generation: 3}, {ID: tombstone.ID, Generation: 1}},
		}},
		"spec-resync-empty": {codec.ResyncRequest, codec.SpecResync{Agent: agent, Source: source, Cluster: cluster}},
		"status-resync": {codec.ResyncRequest, codec.StatusResync{
			Source: source, Cluster: cluster,
			Hashes: []codec.StatusHash{{ID: workID, Hash: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}},
		}},
		"status-resync-all": {codec.ResyncRequest, codec.StatusResync{Source: source}},
	} {
		t.Run(file, func(t *testing.T) { compareGolden(t, file, tc.message, tc.action) })
	}
}

// compareGolden holds what a message is written as against the file of this
// name, which it writes under -update.
func compareGolden(t *testing.T, file string, m codec.Message, a codec.Action) {
	t.Helper()
	e, err := m.Encode(a)
	if err != nil {
		t.Fatal(err)
	}
	got := goldenOf(e).timeless(t)
	path := "testdata/" + file + ".json"
	if *update {
		text, err := json.MarshalIndent(got, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.FromSlash(path), append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(readGolden(t, path).timeless(t), got); diff != "" {
		t.Errorf("written (-golden +got):\n%s", diff)
	}
}

func TestAttributeOrder(t *testing.T) {
	names := func(m codec.Message, a codec.Action) string {
		e, err := m.Encode(a)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for name := range e.All() {
			all = append(all, name)
		}
		return strings.Join(all, " ")
	}
	b := newBundle(t, deletedWebTier())
	for _, tc := range []struct{ reason, got, want string }{
		{
			"a deletion without a body has no content type", names(b, codec.Delete),
			"specversion id source type time clustername originalsource resourceid resourceversion deletiontimestamp metadata logtracing",
		},
		{
			"a report has every attribute there is but the deletion timestamp",
			names(newReport(t, b, deletedStatus(), 1), codec.Update),
			"specversion id source type time datacontenttype clustername originalsource resourceid resourceversion metadata statushash sequenceid logtracing",
		},
		{
			"a question has no object", names(codec.StatusResync{Source: source}, codec.ResyncRequest),
			"specversion id source type time datacontenttype clustername originalsource",
		},
	} {
		if tc.got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.reason, tc.got, tc.want)
		}
	}
}
