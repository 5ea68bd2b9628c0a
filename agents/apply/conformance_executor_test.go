package apply_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
	"github.com/fleetcast-io/fleetcast/agents/executor"
	"github.com/fleetcast-io/fleetcast/pkg/api"
)

var (
	roles        = schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"}
	roleBindings = schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"}
)

// allVerbs are what an executor needs for an object that its work owns.
var allVerbs = []string{"get", "create", "update", "patch", "delete"}

// A team is a service account that works are executed as.
type team struct {
	*cluster
	subject executor.Subject
	clients *kubernetes.Clientset
}

// newTeam has no rights, and its service account does not exist: Kubernetes
// gives rights to names.
func (c *cluster) newTeam(name string) *team {
	c.Helper()
	clients, err := kubernetes.NewForConfig(c.server.Config())
	if err != nil {
		c.Fatal(err)
	}
	return &team{cluster: c, subject: executor.Subject{Namespace: c.namespace, Name: name}, clients: clients}
}

// permit gives the team verbs on a resource of its namespace, in place of what it
// had on it, and waits until the API server heeds that.
func (g *team) permit(group, resource string, verbs ...string) {
	g.Helper()
	name := strings.Trim(g.subject.Name+"-"+resource+"."+group, ".")
	role := &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Namespace: g.namespace, Name: name},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{group}, Resources: []string{resource}, Verbs: verbs}},
	}
	if len(verbs) == 0 {
		role.Rules = nil
	}
	api := g.clients.RbacV1()
	_, err := api.Roles(g.namespace).Create(g.ctx, role, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = api.Roles(g.namespace).Update(g.ctx, role, metav1.UpdateOptions{})
	}
	if err != nil {
		g.Fatal(err)
	}
	_, err = api.RoleBindings(g.namespace).Create(g.ctx, &rbacv1.RoleBinding{
		ObjectMeta: role.ObjectMeta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: g.subject.Namespace, Name: g.subject.Name}},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		g.Fatal(err)
	}
	for _, verb := range allVerbs {
		want := slices.Contains(verbs, verb)
		g.until(fmt.Sprintf("the API server's answer to %s %s is %v", verb, resource, want), func() bool {
			return g.may(verb, group, resource) == want
		})
	}
}

func (g *team) may(verb, group, resource string) bool {
	g.Helper()
	review, err := g.clients.AuthorizationV1().SubjectAccessReviews().Create(g.ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: g.subject.User(), Groups: g.subject.Groups(),
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: g.namespace, Verb: verb, Group: group, Resource: resource},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		g.Fatal(err)
	}
	return review.Status.Allowed
}

// newWork is a work of the team.
func (g *team) newWork(name string, manifests ...any) *story {
	s := g.cluster.newWork(name, manifests...)
	s.work.Spec.Executor = &workv1.ManifestWorkExecutor{Subject: workv1.ManifestWorkExecutorSubject{
		Type:           workv1.ExecutorSubjectTypeServiceAccount,
		ServiceAccount: &workv1.ManifestWorkSubjectServiceAccount{Namespace: g.subject.Namespace, Name: g.subject.Name},
	}}
	return s
}

func (s *story) deletingMessage(status workv1.ManifestWorkStatus) string {
	s.Helper()
	if got := condition(status, api.ConditionDeleting); got != "True WorkDeleting" {
		s.Fatalf("Deleting: got %s, want True WorkDeleting", got)
	}
	return meta.FindStatusCondition(status.Conditions, api.ConditionDeleting).Message
}

// A census notes who asked for what, over all requests of an applier.
type census struct {
	mu   sync.Mutex
	seen map[string]map[string]bool // By user, "" for the agent itself.
}

func (c *cluster) census() *census {
	n := &census{seen: make(map[string]map[string]bool)}
	c.wire.cut(func(r *http.Request) bool { n.note(r); return false })
	return n
}

func (n *census) note(r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	who := r.Header.Get("Impersonate-User")
	if n.seen[who] == nil {
		n.seen[who] = make(map[string]bool)
	}
	n.seen[who][r.Method+" "+r.URL.Path] = true
}

