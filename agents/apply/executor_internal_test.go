package apply

import (
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestLacksRight quotes API servers.
func TestLacksRight(t *testing.T) {
	configMaps := schema.GroupResource{Resource: "configmaps"}
	const who = `"system:serviceaccount:team:deployer"`
	for _, tt := range []struct {
		reason string
		err    error
		want   bool
	}{
		{"no role", apierrors.NewForbidden(configMaps, "m", errors.New(`User `+who+` cannot patch resource "configmaps" in API group "" in the namespace "team"`)), true},
		{"the agent may not act as the executor", apierrors.NewForbidden(schema.GroupResource{Resource: "serviceaccounts"}, "deployer",
			errors.New(`User "system:serviceaccount:fleetcast:agent" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "team"`)), true},
		{"more rights than it has", apierrors.NewForbidden(configMaps, "m",
			errors.New(`user `+who+` (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:`)), true},
		{"a quota", apierrors.NewForbidden(configMaps, "m", errors.New("exceeded quota: few, requested: count/configmaps=1, used: count/configmaps=1, limited: count/configmaps=1")), false},
		{"a policy that quotes the user", apierrors.NewForbidden(configMaps, "m", errors.New(`admission webhook "validation.gatekeeper.sh" denied the request: forbidden: User "x" cannot have it`)), false},
		{"a webhook", apierrors.NewForbidden(configMaps, "m", errors.New(`violates PodSecurity "restricted:latest"`)), false},
		{"no object", apierrors.NewNotFound(configMaps, "m"), false},
		{"no answer", errors.New("no route to host"), false},
	} {
		if got := lacksRight(tt.err); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.reason, got, tt.want)
		}
	}
}
