package executor_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/fleetcast-io/fleetcast/agents/executor"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
)

func TestMain(m *testing.M) { apitest.Main(m, apitest.Hub) }

const patience = time.Minute

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

func TestSubjects(t *testing.T) {
	for _, tc := range []struct{ reason, text, err string }{
		{"a service account", "team-a/deployer", ""},
		{"its name may have dots", "team-a/deployer.v1", ""},
		{"no namespace", "deployer", "namespace/name"},
		{"an empty namespace", "/deployer", "service account namespace"},
		{"an empty name", "team-a/", "service account name"},
		{"a user's name in disguise", "team-a:deployer/x", "service account namespace"},
		{"a slash too many", "team-a/deployer/x", "service account name"},
		{"a line break, which a header must not have", "team-a/deployer\r\nx: y", "service account name"},
		{"too long", strings.Repeat("a", 64) + "/deployer", "service account namespace"},
	} {
		who, err := executor.ParseSubject(tc.text)
		if (err != nil) != (tc.err != "") || (err != nil && !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: got error %v, want one with %q", tc.reason, err, tc.err)
		}
		if err == nil && who.String() != tc.text {
			t.Errorf("%s: String: got %s", tc.reason, who)
		}
	}
	if got := (executor.Subject{}).String(); got != "" {
		t.Errorf("nobody is %q", got)
	}
}

// A world is a namespace with roles that a test makes.
type world struct {
	*testing.T
	namespace string
	clients   *kubernetes.Clientset
}

func newWorld(t *testing.T) *world {
	t.Helper()
	server := apitest.Shared(t)
	clients, err := kubernetes.NewForConfig(server.Config())
	if err != nil {
		t.Fatal(err)
	}
	return &world{T: t, namespace: server.Namespace(t), clients: clients}
}

// bind gives somebody the right to get config maps of the namespace.
func (w *world) bind(name string, who rbacv1.Subject) {
	w.Helper()
	o := metav1.ObjectMeta{Name: name, Namespace: w.namespace}
	if _, err := w.clients.RbacV1().Roles(w.namespace).Create(w.Context(), &rbacv1.Role{
		ObjectMeta: o, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get"}}},
	}, metav1.CreateOptions{}); err != nil {
		w.Fatal(err)
	}
	if _, err := w.clients.RbacV1().RoleBindings(w.namespace).Create(w.Context(), &rbacv1.RoleBinding{
		ObjectMeta: o, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name}, Subjects: []rbacv1.Subject{who},
	}, metav1.CreateOptions{}); err != nil {
		w.Fatal(err)
	}
}

func (w *world) until(what string, ok func(context.Context) bool) {
	w.Helper()
	err := wait.PollUntilContextTimeout(w.Context(), 20*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) { return ok(ctx), nil })
	if err != nil {
		w.Fatalf("in vain waited until %s", what)
	}
}

func (w *world) reviewer(cfg *rest.Config, o executor.Options) *executor.Reviewer {
	w.Helper()
	clients, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		w.Fatal(err)
	}
	objects, err := metadata.NewForConfig(cfg)
	if err != nil {
		w.Fatal(err)
	}
	o.Log = slog.New(slog.DiscardHandler)
	r, err := executor.NewReviewer(clients.AuthorizationV1().SubjectAccessReviews(), objects, o)
	if err != nil {
		w.Fatal(err)
	}
	return r
}

func run(t *testing.T, r *executor.Reviewer) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

func (w *world) object(name string) executor.Object {
	return executor.Object{GroupResource: configMaps.GroupResource(), Namespace: w.namespace, Name: name}
}

// TestGroups has rights come from each of the groups that a service account is in.
func TestGroups(t *testing.T) {
	w := newWorld(t)
	who := executor.Subject{Namespace: w.namespace, Name: "deployer"}
	for i, subject := range []rbacv1.Subject{
		{Kind: rbacv1.ServiceAccountKind, Namespace: w.namespace, Name: "deployer"},
		{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "system:serviceaccounts"},
		{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "system:serviceaccounts:" + w.namespace},
		{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "system:authenticated"},
	} {
		name := []string{"user", "all", "namespace", "authenticated"}[i]
		denied := w.reviewer(apitest.Shared(t).Config(), executor.Options{}).Check(t.Context(), who, w.object("a"), "get")
		if _, ok := errors.AsType[*executor.DeniedError](denied); !ok {
			t.Fatalf("%s: Check before: %v, want a denial", name, denied)
		}
		w.bind(name, subject)
		w.until("rights come from "+name, func(ctx context.Context) bool {
			return w.reviewer(apitest.Shared(t).Config(), executor.Options{}).Check(ctx, who, w.object("a"), "get") == nil
		})
		if err := w.clients.RbacV1().RoleBindings(w.namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.until("they are gone", func(ctx context.Context) bool {
			return w.reviewer(apitest.Shared(t).Config(), executor.Options{}).Check(ctx, who, w.object("a"), "get") != nil
		})
	}
}

// TestWatch takes rights away that are remembered for an hour.
func TestWatch(t *testing.T) {
	w := newWorld(t)
	w.bind("reader", rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: w.namespace, Name: "deployer"})
	who := executor.Subject{Namespace: w.namespace, Name: "deployer"}
	changed := make(chan struct{}, 1000)
	r := w.reviewer(apitest.Shared(t).Config(), executor.Options{TTL: time.Hour, ShortTTL: time.Hour, Changed: func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}})
	run(t, r)
	allowed := func(ctx context.Context) bool { return r.Check(ctx, who, w.object("a"), "get") == nil }
	w.until("the right counts", func(ctx context.Context) bool {
		if allowed(ctx) {
			return true
		}
		r.Forget(who, w.object("a")) // The denial would be remembered.
		return false
	})
	for len(changed) > 0 {
		<-changed
	}
	if err := w.clients.RbacV1().RoleBindings(w.namespace).Delete(t.Context(), "reader", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	case <-time.After(patience):
		t.Fatal("nobody told that rights changed")
	}
	// The API server may heed the change later than the watch tells of it.
	w.until("the right is gone", func(ctx context.Context) bool {
		if !allowed(ctx) {
			return true
		}
		r.Forget(who, w.object("a"))
		return false
	})
}

