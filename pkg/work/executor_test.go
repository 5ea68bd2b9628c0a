package work_test

import (
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/pkg/work"
)

const (
	deployer = "system:serviceaccount:apps:deployer"
	own      = "system:serviceaccount::klusterlet-work-sa"
)

func executor(namespace, name string) *workv1.ManifestWorkExecutor {
	return &workv1.ManifestWorkExecutor{Subject: workv1.ManifestWorkExecutorSubject{
		Type: workv1.ExecutorSubjectTypeServiceAccount, ServiceAccount: &workv1.ManifestWorkSubjectServiceAccount{Namespace: namespace, Name: name},
	}}
}

// as is a client of a user who may write works and sets in all namespaces, and in
// this one have works executed as these.
func (h *hub) as(user, namespace string, executors ...string) client.Client {
	h.t.Helper()
	h.grant(user, "", rbacv1.PolicyRule{
		APIGroups: []string{workv1.GroupName}, Resources: []string{"manifestworks", "manifestworkreplicasets"},
		Verbs: []string{"get", "list", "create", "update"},
	})
	if len(executors) > 0 {
		h.grant(user, namespace, executing(executors...))
	}
	cfg := rest.CopyConfig(h.config)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: user}
	c, err := client.New(cfg, client.Options{Scheme: h.Scheme()})
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

func executing(names ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{workv1.GroupName}, Resources: []string{"manifestworks"}, ResourceNames: names, Verbs: []string{"execute-as"}}
}

// grant gives a user rights in a namespace, or everywhere.
func (h *hub) grant(user, namespace string, rule rbacv1.PolicyRule) {
	h.t.Helper()
	subjects := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}}
	meta := metav1.ObjectMeta{GenerateName: "test-", Namespace: namespace}
	if namespace == "" {
		role := &rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{rule}}
		h.make(role)
		h.make(&rbacv1.ClusterRoleBinding{ObjectMeta: meta, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name}})
		return
	}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{rule}}
	h.make(role)
	h.make(&rbacv1.RoleBinding{ObjectMeta: meta, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name}})
}

func (h *hub) make(o client.Object) {
	h.t.Helper()
	if err := h.Create(h.t.Context(), o); err != nil {
		h.t.Fatal(err)
	}
}

// settled waits until the API server knows the rights of a user.
func (h *hub) settled(c client.Client, o client.Object) {
	h.t.Helper()
	h.eventually("the rights are known", func() error { return c.Create(h.t.Context(), o, client.DryRunAll) })
}

// TestConformanceExecutor has the row "executor webhook".
func TestConformanceExecutor(t *testing.T) {
	h := newHub(t)
	h.install(work.PolicySettings{})
	namespace, other := apitest.Shared(t).Namespace(t), apitest.Shared(t).Namespace(t)
	t.Run("executor_webhook", func(t *testing.T) {
		alice, bob := h.as("alice", namespace, deployer), h.as("bob", "")
		asked := func(namespace, name string) *workv1.ManifestWork {
			w := workOf(namespace, name, configMap("a", ""))
			w.Spec.Executor = executor("apps", "deployer")
			return w
		}
		h.settled(alice, asked(namespace, "probe"))
		h.settled(bob, workOf(namespace, "probe", configMap("a", "")))

		verdict(t, "bob has no such right", bob.Create(t.Context(), asked(namespace, "w")), "bob may not have works executed as "+deployer, apierrors.IsForbidden)
		verdict(t, "alice has it in the other namespace only", alice.Create(t.Context(), asked(other, "w")), "alice may not", apierrors.IsForbidden)
		w := asked(namespace, "w")
		w.Spec.Executor = executor("apps", "another")
		verdict(t, "and for the other account only", alice.Create(t.Context(), w), "alice may not have works executed as system:serviceaccount:apps:another", apierrors.IsForbidden)
		w = asked(namespace, "w")
		verdict(t, "this one alice may", alice.Create(t.Context(), w), "", nil)

		w.Spec.Workload.Manifests = raw([]string{configMap("b", "")})
		verdict(t, "the executor stays as it was", bob.Update(t.Context(), w), "", nil)
		w.Spec.Executor = executor("apps", "another")
		verdict(t, "it is another", bob.Update(t.Context(), w), "bob may not", apierrors.IsForbidden)
		w.Spec.Executor = nil
		verdict(t, "without one OCM asks nobody", bob.Update(t.Context(), w), "", nil)
		w.Spec.Executor = executor("apps", "deployer")
		verdict(t, "it is there again", bob.Update(t.Context(), w), "bob may not", apierrors.IsForbidden)
		verdict(t, "and alice may", alice.Update(t.Context(), w), "", nil)

		w = asked(namespace, "half")
		w.Spec.Executor.Subject.ServiceAccount = nil
		verdict(t, "a kind of account, and not which", alice.Create(t.Context(), w), "names no service account", apierrors.IsInvalid)
	})
	t.Run("replica_sets", func(t *testing.T) {
		carol, dora := h.as("carol", namespace, deployer), h.as("dora", "", deployer)
		set := setOf(namespace, "s", configMap("a", ""))
		h.settled(carol, set.DeepCopy())
		set.Spec.ManifestWorkTemplate.Executor = executor("apps", "deployer")
		h.settled(dora, set.DeepCopy())
		verdict(t, "its works come to any namespace", carol.Create(t.Context(), set.DeepCopy(), client.DryRunAll), "in all namespaces", apierrors.IsForbidden)
	})
}

// TestNilExecutorValidating is OCM's feature gate of this name.
func TestNilExecutorValidating(t *testing.T) {
	h := newHub(t)
	h.install(work.PolicySettings{NilExecutorValidating: true})
	namespace := apitest.Shared(t).Namespace(t)
	alice, bob := h.as("alice-nil", namespace, own, deployer), h.as("bob-nil", namespace, deployer)
	w := workOf(namespace, "w", configMap("a", ""))
	asked := w.DeepCopy()
	asked.Spec.Executor = executor("apps", "deployer")
	h.settled(alice, w.DeepCopy())
	h.settled(bob, asked.DeepCopy())
	verdict(t, "it would run as the agent", bob.Create(t.Context(), w.DeepCopy()), "bob-nil may not have works executed as "+own, apierrors.IsForbidden)
	verdict(t, "this one would not", bob.Create(t.Context(), asked), "", nil)
	asked.Spec.Executor = nil
	verdict(t, "and must not become one that does", bob.Update(t.Context(), asked), "bob-nil may not", apierrors.IsForbidden)
	w.Name = "of-the-agent"
	verdict(t, "alice has this right", alice.Create(t.Context(), w), "", nil)
	w.Spec.Workload.Manifests = raw([]string{configMap("b", "")})
	verdict(t, "what stays as it was is not asked for", bob.Update(t.Context(), w), "", nil)
}
