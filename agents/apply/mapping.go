package apply

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A resource is where the server serves a kind.
type resource struct {
	schema.GroupVersionResource
	namespaced bool
}

// errNoKind says that the cluster does not serve a kind.
var errNoKind = errors.New("the cluster does not serve this kind")

// A mapper finds the resource of a kind. It asks the server for one group and
// version at a time, remembers the answer for good, and asks again for what
// was missing at most once per interval: manifests of a missing CRD, retried
// for weeks, cost next to nothing.
type mapper struct {
	discover func(groupVersion string) (*metav1.APIResourceList, error)
	interval time.Duration

	mu     sync.Mutex
	groups map[schema.GroupVersion]*servedGroup
}

type servedGroup struct {
	mu      sync.Mutex // Held while asking, so that one asks for all.
	kinds   map[string]resource
	asked   time.Time
	failure error
}

// mostGroups bounds what manifests of made-up groups can make a mapper remember.
const mostGroups = 2000

func newMapper(discover func(string) (*metav1.APIResourceList, error), interval time.Duration) *mapper {
	return &mapper{discover: discover, interval: interval, groups: make(map[schema.GroupVersion]*servedGroup)}
}

// resource finds where the kind is served. The error wraps errNoKind if it is
// not.
func (m *mapper) resource(kind schema.GroupVersionKind) (resource, error) {
	g := m.group(kind.GroupVersion())
	g.mu.Lock()
	defer g.mu.Unlock()
	if r, ok := g.kinds[kind.Kind]; ok {
		return r, nil
	}
	if g.asked.IsZero() || time.Since(g.asked) >= m.interval {
		g.failure = m.ask(g, kind.GroupVersion())
		g.asked = time.Now()
	}
	if r, ok := g.kinds[kind.Kind]; ok {
		return r, nil
	}
	if g.failure != nil {
		return resource{}, g.failure
	}
	return resource{}, fmt.Errorf("%s in %s: %w; is its CustomResourceDefinition installed?",
		clip(kind.Kind), clip(kind.GroupVersion().String()), errNoKind)
}

// forget makes the next question about the group and version go to the server.
func (m *mapper) forget(gv schema.GroupVersion) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.groups, gv)
}

// forgetGroup is forget for all versions of a group.
func (m *mapper) forgetGroup(group string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.groups, func(gv schema.GroupVersion, _ *servedGroup) bool { return gv.Group == group })
}

func (m *mapper) group(gv schema.GroupVersion) *servedGroup {
	m.mu.Lock()
	defer m.mu.Unlock()
	g, ok := m.groups[gv]
	if !ok {
		if len(m.groups) >= mostGroups {
			clear(m.groups)
		}
		g = &servedGroup{}
		m.groups[gv] = g
	}
	return g
}

func (m *mapper) ask(g *servedGroup, gv schema.GroupVersion) error {
	list, err := m.discover(gv.String())
	if apierrors.IsNotFound(err) {
		g.kinds = nil
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask for the kinds in %s: %w", gv, err)
	}
	g.kinds = make(map[string]resource, len(list.APIResources))
	for _, r := range list.APIResources {
		if strings.Contains(r.Name, "/") {
			continue // A subresource.
		}
		g.kinds[r.Kind] = resource{gv.WithResource(r.Name), r.Namespaced}
	}
	return nil
}
