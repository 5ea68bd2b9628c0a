package charts_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fleetcast-io/fleetcast/pkg/api/crds"
)

func rulesOf(t *testing.T, u *unstructured.Unstructured) []rbacv1.PolicyRule {
	t.Helper()
	var role rbacv1.ClusterRole
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &role); err != nil {
		t.Fatal(err)
	}
	return role.Rules
}

// TestRights lists all that the charts' own roles grant, one line per resource.
func TestRights(t *testing.T) {
	const executor = "open-cluster-management:work:executor-admin"
	const work, crd = "work.open-cluster-management.io ", "apiextensions.k8s.io customresourcedefinitions"
	own := map[string]string{
		"ClusterRole " + work + "appliedmanifestworks":            "get list watch create update patch delete",
		"ClusterRole " + work + "appliedmanifestworks/status":     "patch",
		"ClusterRole " + work + "appliedmanifestworks/finalizers": "update",
		"ClusterRole " + crd + " (named)":                         "get",
		"ClusterRole " + crd:                                      "create list watch",
		"ClusterRole authorization.k8s.io subjectaccessreviews":   "create",
	}
	var rbac []string
	for _, resource := range []string{"roles", "rolebindings", "clusterroles", "clusterrolebindings"} {
		rbac = append(rbac, "ClusterRole rbac.authorization.k8s.io "+resource)
		own[rbac[len(rbac)-1]] = "list watch"
	}
	for _, tc := range []struct {
		reason, chart, values string
		want                  map[string]string
	}{
		{"a hub that installs CRDs", "hub", "hub/ci/minimal-values.yaml", map[string]string{
			"ClusterRole " + work + "manifestworks":        "get list watch patch delete",
			"ClusterRole " + work + "manifestworks/status": "patch",
			"ClusterRole " + executor:                      "execute-as",
			"ClusterRole fleetcast.io agents":              "get list watch create update",
			"ClusterRole fleetcast.io agents/status":       "update",
			"ClusterRole events.k8s.io events":             "create patch",
			"ClusterRole " + crd + " (named)":              "get patch",
			"ClusterRole " + crd:                           "create",
			"Role coordination.k8s.io leases":              "get create update",
			"Role  configmaps (named)":                     "get update",
			"Role  configmaps":                             "create",
			"Role  events":                                 "create patch",
		}},
		{"a hub that does not", "hub", "hub/ci/full-values.yaml", map[string]string{
			"ClusterRole " + work + "manifestworks":        "get list watch patch delete",
			"ClusterRole " + work + "manifestworks/status": "patch",
			"ClusterRole " + executor:                      "execute-as",
			"ClusterRole fleetcast.io agents":              "get list watch create update",
			"ClusterRole fleetcast.io agents/status":       "update",
			"ClusterRole events.k8s.io events":             "create patch",
			"ClusterRole " + crd + " (named)":              "get",
			"ClusterRole " + crd + " (Fleetcast's own)":    "patch",
			"ClusterRole " + crd:                           "create",
			"Role coordination.k8s.io leases":              "get create update",
			"Role  configmaps (named)":                     "get update",
			"Role  configmaps":                             "create",
			"Role  events":                                 "create patch",
		}},
		{"an agent", "agent", "agent/ci/minimal-values.yaml", own},
		{"an agent for all executors", "agent", "agent/ci/bare-values.yaml", with(own, "ClusterRole  serviceaccounts", "impersonate")},
		{"an agent for some executors", "agent", "agent/ci/full-values.yaml", with(without(own, rbac...),
			"Role  serviceaccounts (named) in default", "impersonate", "Role  serviceaccounts in kube-public", "impersonate",
			"ClusterRole apps deployments", "list watch", "ClusterRole apps statefulsets", "list watch")},
		{"a broker", "broker", "broker/ci/full-values.yaml", map[string]string{}},
	} {
		got := map[string]string{}
		for _, u := range mustRender(t, tc.chart, "fleetcast", readValues(t, tc.values)).objects {
			if u.GetKind() != "ClusterRole" && u.GetKind() != "Role" {
				continue
			}
			if u.GetName() == executor {
				// It is for others than the hub.
				got["ClusterRole "+executor] = strings.Join(rulesOf(t, u)[0].Verbs, " ")
				continue
			}
			for _, rule := range rulesOf(t, u) {
				named := ""
				switch {
				case slices.Equal(rule.ResourceNames, []string{"agents.fleetcast.io"}):
					named = " (Fleetcast's own)"
				case len(rule.ResourceNames) > 0:
					named = " (named)"
				}
				if u.GetNamespace() != "" && u.GetNamespace() != "fleetcast" {
					named += " in " + u.GetNamespace()
				}
				for _, resource := range rule.Resources {
					got[u.GetKind()+" "+strings.Join(rule.APIGroups, ",")+" "+resource+named] = strings.Join(rule.Verbs, " ")
				}
			}
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
		}
	}
}

// with returns rights with some more, each a resource and its verbs.
func with(rights map[string]string, more ...string) map[string]string {
	out := maps.Clone(rights)
	for i := 0; i < len(more); i += 2 {
		out[more[i]] = more[i+1]
	}
	return out
}

func without(rights map[string]string, less ...string) map[string]string {
	out := maps.Clone(rights)
	for _, resource := range less {
		delete(out, resource)
	}
	return out
}

// TestProfiles lists the roles that are bound with each profile, which is all
// that works may do.
func TestProfiles(t *testing.T) {
	for profile, want := range map[string][]string{
		"none":          {"fleetcast:test-fleetcast-agent", "fleetcast:test-fleetcast-agent:works"},
		"admin":         {"admin", "fleetcast:test-fleetcast-agent", "fleetcast:test-fleetcast-agent:works"},
		"cluster-admin": {"cluster-admin", "fleetcast:test-fleetcast-agent", "fleetcast:test-fleetcast-agent:works"},
	} {
		values := readValues(t, "agent/ci/minimal-values.yaml")
		values["rbac"] = map[string]any{"profile": profile}
		var got []string
		for _, u := range mustRender(t, "agent", "fleetcast", values).objects {
			if u.GetKind() == "ClusterRoleBinding" {
				name, _, _ := unstructured.NestedString(u.Object, "roleRef", "name")
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("profile %s binds (-want +got):\n%s", profile, diff)
		}
	}
}

// TestHubCRDs holds the CRDs that the hub may look at against those it does.
func TestHubCRDs(t *testing.T) {
	want := map[string]bool{}
	for _, crd := range crds.Hub() {
		want[crd.Name] = true
	}
	got := map[string]bool{}
	for _, u := range mustRender(t, "hub", "fleetcast", readValues(t, "hub/ci/minimal-values.yaml")).objects {
		if u.GetKind() == "ClusterRole" {
			for _, rule := range rulesOf(t, u) {
				for _, name := range rule.ResourceNames {
					got[name] = true
				}
			}
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("CRDs of the hub's role (-want +got):\n%s", diff)
	}
}
