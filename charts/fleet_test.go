package charts_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/agent"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
	"github.com/fleetcast-io/fleetcast/pkg/flags"
	"github.com/fleetcast-io/fleetcast/pkg/hub"
)

const patience = 2 * time.Minute

// arguments are those of the only container that a chart starts.
func arguments(t *testing.T, r *release) (args []string, serviceAccount string) {
	t.Helper()
	for _, u := range r.objects {
		if template := podTemplate(t, u); template != nil {
			return template.Spec.Containers[0].Args, template.Spec.ServiceAccountName
		}
	}
	t.Fatal("no workload")
	return nil, ""
}

// as returns a configuration with the rights of a service account and no other.
func as(t *testing.T, namespace, serviceAccount string) *rest.Config {
	t.Helper()
	return asOn(t, apitest.Shared(t), namespace, serviceAccount)
}

// asOn is as on another API server than that of the package.
func asOn(t *testing.T, server *apitest.Server, namespace, serviceAccount string) *rest.Config {
	t.Helper()
	admin := server.Config()
	clients, err := kubernetes.NewForConfig(admin)
	if err != nil {
		t.Fatal(err)
	}
	token, err := clients.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), serviceAccount, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := rest.AnonymousClientConfig(admin)
	cfg.BearerToken = token.Status.Token
	return cfg
}

// start runs a program until the end of the test.
func start(t *testing.T, name string, run func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s ended with: %v", name, err)
		}
	})
}

func eventually(t *testing.T, what string, holds func() error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		last = holds()
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: not within %s: %v", what, patience, last)
	}
}

func withFiles(c brokers.Config, dir string) brokers.Config {
	c.CAFile, c.CertFile, c.KeyFile = filepath.Join(dir, "ca.crt"), filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	return c
}

// TestFleet runs hub and agent with the arguments and the rights that their
// charts give them, over a broker with the configuration of its chart.
func TestFleet(t *testing.T) {
	namespace, cluster := restricted(t), apitest.Shared(t).Namespace(t)
	c, err := client.New(apitest.Shared(t).Config(), client.Options{Scheme: api.NewScheme()})
	if err != nil {
		t.Fatal(err)
	}
	a := newAuthority(t)
	url := startBroker(t, a, map[string]any{
		"tls": map[string]any{"existingSecret": "broker-tls"}, "clusters": []any{cluster},
		"config": map[string]any{"maxPayload": "64KB"},
	})
	broker := map[string]any{
		"url": url, "ca": map[string]any{"existingSecret": "tls"}, "clientCertificate": map[string]any{"existingSecret": "tls"},
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))

	r := mustRender(t, "hub", namespace, map[string]any{"broker": broker})
	install(t, newClient(t), r)
	fs := pflag.NewFlagSet("hub", pflag.ContinueOnError)
	hubConfig := hub.Flags(fs)
	args, account := arguments(t, r)
	if err := flags.Parse(fs, args); err != nil {
		t.Fatal(err)
	}
	hubConfig.RESTConfig, hubConfig.Log = as(t, namespace, account), log
	hubConfig.Broker.Config = withFiles(hubConfig.Broker.Config, a.issue(t, "source-hub1"))
	hubConfig.MetricsBindAddress, hubConfig.HealthProbeBindAddress = "127.0.0.1:0", "127.0.0.1:0"
	start(t, "hub", func(ctx context.Context) error { return hub.Run(ctx, *hubConfig) })

	r = mustRender(t, "agent", namespace, map[string]any{
		"clusterName": cluster, "broker": broker, "rbac": map[string]any{"profile": "none"},
	})
	install(t, newClient(t), r)
	fs = pflag.NewFlagSet("agent", pflag.ContinueOnError)
	agentConfig := agent.Flags(fs)
	args, account = arguments(t, r)
	if err := flags.Parse(fs, args); err != nil {
		t.Fatal(err)
	}
	agentConfig.RESTConfig, agentConfig.Log = as(t, namespace, account), log
	agentConfig.Broker.Config = withFiles(agentConfig.Broker.Config, a.issue(t, cluster))
	agentConfig.MetricsBindAddress, agentConfig.DataDir = "127.0.0.1:0", t.TempDir()
	start(t, "agent", func(ctx context.Context) error { return agent.Run(ctx, *agentConfig) })

	work := newWork(cluster, "web", "v")
	eventually(t, "create a work", func() error { return c.Create(t.Context(), work) })
	eventually(t, "profile none lets works do nothing", func() error {
		return condition(t, c, work, workv1.WorkApplied, metav1.ConditionFalse, "forbidden")
	})
	permit(t, c, cluster, rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account})
	eventually(t, "the work is applied when its rights are there", func() error {
		return condition(t, c, work, workv1.WorkApplied, metav1.ConditionTrue, "")
	})

	eventually(t, "the agent is recorded as online and in sync", func() error {
		var a v1alpha1.Agent
		if err := c.Get(t.Context(), client.ObjectKey{Namespace: cluster, Name: hubConfig.SourceID}, &a); err != nil {
			return err
		}
		for _, kind := range []string{api.ConditionOnline, api.ConditionInSync} {
			if !meta.IsStatusConditionTrue(a.Status.Conditions, kind) {
				return fmt.Errorf("status %+v", a.Status)
			}
		}
		return nil
	})

	// Of random letters, which no compression makes small enough.
	var letters strings.Builder
	for letters.Len() < 200<<10 {
		letters.WriteString(rand.Text())
	}
	large := newWork(cluster, "large", letters.String())
	if err := c.Create(t.Context(), large); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a work beyond the broker's limit is told of", func() error {
		if err := condition(t, c, large, api.ConditionDispatched, metav1.ConditionFalse, ""); err != nil {
			return err
		}
		var events corev1.EventList
		if err := c.List(t.Context(), &events, client.InNamespace(cluster)); err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.InvolvedObject.Name == large.Name {
				return nil
			}
		}
		return errors.New("no event")
	})

	eventually(t, "the policies are enforced", func() error {
		empty := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Namespace: cluster, Name: "empty"}}
		if err := c.Create(t.Context(), empty, client.DryRunAll); !apierrors.IsInvalid(err) {
			return fmt.Errorf("a work without manifests: %w", err)
		}
		return nil
	})
	if err := c.Delete(t.Context(), large); err != nil {
		t.Fatal(err)
	}
	// The hub itself deletes the other when it is finished.
	eventually(t, "say when the work is finished", func() error {
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(work), work); err != nil {
			return err
		}
		work.Spec.DeleteOption = &workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeForeground, TTLSecondsAfterFinished: new(int64(0))}
		work.Spec.ManifestConfigs = []workv1.ManifestConfigOption{{
			ResourceIdentifier: workv1.ResourceIdentifier{Resource: "configmaps", Namespace: cluster, Name: "web"},
			ConditionRules: []workv1.ConditionRule{{
				Type: workv1.CelConditionExpressionsType, Condition: workv1.WorkComplete, CelExpressions: []string{"object.data.k == 'v'"},
			}},
		}}
		return c.Update(t.Context(), work)
	})
	eventually(t, "the works are gone", func() error {
		for _, w := range []*workv1.ManifestWork{work, large} {
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(w), w); !apierrors.IsNotFound(err) {
				return fmt.Errorf("%s: %w", w.Name, errors.Join(errors.New("still there"), err))
			}
		}
		return nil
	})
	configMap := &corev1.ConfigMap{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: cluster, Name: "web"}, configMap); !apierrors.IsNotFound(err) {
		t.Errorf("the deleted work's config map: got %v, want it gone", err)
	}
}

