package apply_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
)

func TestMain(m *testing.M) { apitest.Main(m, apitest.Full) }

// patience is for what happens soon on an idle machine.
const patience = time.Minute

var (
	configMaps   = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	services     = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	deployments  = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	appliedWorks = schema.GroupVersionResource{Group: workv1.GroupName, Version: "v1", Resource: "appliedmanifestworks"}
	crds         = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
)

// A cluster is a namespace of the shared API server, with an applier of its own.
type cluster struct {
	*testing.T
	ctx       context.Context
	namespace string
	hub       string
	objects   dynamic.Interface
	applier   *apply.Applier
	wire      *wire
	changed   chan string
	server    *apitest.Server
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	server := apitest.Shared(t)
	objects, err := dynamic.NewForConfig(server.Config())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	c := &cluster{T: t, ctx: ctx, server: server, namespace: server.Namespace(t), objects: objects}
	c.hub = "hub-" + c.namespace
	c.restart(apply.Options{})
	if err := c.applier.InstallCRD(ctx); err != nil {
		t.Fatalf("InstallCRD: %v", err)
	}
	return c
}

// restart makes a new applier, as a new process would. It does not run yet.
func (c *cluster) restart(o apply.Options) {
	c.Helper()
	c.restartWith(c.server.Config(), o)
}

// restartWith is restart with other rights than an administrator's.
func (c *cluster) restartWith(cfg *rest.Config, o apply.Options) {
	c.Helper()
	c.wire = &wire{}
	c.changed = make(chan string, 1000)
	changed := c.changed
	o.HubHash = c.hub
	if o.Cluster == "" {
		o.Cluster = "cluster1"
	}
	if o.AgentID == "" {
		o.AgentID = "agent-" + c.hub
	}
	o.Changed = func(_, id string) {
		select {
		case changed <- id:
		default:
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return c.wire.around(next) })
	applier, err := apply.New(cfg, o)
	if err != nil {
		c.Fatalf("New: %v", err)
	}
	c.applier = applier
}

// run watches until the end of the test, or until the returned function is
// called.
func (c *cluster) run() (stop func()) {
	ctx, cancel := context.WithCancel(c.ctx)
	ended := make(chan struct{})
	applier := c.applier
	go func() {
		defer close(ended)
		if err := applier.Run(ctx); err != nil {
			c.Errorf("Run: %v", err)
		}
	}()
	stop = func() { cancel(); <-ended }
	c.Cleanup(stop)
	return stop
}

// A story is a work and what was last said of it.
type story struct {
	*cluster
	work workv1.ManifestWork
	src  string
	last codec.Report
}

func (c *cluster) newWork(name string, manifests ...any) *story {
	c.Helper()
	s := &story{cluster: c, src: "source-" + c.namespace, work: workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{
		Name: name, Namespace: "cluster1", UID: types.UID(name + "-id"), Labels: map[string]string{"team": "blue"},
	}}}
	s.set(manifests...)
	return s
}

// set gives the work other manifests, and the next generation.
func (s *story) set(manifests ...any) {
	s.Helper()
	s.work.Generation++
	s.work.Spec.Workload.Manifests = nil
	for _, m := range manifests {
		raw, ok := m.(string)
		if !ok {
			b, err := json.Marshal(m)
			if err != nil {
				s.Fatal(err)
			}
			raw = string(b)
		}
		s.work.Spec.Workload.Manifests = append(s.work.Spec.Workload.Manifests,
			workv1.Manifest{RawExtension: runtime.RawExtension{Raw: []byte(raw)}})
	}
}

func (s *story) strategy(u workv1.UpdateStrategy, group, resource string) {
	s.work.Spec.ManifestConfigs = append(s.work.Spec.ManifestConfigs, workv1.ManifestConfigOption{
		ResourceIdentifier: workv1.ResourceIdentifier{Group: group, Resource: resource, Namespace: "*", Name: "*"},
		UpdateStrategy:     &u,
	})
}

func (s *story) bundle() codec.Bundle {
	s.Helper()
	b, err := codec.NewBundle(s.src, &s.work)
	if err != nil {
		s.Fatalf("NewBundle: %v", err)
	}
	return b
}

func (s *story) apply() (workv1.ManifestWorkStatus, error) {
	s.Helper()
	report, err := s.applier.Apply(s.ctx, s.bundle(), s.last)
	return s.told(report), err
}

func (s *story) mustApply() workv1.ManifestWorkStatus {
	s.Helper()
	status, err := s.apply()
	if err != nil {
		s.Fatalf("Apply: %v", err)
	}
	return status
}

func (s *story) observe() workv1.ManifestWorkStatus {
	s.Helper()
	report, err := s.applier.Observe(s.ctx, s.bundle(), s.last)
	if err != nil {
		s.Fatalf("Observe: %v", err)
	}
	return s.told(report)
}

func (s *story) delete() (workv1.ManifestWorkStatus, error) {
	s.Helper()
	s.work.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	report, err := s.applier.Delete(s.ctx, s.bundle(), s.last)
	return s.told(report), err
}

func (s *story) told(report codec.Report) workv1.ManifestWorkStatus {
	s.Helper()
	s.last = report
	status, err := report.Status()
	if err != nil {
		s.Fatalf("Status: %v", err)
	}
	return status
}

func (s *story) appliedName() string { return s.hub + "-" + s.work.Name }

func (s *story) appliedWork() *workv1.AppliedManifestWork {
	s.Helper()
	u := s.get(appliedWorks, "", s.appliedName())
	if u == nil {
		return nil
	}
	var w workv1.AppliedManifestWork
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &w); err != nil {
		s.Fatal(err)
	}
	return &w
}

