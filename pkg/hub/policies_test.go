package hub_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
)

// TestPoliciesComeAndGo: they are there while a hub is to install them, with its
// settings, and a hub that is not removes what a hub installed and nothing else.
func TestPoliciesComeAndGo(t *testing.T) {
	server := apitest.Start(t, apitest.Hub)
	c := config(server, mem.NewBroker(mem.Options{}))
	c.InstallPolicies = true
	c.ManifestLimit = 100
	clients, err := kubernetes.NewForConfig(server.Config())
	if err != nil {
		t.Fatal(err)
	}
	policies := clients.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	limit := func() (string, error) {
		p, err := policies.Get(t.Context(), "manifestworks.work.fleetcast.io", metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		return p.Spec.Variables[0].Expression, nil
	}
	first := start(t, c)
	eventually(t, "the hub is ready", func() error { return first.ready(t) })
	if got, err := limit(); err != nil || got != "100" {
		t.Errorf("limit %s in the policy, want 100: %v", got, err)
	}
	direct, err := client.New(server.Config(), client.Options{Scheme: api.NewScheme()})
	if err != nil {
		t.Fatal(err)
	}
	cluster := server.Namespace(t)
	empty := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Namespace: cluster, Name: "empty"}}
	eventually(t, "works are refused", func() error {
		err := direct.Create(t.Context(), empty.DeepCopy(), client.DryRunAll)
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "no manifests") {
			return fmt.Errorf("a work without manifests: %w", err)
		}
		return nil
	})
	// The hub's own writes are not in the way of its policies.
	good := newWork(cluster, "web")
	if err := direct.Create(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the hub writes to a work", func() error {
		if err := direct.Get(t.Context(), client.ObjectKeyFromObject(good), good); err != nil || len(good.Finalizers) > 0 {
			return err
		}
		return errors.New("it has no finalizer")
	})
	first.stop()
	<-first.done

	foreign, err := policies.Get(t.Context(), "manifestworks.work.fleetcast.io", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	foreign.ObjectMeta = metav1.ObjectMeta{Name: "foreign", Labels: map[string]string{"app.kubernetes.io/managed-by": "Helm"}}
	if _, err := policies.Create(t.Context(), foreign, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.ManifestLimit = 0
	second := start(t, c)
	eventually(t, "the next start has its settings", func() error {
		if got, err := limit(); err != nil || got != "0" {
			return errors.Join(err, fmt.Errorf("limit %s", got))
		}
		return nil
	})
	second.stop()
	<-second.done

	c.InstallPolicies = false
	start(t, c)
	eventually(t, "the hub's are gone", func() error {
		bindings, err := clients.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		all, err := policies.List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		if len(bindings.Items) != 0 || len(all.Items) != 1 || all.Items[0].Name != "foreign" {
			return fmt.Errorf("%d bindings and %d policies", len(bindings.Items), len(all.Items))
		}
		return nil
	})
}

// TestPoliciesThatCannotBeInstalled: the hub says so, is not ready, and dispatches
// works none the less.
func TestPoliciesThatCannotBeInstalled(t *testing.T) {
	server := apitest.Shared(t)
	b := mem.NewBroker(mem.Options{})
	c := config(server, b)
	c.InstallPolicies = true
	c.RESTConfig.Wrap(forbid("/validatingadmissionpolicies/"))
	r := start(t, c)
	cluster := server.Namespace(t)
	works := listen(t, b, cluster)
	direct, err := client.New(server.Config(), client.Options{Scheme: api.NewScheme()})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the CRDs are there", func() error { return direct.Create(t.Context(), newWork(cluster, "web")) })
	<-works
	eventually(t, "it says so", func() error {
		if err := r.ready(t); err == nil || !strings.Contains(err.Error(), "[-]policies") {
			return fmt.Errorf("readyz: %w", err)
		}
		return nil
	})
	if n := strings.Count(r.log.String(), "admission policies of ManifestWorks are not installed"); n != 1 {
		t.Errorf("it is told %d times, want once:\n%s", n, r.log)
	}
}

// forbid has the API server refuse what is at a path.
func forbid(path string) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if !strings.Contains(r.URL.Path, path) {
				return next.RoundTrip(r)
			}
			const body = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"not allowed"}`
			return &http.Response{
				StatusCode: http.StatusForbidden, Header: http.Header{"Content-Type": []string{"application/json"}},
				Body: io.NopCloser(strings.NewReader(body)), Request: r,
			}, nil
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