func (n *census) of(who string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var seen []string
	for request := range n.seen[who] {
		seen = append(seen, request)
	}
	slices.Sort(seen)
	return seen
}

// TestConformanceExecutor holds spec.executor of works to OCM's rows executor and
// executor cache.
func TestConformanceExecutor(t *testing.T) {
	t.Run("executor", func(t *testing.T) {
		c := newCluster(t)
		for _, tc := range []struct {
			reason    string
			permitted []string
			option    workv1.DeletePropagationPolicyType
			readOnly  bool
			missing   string
		}{
			{reason: "nothing is allowed", missing: "get, create, update, patch, delete"},
			{reason: "all is allowed", permitted: allVerbs},
			{reason: "no get", permitted: []string{"create", "update", "patch", "delete"}, missing: "get"},
			{reason: "no create", permitted: []string{"get", "update", "patch", "delete"}, missing: "create"},
			{reason: "no update", permitted: []string{"get", "create", "patch", "delete"}, missing: "update"},
			{reason: "no patch", permitted: []string{"get", "create", "update", "delete"}, missing: "patch"},
			{reason: "no delete", permitted: []string{"get", "create", "update", "patch"}, missing: "delete"},
			{
				reason: "no delete for what stays behind", permitted: []string{"get", "create", "update", "patch"},
				option: workv1.DeletePropagationPolicyTypeOrphan,
			},
			{reason: "only get for what is only read", permitted: []string{"get"}, readOnly: true},
			{reason: "no get for what is only read", permitted: []string{"create", "update", "patch", "delete"}, readOnly: true, missing: "get"},
		} {
			name := strings.ReplaceAll(tc.reason, " ", "-")
			g := c.newTeam(name)
			g.permit("", "configmaps", tc.permitted...)
			s := g.newWork(name, c.configMap(name, map[string]string{"k": "v"}))
			if tc.option != "" {
				s.work.Spec.DeleteOption = &workv1.DeleteOption{PropagationPolicy: tc.option}
			}
			if tc.readOnly {
				s.strategy(workv1.UpdateStrategy{Type: workv1.UpdateStrategyTypeReadOnly}, "", "configmaps")
			}
			status, err := s.apply()
			if err != nil {
				t.Errorf("%s: Apply: %v, want what is denied not to be tried again at once", tc.reason, err)
			}
			if tc.missing == "" {
				if got := manifestCondition(status, 0, workv1.ManifestApplied); got != manifestApplied {
					t.Errorf("%s: Applied: got %s, %s", tc.reason, got, manifestMessage(status, 0))
				}
				if got := c.data(name) != nil; got == tc.readOnly {
					t.Errorf("%s: the object exists: %v", tc.reason, got)
				}
				continue
			}
			want := fmt.Sprintf("not allowed to apply the resource configmaps %s/%s: executor %s may not %s it", c.namespace, name, g.subject, tc.missing)
			if got := manifestCondition(status, 0, workv1.ManifestApplied) + " " + condition(status, workv1.WorkApplied); got != manifestFailed+" "+workFailed {
				t.Errorf("%s: Applied: got %s", tc.reason, got)
			}
			if got := manifestMessage(status, 0); !strings.Contains(got, want) {
				t.Errorf("%s: message: got %q, want it to hold %q", tc.reason, got, want)
			}
			if c.data(name) != nil {
				t.Errorf("%s: the object was created", tc.reason)
			}
		}
	})

	t.Run("executor_by_name", func(t *testing.T) {
		c := newCluster(t)
		g := c.newTeam("by-name")
		if _, err := g.clients.RbacV1().Roles(c.namespace).Create(c.ctx, &rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Name: "by-name-configmaps"},
			Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"mine"}, Verbs: allVerbs},
				{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"create"}},
			},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := g.clients.RbacV1().RoleBindings(c.namespace).Create(c.ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "by-name"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "by-name-configmaps"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: c.namespace, Name: "by-name"}},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.until("the role counts", func() bool { return g.may("create", "", "configmaps") })
		s := g.newWork("named", c.configMap("mine", nil), c.configMap("theirs", nil))
		status, _ := s.apply()
		if got := manifestCondition(status, 0, workv1.ManifestApplied); got != manifestApplied {
			t.Errorf("the object that the role names: got %s, %s", got, manifestMessage(status, 0))
		}
		if got := manifestCondition(status, 1, workv1.ManifestApplied); got != manifestFailed {
			t.Errorf("an object that it does not name: got %s", got)
		}
	})

	t.Run("executor_cache", func(t *testing.T) {
		c := newCluster(t)
		g := c.newTeam("cached")
		g.permit("", "configmaps", allVerbs...)
		c.run()
		n := c.census()
		const reviews = "POST /apis/authorization.k8s.io/v1/subjectaccessreviews"
		s := g.newWork("first", c.configMap("a", nil))
		s.mustApply()
		if !slices.Contains(n.of(""), reviews) {
			t.Fatal("the rights of the executor were not asked for")
		}
		// Once roles are watched, what is known of the namespace counts for other
		// objects too.
		others := 0
		c.until("rights are not asked for again", func() bool {
			c.wire.requests()
			others++
			g.newWork(fmt.Sprintf("other-%d", others), c.configMap(fmt.Sprintf("b-%d", others), nil), c.configMap(fmt.Sprintf("c-%d", others), nil)).mustApply()
			return !slices.Contains(c.wire.requests(), reviews)
		})

		g.permit("", "configmaps", "get")
		c.until("the change of the role is noticed", func() bool {
			status, err := s.apply()
			return err == nil && manifestCondition(status, 0, workv1.ManifestApplied) == manifestFailed
		})
		if c.data("a") == nil && c.get(configMaps, c.namespace, "a") == nil {
			t.Error("the object of which rights were taken away is gone")
		}
		for len(c.changed) > 0 {
			<-c.changed
		}
		g.permit("", "configmaps", allVerbs...)
		c.untilTold("first-id")
		c.until("the rights that came back are noticed", func() bool {
			status, err := s.apply()
			return err == nil && manifestCondition(status, 0, workv1.ManifestApplied) == manifestApplied
		})
	})

	t.Run("executor_denial_removes_nothing", func(t *testing.T) {
		c := newCluster(t)
		g := c.newTeam("once")
		g.permit("", "configmaps", allVerbs...)
		s := g.newWork("kept", c.configMap("kept", map[string]string{"k": "1"}), c.configMap("dropped", nil))
		s.mustApply()
		g.permit("", "configmaps")
		c.restart(apply.Options{})
		s.set(c.configMap("kept", map[string]string{"k": "2"}))
		status, err := s.apply()
		if err == nil || !strings.Contains(err.Error(), "executor "+g.subject.String()+" lacks rights") {
			t.Errorf("Apply: got %v, want the executor's lack of rights to prune", err)
		}
		if got := manifestCondition(status, 0, workv1.ManifestApplied); got != manifestFailed {
			t.Errorf("Applied: got %s, want %s", got, manifestFailed)
		}
		if got := meta.FindStatusCondition(status.Conditions, workv1.WorkApplied).Message; !strings.Contains(got, "executor "+g.subject.String()+" lacks rights") {
			t.Errorf("the work's message: %q", got)
		}
		if diff := cmp.Diff(map[string]string{"k": "1"}, c.data("kept")); diff != "" {
			t.Errorf("the denied object (-want +got):\n%s", diff)
		}
		if c.get(configMaps, c.namespace, "dropped") == nil {
			t.Error("what the executor may not delete was pruned")
		}
		if diff := cmp.Diff([]string{"configmaps/dropped", "configmaps/kept"}, s.inventory()); diff != "" {
			t.Errorf("inventory (-want +got):\n%s", diff)
		}
	})
}