// inventory lists the names of the objects in the AppliedManifestWork.
func (s *story) inventory() []string {
	s.Helper()
	names := []string{}
	w := s.appliedWork()
	for _, r := range w.Status.AppliedResources {
		names = append(names, r.Resource+"/"+r.Name)
	}
	if text := w.Annotations["work.fleetcast.io/inventory"]; len(names) == 0 && text != "" {
		var noted []struct {
			R string `json:"r"`
			N string `json:"n"`
		}
		if err := json.Unmarshal([]byte(text), &noted); err != nil {
			s.Fatalf("the list of objects in the annotation: %v", err)
		}
		for _, n := range noted {
			names = append(names, n.R+"/"+n.N)
		}
	}
	slices.Sort(names)
	return names
}

func (c *cluster) of(r schema.GroupVersionResource, namespace string) dynamic.ResourceInterface {
	if namespace == "" {
		return c.objects.Resource(r)
	}
	return c.objects.Resource(r).Namespace(namespace)
}

// get returns nil if there is no such object.
func (c *cluster) get(r schema.GroupVersionResource, namespace, name string) *unstructured.Unstructured {
	c.Helper()
	u, err := c.of(r, namespace).Get(c.ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		c.Fatalf("get %s %s: %v", r.Resource, name, err)
	}
	return u
}

func (c *cluster) patch(r schema.GroupVersionResource, namespace, name, patch string) {
	c.Helper()
	_, err := c.of(r, namespace).Patch(c.ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "kubectl"})
	if err != nil {
		c.Fatalf("patch %s %s: %v", r.Resource, name, err)
	}
}

func (c *cluster) remove(r schema.GroupVersionResource, namespace, name string) {
	c.Helper()
	if err := c.of(r, namespace).Delete(c.ctx, name, metav1.DeleteOptions{}); err != nil {
		c.Fatalf("delete %s %s: %v", r.Resource, name, err)
	}
}

// until waits for a condition.
func (c *cluster) until(what string, ok func() bool) {
	c.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			c.Fatalf("in vain waited until %s", what)
		case <-tick.C:
		}
	}
}

// untilTold waits until the applier says that the work changed.
func (c *cluster) untilTold(id string) {
	c.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		select {
		case got := <-c.changed:
			if got == id {
				return
			}
		case <-deadline.C:
			c.Fatalf("work %s was not said to have changed", id)
		}
	}
}

func (c *cluster) configMap(name string, data map[string]string) map[string]any {
	return map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": name, "namespace": c.namespace}, "data": data,
	}
}

func (c *cluster) data(name string) map[string]string {
	c.Helper()
	u := c.get(configMaps, c.namespace, name)
	if u == nil {
		return nil
	}
	data, _, _ := unstructured.NestedStringMap(u.Object, "data")
	return data
}

// condition returns "Status Reason" of a condition of the work.
func condition(status workv1.ManifestWorkStatus, conditionType string) string {
	return short(status.Conditions, conditionType)
}

// manifestCondition returns "Status Reason" of a condition of the manifest.
func manifestCondition(status workv1.ManifestWorkStatus, ordinal int, conditionType string) string {
	if ordinal >= len(status.ResourceStatus.Manifests) {
		return "no such manifest"
	}
	return short(status.ResourceStatus.Manifests[ordinal].Conditions, conditionType)
}

func manifestMessage(status workv1.ManifestWorkStatus, ordinal int) string {
	return meta.FindStatusCondition(status.ResourceStatus.Manifests[ordinal].Conditions, workv1.ManifestApplied).Message
}

func short(conditions []metav1.Condition, conditionType string) string {
	c := meta.FindStatusCondition(conditions, conditionType)
	if c == nil {
		return "none"
	}
	return string(c.Status) + " " + c.Reason
}

const (
	manifestApplied = "True AppliedManifestComplete"
	manifestFailed  = "False AppliedManifestFailed"
	workApplied     = "True AppliedManifestWorkComplete"
	workFailed      = "False AppliedManifestWorkFailed"
)

// A wire records what goes to the API server, and fails or stays silent on
// demand.
type wire struct {
	mu   sync.Mutex
	seen []string
	fail func(*http.Request) bool
	lose func(*http.Request) bool
	mute func(*http.Request) bool
}

var errCut = errors.New("the wire is cut")

func (w *wire) around(next http.RoundTripper) http.RoundTripper {
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		w.mu.Lock()
		if r.URL.Query().Get("watch") != "true" && !strings.HasPrefix(r.URL.RawQuery, "limit=") {
			w.seen = append(w.seen, fmt.Sprintf("%s %s", r.Method, r.URL.Path))
		}
		fail := w.fail != nil && w.fail(r)
		mute := w.mute != nil && w.mute(r)
		lose := w.lose != nil && w.lose(r)
		w.mu.Unlock()
		if mute {
			<-r.Context().Done()
			fail = true
		}
		if fail {
			if r.Body != nil {
				_, _ = io.Copy(io.Discard, r.Body)
			}
			return nil, errCut
		}
		response, err := next.RoundTrip(r)
		if lose && err == nil {
			_ = response.Body.Close()
			return nil, errCut
		}
		return response, err
	})
}

// requests returns what was sent since the last call, watches left out.
func (w *wire) requests() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	w.seen = nil
	return seen
}

func (w *wire) writes() []string {
	return slices.DeleteFunc(w.requests(), func(r string) bool { return strings.HasPrefix(r, http.MethodGet) })
}

func (w *wire) cut(fail func(*http.Request) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail = fail
}

// unanswer lets requests through and loses the answers.
func (w *wire) unanswer(lose func(*http.Request) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lose = lose
}

// silence leaves requests without an answer, until their sender gives up.
func (w *wire) silence(mute func(*http.Request) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mute = mute
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
