package work_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	workv1 "open-cluster-management.io/api/work/v1"
	workv1alpha1 "open-cluster-management.io/api/work/v1alpha1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/pkg/api/crds"
	"github.com/fleetcast-io/fleetcast/pkg/work"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	apitest.Main(m, apitest.Hub)
}

// A hub is an API server with the CRDs of works, and an administrator's client.
type hub struct {
	client.Client

	t      *testing.T
	config *rest.Config
}

// newHub prepares the server of this package's tests, which has no policies.
func newHub(t *testing.T) *hub {
	t.Helper()
	cfg := apitest.Shared(t).Config()
	scheme := api.NewScheme()
	if err := admissionv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	h := &hub{Client: c, t: t, config: cfg}
	for _, crd := range crds.Hub() {
		if crd.Spec.Group != workv1.GroupName {
			continue
		}
		if err := c.Create(t.Context(), crd); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
		h.eventually("CRD "+crd.Name+" is served", func() error {
			have := &apiextensionsv1.CustomResourceDefinition{}
			if err := c.Get(t.Context(), client.ObjectKey{Name: crd.Name}, have); err != nil {
				return err
			}
			for _, condition := range have.Status.Conditions {
				if condition.Type == apiextensionsv1.Established && condition.Status == apiextensionsv1.ConditionTrue {
					return nil
				}
			}
			return errors.New("not established")
		})
	}
	return h
}

func (h *hub) eventually(what string, holds func() error) {
	h.t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(context.WithoutCancel(h.t.Context()), 20*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		last = holds()
		return last == nil, nil
	})
	if err != nil {
		h.t.Fatalf("%s: not within %s: %v", what, patience, last)
	}
}

// install has the server enforce the policies until the end of the test.
func (h *hub) install(s work.PolicySettings) {
	h.t.Helper()
	namespace := apitest.Shared(h.t).Namespace(h.t)
	h.t.Cleanup(func() {
		h.eventually("the policies are gone", func() error { return h.enforced(namespace, false) })
	})
	policies, bindings := work.Policies(s)
	objects := make([]client.Object, 0, len(policies)+len(bindings))
	for i := range policies {
		objects = append(objects, policies[i], bindings[i])
	}
	for _, o := range objects {
		if err := h.Create(h.t.Context(), o); err != nil {
			h.t.Fatalf("install %s: %v", o.GetName(), err)
		}
		h.t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := h.Delete(ctx, o); err != nil {
				h.t.Errorf("remove %s: %v", o.GetName(), err)
			}
		})
	}
	// An API server takes a moment to hear of its policies, of each by itself.
	h.eventually("the policies are enforced", func() error { return h.enforced(namespace, true) })
}

// enforced fails if the policies of works and of sets are not both there, or both
// gone.
func (h *hub) enforced(namespace string, want bool) error {
	for _, o := range []client.Object{workOf(namespace, "probe"), setOf(namespace, "probe")} {
		err := h.Create(context.WithoutCancel(h.t.Context()), o, client.DryRunAll)
		if refused := err != nil && strings.Contains(err.Error(), "no manifests"); refused != want || err != nil && !refused {
			return fmt.Errorf("%T without manifests: %w", o, err)
		}
	}
	return nil
}

// workOf is a work with these manifests.
func workOf(namespace, name string, manifests ...string) *workv1.ManifestWork {
	w := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	w.Spec.Workload.Manifests = raw(manifests)
	return w
}

func raw(manifests []string) []workv1.Manifest {
	all := make([]workv1.Manifest, 0, len(manifests))
	for _, m := range manifests {
		all = append(all, workv1.Manifest{RawExtension: runtime.RawExtension{Raw: []byte(m)}})
	}
	return all
}

func setOf(namespace, name string, manifests ...string) *workv1alpha1.ManifestWorkReplicaSet {
	set := &workv1alpha1.ManifestWorkReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	set.Spec.ManifestWorkTemplate.Workload.Manifests = raw(manifests)
	set.Spec.PlacementRefs = []workv1alpha1.LocalPlacementReference{{Name: "all"}}
	return set
}

// configMap is a manifest with a name and a text.
func configMap(name, text string) string {
	data, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q,"namespace":"default"},"data":{"text":%s}}`, name, data)
}
