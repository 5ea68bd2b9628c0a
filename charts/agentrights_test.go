package charts_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/agents/apply"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
)

// rightsUsed notes which rights were used, and complains of those that lacked.
type rightsUsed struct {
	*testing.T
	next http.RoundTripper

	mu   sync.Mutex
	used map[string]bool // "group resource verb"
}

// RoundTrip implements http.RoundTripper.
func (u *rightsUsed) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := u.next.RoundTrip(r)
	u.mu.Lock()
	defer u.mu.Unlock()
	right := rightOf(r)
	if who := r.Header.Get("Impersonate-User"); who != "" {
		right = " serviceaccounts impersonate"
	}
	u.used[right] = true
	if err == nil && response.StatusCode == http.StatusForbidden {
		u.Errorf("%s %s: %s", r.Method, r.URL, response.Status)
	}
	return response, err
}

// rightOf is what the API server asks of a request.
func rightOf(r *http.Request) string {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	group := ""
	switch {
	case parts[0] == "apis" && len(parts) > 3:
		group, parts = parts[1], parts[3:]
	case parts[0] == "api" && len(parts) > 2:
		parts = parts[2:]
	default:
		return "discovery"
	}
	if parts[0] == "namespaces" && len(parts) > 2 {
		parts = parts[2:]
	}
	resource := parts[0]
	if len(parts) > 2 {
		resource += "/" + parts[2]
	}
	verb := map[string]string{http.MethodPost: "create", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete"}[r.Method]
	switch {
	case verb != "":
	case r.URL.Query().Get("watch") == "true":
		verb = "watch"
	case len(parts) == 1:
		verb = "list"
	default:
		verb = "get"
	}
	return group + " " + resource + " " + verb
}

// TestAgentNeedsItsRights takes an agent with the chart's rights through the life
// of a work with an executor: they suffice, and none is left over.
func TestAgentNeedsItsRights(t *testing.T) {
	server := apitest.Start(t, apitest.Full)
	namespace, teamSpace := server.Namespace(t), server.Namespace(t)
	c, err := client.New(server.Config(), client.Options{Scheme: api.NewScheme()})
	if err != nil {
		t.Fatal(err)
	}
	r := mustRender(t, "agent", namespace, map[string]any{
		"clusterName": "cluster1", "broker": map[string]any{"url": "tls://a"},
		"rbac":     map[string]any{"profile": "none", "watch": []any{map[string]any{"apiGroups": []any{""}, "resources": []any{"configmaps"}}}},
		"executor": map[string]any{"serviceAccounts": map[string]any{teamSpace: []any{"deployer"}}},
	})
	install(t, client.WithFieldValidation(c, metav1.FieldValidationStrict), r)
	_, account := arguments(t, r)
	deployer := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: teamSpace, Name: "deployer"}
	permit(t, c, teamSpace, deployer)

	cfg := asOn(t, server, namespace, account)
	rights := &rightsUsed{T: t, used: map[string]bool{}}
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { rights.next = next; return rights })
	applier, err := apply.New(cfg, apply.Options{HubHash: "hub", Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := applier.InstallCRD(t.Context()); err != nil {
		t.Fatal(err)
	}
	start(t, "applier", applier.Run)

	work := newWork(teamSpace, "web", "v")
	work.Generation = 1
	work.Spec.Executor = &workv1.ManifestWorkExecutor{Subject: workv1.ManifestWorkExecutorSubject{
		Type:           workv1.ExecutorSubjectTypeServiceAccount,
		ServiceAccount: &workv1.ManifestWorkSubjectServiceAccount{Namespace: teamSpace, Name: "deployer"},
	}}
	var last codec.Report
	turn := func(do func(context.Context, codec.Bundle, codec.Report) (codec.Report, error), kind string) {
		t.Helper()
		b, err := codec.NewBundle("hub1", work)
		if err != nil {
			t.Fatal(err)
		}
		if last, err = do(t.Context(), b, last); err != nil {
			t.Fatal(err)
		}
		status, err := last.Status()
		if err != nil || !meta.IsStatusConditionTrue(status.Conditions, kind) {
			t.Fatalf("got error %v and status %+v, want it %s", err, status, kind)
		}
	}
	turn(applier.Apply, workv1.WorkApplied)
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: teamSpace, Name: "web"}, &corev1.ConfigMap{}); err != nil {
		t.Error(err)
	}
	work.Labels, work.Generation = map[string]string{"team": "a"}, 2
	turn(applier.Apply, workv1.WorkApplied)

	// While a work waits for a kind, CRDs are watched.
	waiting := newWork(teamSpace, "waits", "v")
	waiting.Spec.Executor = work.Spec.Executor
	waiting.Spec.Workload.Manifests[0].Raw = fmt.Appendf(nil, `{"apiVersion":"example.com/v1","kind":"Missing","metadata":{"name":"m","namespace":%q}}`, teamSpace)
	b, err := codec.NewBundle("hub1", waiting)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := applier.Apply(t.Context(), b, codec.Report{}); err == nil {
		t.Error("a work of a kind that there is not was applied")
	}

	granted := map[string]bool{}
	for _, u := range r.objects {
		if u.GetKind() != "ClusterRole" && u.GetKind() != "Role" {
			continue
		}
		for _, rule := range rulesOf(t, u) {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					granted[rule.APIGroups[0]+" "+resource+" "+verb] = true
				}
			}
		}
	}
	// A watch may begin with a list, which newer API servers send along with it,
	// and an admission plugin that few clusters have asks for the finalizers.
	delete(granted, "work.open-cluster-management.io appliedmanifestworks/finalizers update")
	for right := range granted {
		if watch, ok := strings.CutSuffix(right, " list"); ok && granted[watch+" watch"] {
			delete(granted, right)
		}
	}
	eventually(t, "all watches are open", func() error { return rights.lacks(granted, " watch") })
	work.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	turn(applier.Delete, api.ConditionDeleted)
	if err := rights.lacks(granted, ""); err != nil {
		t.Error(err)
	}
}

// unusedError lists rights that were granted and not used.
type unusedError []string

func (u unusedError) Error() string { return "granted and not used: " + strings.Join(u, "; ") }

func (u *rightsUsed) lacks(granted map[string]bool, suffix string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var unused unusedError
	for _, right := range slices.Sorted(maps.Keys(granted)) {
		if strings.HasSuffix(right, suffix) && !u.used[right] {
			unused = append(unused, right)
		}
	}
	if len(unused) > 0 {
		return unused
	}
	return nil
}