func newWork(cluster, name, value string) *workv1.ManifestWork {
	raw := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q,"namespace":%q},"data":{"k":%q}}`, name, cluster, value)
	return &workv1.ManifestWork{
		ObjectMeta: metav1.ObjectMeta{Namespace: cluster, Name: name},
		Spec: workv1.ManifestWorkSpec{Workload: workv1.ManifestsTemplate{
			Manifests: []workv1.Manifest{{RawExtension: runtime.RawExtension{Raw: []byte(raw)}}},
		}},
	}
}

// condition is an error unless the work has the condition, with a word in it
// or in one of its manifests'.
func condition(t *testing.T, c client.Client, w *workv1.ManifestWork, kind string, status metav1.ConditionStatus, word string) error {
	t.Helper()
	live := &workv1.ManifestWork{}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(w), live); err != nil {
		return err
	}
	if !meta.IsStatusConditionPresentAndEqual(live.Status.Conditions, kind, status) || !strings.Contains(fmt.Sprint(live.Status), word) {
		return fmt.Errorf("status %+v", live.Status)
	}
	return nil
}

// permit gives a service account the rights to config maps that docs/install.md
// asks a cluster's administrator to give.
func permit(t *testing.T, c client.Client, namespace string, who rbacv1.Subject) {
	t.Helper()
	name := metav1.ObjectMeta{Namespace: namespace, Name: "works"}
	for _, o := range []client.Object{
		&rbacv1.Role{ObjectMeta: name, Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{""}, Resources: []string{"configmaps"},
			Verbs: []string{"get", "list", "watch", "create", "update", "patch", "delete"},
		}}},
		&rbacv1.RoleBinding{
			ObjectMeta: name, Subjects: []rbacv1.Subject{who},
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name.Name},
		},
	} {
		if err := c.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
}