// TestExecutorDoesEverything has an applier go through all that it does with the
// objects of a work, and sees as whom.
func TestExecutorDoesEverything(t *testing.T) {
	c := newCluster(t)
	g := c.newTeam("doer")
	g.permit("", "configmaps", allVerbs...)
	n := c.census()
	c.run()
	s := g.newWork("all", c.configMap("a", nil), c.configMap("b", nil), c.configMap("c", nil))
	s.mustApply()
	s.set(c.configMap("a", map[string]string{"k": "v"}), c.configMap("b", nil)) // A write, and c is pruned.
	s.mustApply()
	s.work.Spec.DeleteOption = &workv1.DeleteOption{
		PropagationPolicy: workv1.DeletePropagationPolicyTypeSelectivelyOrphan,
		SelectivelyOrphan: &workv1.SelectivelyOrphan{OrphaningRules: []workv1.OrphaningRule{{Resource: "configmaps", Namespace: c.namespace, Name: "b"}}},
	}
	s.set(c.configMap("a", nil), c.configMap("b", nil))
	s.mustApply()
	c.patch(configMaps, c.namespace, "a", `{"data":{"k":"drift"}}`)
	c.until("the drift is put back", func() bool { s.mustApply(); return len(c.data("a")) == 0 })
	s.strategy(workv1.UpdateStrategy{Type: workv1.UpdateStrategyTypeServerSideApply, ServerSideApply: &workv1.ServerSideApplyConfig{Force: true}}, "", "configmaps")
	s.set(c.configMap("a", map[string]string{"k": "w"}), c.configMap("b", nil))
	s.mustApply()
	s.observe()
	if _, err := s.delete(); err != nil {
		t.Fatal(err)
	}
	if c.get(configMaps, c.namespace, "a") != nil || c.get(configMaps, c.namespace, "b") == nil {
		t.Error("the deletion took not exactly what belonged to the work")
	}

	objects := "/api/v1/namespaces/" + c.namespace + "/configmaps"
	want := []string{}
	for method, names := range map[string][]string{
		"GET": {"/a", "/b", "/c"}, "POST": {""}, "PUT": {"/a"}, "PATCH": {"/a", "/b"}, "DELETE": {"/a", "/c"},
	} {
		for _, name := range names {
			want = append(want, method+" "+objects+name)
		}
	}
	got := n.of(g.subject.User())
	for _, request := range want {
		if !slices.Contains(got, request) && !strings.HasPrefix(request, "GET") {
			t.Errorf("the executor did not %s", request)
		}
	}
	for _, request := range n.of("") {
		_, path, _ := strings.Cut(request, " ")
		switch {
		case strings.HasPrefix(path, "/apis/work.open-cluster-management.io/v1"), strings.HasPrefix(path, "/apis/authorization.k8s.io/v1/subjectaccessreviews"),
			path == "/api/v1", path == "/apis", path == "/api":
		case request == "GET "+objects: // The watch.
		case strings.HasPrefix(request, "GET /apis/rbac.authorization.k8s.io/v1/"): // Those of rights.
		default:
			t.Errorf("the agent itself did %s", request)
		}
	}
}