func counted(dials *atomic.Int32) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
}

// TestClients acts as several service accounts, each with its own rights, over
// one connection.
func TestClients(t *testing.T) {
	w := newWorld(t)
	w.bind("reader", rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: w.namespace, Name: "reader"})
	cfg := apitest.Shared(t).Config()
	var dials atomic.Int32
	cfg.Dial = counted(&dials)
	shared, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	const most = 4
	clients := executor.NewClients(cfg, shared, most)
	get := func(ctx context.Context, name string) error {
		c, err := clients.As(executor.Subject{Namespace: w.namespace, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Objects.Resource(configMaps).Namespace(w.namespace).Get(ctx, "a", metav1.GetOptions{})
		_, metadataErr := c.Metadata.Resource(configMaps).Namespace(w.namespace).Get(ctx, "a", metav1.GetOptions{})
		if apierrors.ReasonForError(err) != apierrors.ReasonForError(metadataErr) {
			t.Errorf("%s: reading the object gives %v, reading its metadata %v", name, err, metadataErr)
		}
		return err
	}
	w.until("the reader may read", func(ctx context.Context) bool { return apierrors.IsNotFound(get(ctx, "reader")) })
	names := []string{"reader", "a", "b", "c", "d", "e", "f"}
	for range 2 {
		for _, name := range names {
			err := get(t.Context(), name)
			if got, want := apierrors.IsForbidden(err), name != "reader"; got != want {
				t.Errorf("%s reads: %v", name, err)
			}
			if err != nil && strings.Contains(err.Error(), "User ") && !strings.Contains(err.Error(), ":"+name+`"`) {
				t.Errorf("%s is taken for somebody else: %v", name, err)
			}
		}
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestEscalation(t *testing.T) {
	w := newWorld(t)
	cfg := apitest.Shared(t).Config()
	shared, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	clients := executor.NewClients(cfg, shared, 1)
	who := executor.Subject{Namespace: w.namespace, Name: "climber"}
	w.bind("reader", rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: w.namespace, Name: "climber"})
	o := metav1.ObjectMeta{Name: "writer", Namespace: w.namespace}
	if _, err := w.clients.RbacV1().Roles(w.namespace).Create(t.Context(), &rbacv1.Role{
		ObjectMeta: o, Rules: []rbacv1.PolicyRule{{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"roles"}, Verbs: []string{"create"}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.clients.RbacV1().RoleBindings(w.namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: o, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "writer"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: w.namespace, Name: "climber"}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	try := func(ctx context.Context, name, verb string) error {
		return clients.CheckEscalation(ctx, who, rbacv1.SchemeGroupVersion.WithResource("roles"), &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": map[string]any{"name": name, "namespace": w.namespace},
			"rules": []any{map[string]any{"apiGroups": []any{""}, "resources": []any{"configmaps"}, "verbs": []any{verb}}},
		}})
	}
	w.until("what it has itself may be given away", func(ctx context.Context) bool { return try(ctx, "new", "get") == nil })
	for _, name := range []string{"new", "reader"} { // The second is there already.
		err := try(t.Context(), name, "delete")
		denied, ok := errors.AsType[*executor.DeniedError](err)
		if !ok || denied.Subject != who || !strings.Contains(err.Error(), "attempting to grant RBAC permissions not currently held") {
			t.Errorf("role %s with more rights: %v", name, err)
		}
	}
	if err := try(t.Context(), "reader", "get"); err != nil {
		t.Errorf("a role that is there already: %v", err)
	}
	list, err := w.clients.RbacV1().Roles(w.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil || slices.ContainsFunc(list.Items, func(r rbacv1.Role) bool { return r.Name == "new" }) {
		t.Errorf("the check left a role behind, or: %v", err)
	}
}