// TestExecutorRights are cases in which rights end where reviews do not see it.
func TestExecutorRights(t *testing.T) {
	t.Run("revoked between review and write", func(t *testing.T) {
		c := newCluster(t)
		g := c.newTeam("racer")
		g.permit("", "configmaps", allVerbs...)
		revoked := false
		c.wire.cut(func(r *http.Request) bool {
			if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/configmaps") && !revoked {
				revoked = true
				g.permit("", "configmaps", "get")
			}
			return false
		})
		s := g.newWork("race", c.configMap("a", nil))
		status, err := s.apply()
		if err != nil {
			t.Errorf("Apply: %v, want it not to be tried again at once", err)
		}
		if !revoked {
			t.Fatal("nothing was written")
		}
		if got := manifestCondition(status, 0, workv1.ManifestApplied); got != manifestFailed {
			t.Errorf("Applied: got %s, want %s", got, manifestFailed)
		}
		for _, want := range []string{"not allowed to apply the resource configmaps " + c.namespace + "/a", g.subject.User(), "cannot create"} {
			if got := manifestMessage(status, 0); !strings.Contains(got, want) {
				t.Errorf("message: got %q, want it to hold %q", got, want)
			}
		}
		if c.get(configMaps, c.namespace, "a") != nil {
			t.Error("the object was created without the right to")
		}
		// What was remembered of the executor is not believed any more.
		status, _ = s.apply()
		if got := manifestMessage(status, 0); !strings.Contains(got, "may not create, update, patch, delete it") {
			t.Errorf("message of the next try: %q", got)
		}
	})

	for _, checkOnly := range []bool{false, true} {
		t.Run(fmt.Sprintf("escalation, check only %v", checkOnly), func(t *testing.T) {
			c := newCluster(t)
			c.restart(apply.Options{Executors: apply.Executors{CheckOnly: checkOnly}})
			g := c.newTeam("climber")
			for _, resource := range []string{"roles", "rolebindings"} {
				g.permit(rbacv1.GroupName, resource, allVerbs...)
			}
			g.permit("", "configmaps", allVerbs...)
			role := func(name, resource string) any {
				return rbacv1.Role{
					TypeMeta:   metav1.TypeMeta{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "Role"},
					ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: c.namespace},
					Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{resource}, Verbs: []string{"get"}}},
				}
			}
			binding := rbacv1.RoleBinding{
				TypeMeta:   metav1.TypeMeta{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "RoleBinding"},
				ObjectMeta: metav1.ObjectMeta{Name: "all", Namespace: c.namespace},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
				Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: g.subject.Namespace, Name: g.subject.Name}},
			}
			s := g.newWork("climb", role("own", "configmaps"), role("more", "secrets"), binding)
			status, err := s.apply()
			if err != nil {
				t.Errorf("Apply: %v, want it not to be tried again at once", err)
			}
			for i, want := range []string{manifestApplied, manifestFailed, manifestFailed} {
				if got := manifestCondition(status, i, workv1.ManifestApplied); got != want {
					t.Errorf("manifest %d: got %s, %s, want %s", i, got, manifestMessage(status, i), want)
				}
			}
			if got := manifestMessage(status, 1); !strings.Contains(got, "not allowed to apply the resource roles.rbac.authorization.k8s.io") ||
				!strings.Contains(got, "attempting to grant RBAC permissions not currently held") {
				t.Errorf("message: %q", got)
			}
			if c.get(roles, c.namespace, "more") != nil || c.get(roleBindings, c.namespace, "all") != nil {
				t.Error("the executor gave itself rights")
			}
			// A role of the work that is there already is not a way around it.
			s.set(role("own", "secrets"))
			status, _ = s.apply()
			if got := manifestCondition(status, 0, workv1.ManifestApplied); got != manifestFailed {
				t.Errorf("more rights in its own role: got %s", got)
			}
		})
	}

	t.Run("an agent that may not impersonate", func(t *testing.T) {
		c := newCluster(t)
		g := c.newTeam("unreachable")
		g.permit("", "configmaps", allVerbs...)
		c.restartAs("limited", rbacv1.PolicyRule{APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"subjectaccessreviews"}, Verbs: []string{"create"}})
		s := g.newWork("unreachable", c.configMap("a", nil))
		status, _ := s.apply()
		if got := manifestMessage(status, 0); !strings.Contains(got, "the agent may not act as executor "+g.subject.String()) {
			t.Errorf("message: %q", got)
		}
		if c.get(configMaps, c.namespace, "a") != nil {
			t.Error("the object was created")
		}
	})

	t.Run("an agent that may impersonate for config maps only", func(t *testing.T) {
		c := newCluster(t)
		g := c.newTeam("confined")
		g.permit("", "configmaps", allVerbs...)
		g.permit("", "secrets", allVerbs...)
		on := func(verbs ...string) []string {
			for i := range verbs {
				verbs[i] = "impersonate-on:serviceaccount:" + verbs[i]
			}
			return verbs
		}
		c.restartAs("confined-agent",
			rbacv1.PolicyRule{APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"subjectaccessreviews"}, Verbs: []string{"create"}},
			rbacv1.PolicyRule{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"serviceaccounts"}, Verbs: []string{"impersonate:serviceaccount"}},
			rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: on(slices.Clone(allVerbs)...)},
		)
		s := g.newWork("confined", c.configMap("a", nil), map[string]any{
			"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "a", "namespace": c.namespace},
		})
		status, _ := s.apply()
		for i, want := range []string{manifestApplied, manifestFailed} {
			if got := manifestCondition(status, i, workv1.ManifestApplied); got != want {
				t.Errorf("manifest %d: got %s, %s, want %s", i, got, manifestMessage(status, i), want)
			}
		}
		if got := manifestMessage(status, 1); !strings.Contains(got, "the agent may not act as executor") {
			t.Errorf("message: %q", got)
		}
	})

	t.Run("an agent that may not ask", func(t *testing.T) {
		c := newCluster(t)
		g := c.newTeam("unasked")
		g.permit("", "configmaps", allVerbs...)
		c.restartAs("mute", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"serviceaccounts"}, Verbs: []string{"impersonate"}})
		s := g.newWork("unasked", c.configMap("a", nil))
		status, err := s.apply()
		if err == nil || !strings.Contains(manifestMessage(status, 0), "ask whether executor "+g.subject.String()) {
			t.Errorf("got error %v and message %q", err, manifestMessage(status, 0))
		}
		if c.get(configMaps, c.namespace, "a") != nil {
			t.Error("the object was created without an answer")
		}
	})
}

func unstructuredOf(t *testing.T, content map[string]any) *unstructured.Unstructured {
	t.Helper()
	raw, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(raw); err != nil {
		t.Fatal(err)
	}
	return u
}

// restartAs makes a new applier with the rights to AppliedManifestWorks and some
// others.
func (c *cluster) restartAs(name string, rules ...rbacv1.PolicyRule) {
	c.Helper()
	c.restartWith(c.as(name, rules...), apply.Options{})
}

// as returns a configuration with the rights of an agent and some others.
func (c *cluster) as(name string, rules ...rbacv1.PolicyRule) *rest.Config {
	c.Helper()
	clients, err := kubernetes.NewForConfig(c.server.Config())
	if err != nil {
		c.Fatal(err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: c.namespace}}
	if _, err := clients.CoreV1().ServiceAccounts(c.namespace).Create(c.ctx, account, metav1.CreateOptions{}); err != nil {
		c.Fatal(err)
	}
	meta := metav1.ObjectMeta{Name: c.namespace + "-" + name}
	rules = append(rules, rbacv1.PolicyRule{
		APIGroups: []string{workv1.GroupName}, Resources: []string{"appliedmanifestworks", "appliedmanifestworks/status"}, Verbs: []string{"*"},
	})
	if _, err := clients.RbacV1().ClusterRoles().Create(c.ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{}); err != nil {
		c.Fatal(err)
	}
	if _, err := clients.RbacV1().ClusterRoleBindings().Create(c.ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: meta.Name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: c.namespace, Name: name}},
	}, metav1.CreateOptions{}); err != nil {
		c.Fatal(err)
	}
	token, err := clients.CoreV1().ServiceAccounts(c.namespace).CreateToken(c.ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		c.Fatal(err)
	}
	cfg := rest.AnonymousClientConfig(c.server.Config())
	cfg.BearerToken, cfg.QPS = token.Status.Token, -1
	g := &team{cluster: c, subject: executor.Subject{Namespace: c.namespace, Name: name}, clients: clients}
	c.until("the agent has its rights", func() bool {
		return g.may("create", workv1.GroupName, "appliedmanifestworks")
	})
	return cfg
}

func TestExecutorDeletion(t *testing.T) {
	// begin applies a config map as a team that then loses its rights.
	begin := func(t *testing.T) (*team, *story) {
		t.Helper()
		c := newCluster(t)
		g := c.newTeam("leaver")
		g.permit("", "configmaps", allVerbs...)
		s := g.newWork("going", c.configMap("a", nil))
		s.mustApply()
		g.permit("", "configmaps")
		status, err := s.delete()
		if err == nil {
			t.Fatal("a deletion without rights was confirmed")
		}
		message := s.deletingMessage(status)
		for _, want := range []string{"executor " + g.subject.String() + " lacks rights", "configmaps " + c.namespace + "/a", "work.fleetcast.io/executor", s.appliedName()} {
			if !strings.Contains(message, want) {
				t.Errorf("message: got %q, want it to hold %q", message, want)
			}
		}
		if c.get(configMaps, c.namespace, "a") == nil {
			t.Fatal("the object was deleted with more rights than the work had")
		}
		return g, s
	}
	end := func(t *testing.T, s *story) {
		t.Helper()
		status, err := s.delete()
		if err != nil || condition(status, api.ConditionDeleted) != "True ManifestsDeleted" {
			t.Errorf("got error %v and %s, want it deleted", err, condition(status, api.ConditionDeleted))
		}
		if s.get(configMaps, s.namespace, "a") != nil || s.appliedWork() != nil {
			t.Error("something is left")
		}
	}

	t.Run("rights come back", func(t *testing.T) {
		g, s := begin(t)
		g.permit("", "configmaps", allVerbs...)
		end(t, s)
	})
	t.Run("somebody else removes the objects", func(t *testing.T) {
		_, s := begin(t)
		s.remove(configMaps, s.namespace, "a")
		end(t, s)
	})
	t.Run("an administrator names another executor", func(t *testing.T) {
		_, s := begin(t)
		cleaner := s.newTeam("cleaner")
		cleaner.permit("", "configmaps", "get", "delete")
		s.patch(appliedWorks, "", s.appliedName(), fmt.Sprintf(`{"metadata":{"annotations":{"work.fleetcast.io/executor":%q}}}`, cleaner.subject))
		end(t, s)
	})
	t.Run("the annotation names nobody", func(t *testing.T) {
		_, s := begin(t)
		s.patch(appliedWorks, "", s.appliedName(), `{"metadata":{"annotations":{"work.fleetcast.io/executor":"no name"}}}`)
		status, err := s.delete()
		if err == nil || !strings.Contains(s.deletingMessage(status), "work.fleetcast.io/executor") {
			t.Errorf("got error %v and %q", err, s.deletingMessage(status))
		}
		if s.get(configMaps, s.namespace, "a") == nil {
			t.Error("the object was deleted")
		}
	})
	t.Run("an agent that only checks", func(t *testing.T) {
		_, s := begin(t)
		s.restart(apply.Options{Executors: apply.Executors{CheckOnly: true}})
		end(t, s)
	})

	t.Run("what was denied from the start is not waited for", func(t *testing.T) {
		c := newCluster(t)
		g := c.newTeam("nobody")
		if _, err := c.of(configMaps, c.namespace).Create(c.ctx, unstructuredOf(t, c.configMap("theirs", nil)), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		s := g.newWork("denied", c.configMap("theirs", map[string]string{"k": "v"}))
		if _, err := s.apply(); err != nil {
			t.Fatal(err)
		}
		if got := s.inventory(); len(got) > 0 {
			t.Errorf("inventory: %v", got)
		}
		if status, err := s.delete(); err != nil || condition(status, api.ConditionDeleted) != "True ManifestsDeleted" {
			t.Errorf("got error %v", err)
		}
		if c.get(configMaps, c.namespace, "theirs") == nil {
			t.Error("the object of others was deleted")
		}
	})

	t.Run("another executor takes over", func(t *testing.T) {
		c := newCluster(t)
		first, second := c.newTeam("first"), c.newTeam("second")
		first.permit("", "configmaps", allVerbs...)
		second.permit("", "configmaps", allVerbs...)
		s := first.newWork("handed", c.configMap("a", nil), c.configMap("b", nil))
		s.mustApply()
		s.work.Spec.Executor = second.newWork("unused").work.Spec.Executor
		s.set(c.configMap("a", nil))
		first.permit("", "configmaps")
		n := c.census()
		s.mustApply()
		if got := s.appliedWork().Annotations["work.fleetcast.io/executor"]; got != second.subject.String() {
			t.Errorf("the AppliedManifestWork names executor %q", got)
		}
		if c.get(configMaps, c.namespace, "b") != nil || len(n.of(first.subject.User())) > 0 {
			t.Error("what was dropped was not pruned as the new executor")
		}
		s.work.Spec.Executor = nil
		s.set(c.configMap("a", map[string]string{"k": "v"}))
		s.mustApply()
		if got, ok := s.appliedWork().Annotations["work.fleetcast.io/executor"]; ok {
			t.Errorf("the AppliedManifestWork still names executor %q", got)
		}
	})
}

func TestExecutorSettings(t *testing.T) {
	c := newCluster(t)
	fallback := c.newTeam("fallback")
	fallback.permit("", "configmaps", allVerbs...)
	account := func(namespace, name string) *workv1.ManifestWorkExecutor {
		return &workv1.ManifestWorkExecutor{Subject: workv1.ManifestWorkExecutorSubject{
			Type: workv1.ExecutorSubjectTypeServiceAccount, ServiceAccount: &workv1.ManifestWorkSubjectServiceAccount{Namespace: namespace, Name: name},
		}}
	}
	for i, tc := range []struct {
		reason   string
		options  apply.Executors
		executor *workv1.ManifestWorkExecutor
		user     string // As whom it is written.
		refusal  string
	}{
		{reason: "no executor: the agent's own rights"},
		{reason: "none, where one is required", options: apply.Executors{Required: true}, refusal: "the work names no executor"},
		{reason: "none, where there is a default", options: apply.Executors{Default: fallback.subject}, user: fallback.subject.User()},
		{reason: "none, where one is required and there is a default", options: apply.Executors{Required: true, Default: fallback.subject}, user: fallback.subject.User()},
		{reason: "its own before the default", options: apply.Executors{Default: executor.Subject{Namespace: "a", Name: "b"}}, executor: account(c.namespace, "fallback"), user: fallback.subject.User()},
		{reason: "checks only", options: apply.Executors{CheckOnly: true}, executor: account(c.namespace, "fallback")},
		{reason: "another type", executor: &workv1.ManifestWorkExecutor{Subject: workv1.ManifestWorkExecutorSubject{Type: "User"}}, refusal: `spec.executor.subject.type "User" is not known`},
		{reason: "no service account", executor: &workv1.ManifestWorkExecutor{Subject: workv1.ManifestWorkExecutorSubject{Type: "ServiceAccount"}}, refusal: "serviceAccount is missing"},
		{reason: "a name that is two", executor: account("a:b", "c"), refusal: `service account namespace "a:b"`},
		{reason: "no name", executor: account("a", ""), refusal: `service account name ""`},
	} {
		name := fmt.Sprintf("work-%d", i)
		c.restart(apply.Options{Executors: tc.options})
		n := c.census()
		s := c.newWork(name, c.configMap(name, nil))
		s.work.Spec.Executor = tc.executor
		status, err := s.apply()
		if err != nil {
			t.Errorf("%s: Apply: %v", tc.reason, err)
			continue
		}
		if tc.refusal != "" {
			applied := meta.FindStatusCondition(status.Conditions, workv1.WorkApplied)
			if applied.Status != metav1.ConditionFalse || !strings.Contains(applied.Message, tc.refusal) {
				t.Errorf("%s: Applied is %s, %q", tc.reason, applied.Status, applied.Message)
			}
			if c.get(configMaps, c.namespace, name) != nil {
				t.Errorf("%s: it was applied", tc.reason)
			}
			continue
		}
		if got := condition(status, workv1.WorkApplied); got != workApplied {
			t.Errorf("%s: Applied: got %s", tc.reason, got)
		}
		if want := "POST /api/v1/namespaces/" + c.namespace + "/configmaps"; !slices.Contains(n.of(tc.user), want) {
			t.Errorf("%s: user %q did not create the object", tc.reason, tc.user)
		}
	}
}

// TestExecutorLooks shows what an executor without rights learns of others'
// objects: nothing.
func TestExecutorLooks(t *testing.T) {
	c := newCluster(t)
	g := c.newTeam("spy")
	secret := map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "theirs", "namespace": c.namespace},
		"stringData": map[string]any{"k": "hunter2"},
	}
	if _, err := c.of(secrets, c.namespace).Create(c.ctx, unstructuredOf(t, secret), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s := g.newWork("spying", secret)
	s.strategy(workv1.UpdateStrategy{Type: workv1.UpdateStrategyTypeReadOnly}, "", "secrets")
	status, _ := s.apply()
	for _, status := range []workv1.ManifestWorkStatus{status, s.observe()} {
		if got := manifestCondition(status, 0, workv1.ManifestAvailable); got != "Unknown FetchingResourceFailed" {
			t.Errorf("Available: got %s", got)
		}
		if raw, err := json.Marshal(status); err != nil || strings.Contains(string(raw), "hunter2") {
			t.Errorf("the status says too much: %s %v", raw, err)
		}
	}
}
