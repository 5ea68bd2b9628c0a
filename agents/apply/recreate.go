package apply

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fleetcast-io/fleetcast/agents/executor"
)

// mustRecreate says whether the server refuses to make live into next for good,
// and nothing is lost if the object is made anew: secrets and config maps that
// are immutable, secrets of another type, and kinds whose rule says so. Other
// kinds with fields that cannot change have a state of their own, and the work's
// author must decide.
func mustRecreate(m *manifest, live, next *unstructured.Unstructured) bool {
	if kindRules[m.gvk().GroupKind()].recreate {
		return true
	}
	if m.gvk().Group != "" || (m.gvk().Kind != "ConfigMap" && m.gvk().Kind != "Secret") {
		return false
	}
	immutable, _, _ := unstructured.NestedBool(live.Object, "immutable")
	return immutable || live.Object["type"] != next.Object["type"]
}

// recreateObject deletes live and creates next in its place, with the labels,
// annotations and owners of others. A dry run comes first: were the new object
// refused, the old one would be lost.
func recreateObject(ctx context.Context, c *client, t task, live, next *unstructured.Unstructured) (did applied, conflict bool) {
	u := next.DeepCopy()
	u.Object["metadata"] = map[string]any{"name": live.GetName(), "namespace": live.GetNamespace()}
	u.SetLabels(next.GetLabels())
	u.SetAnnotations(next.GetAnnotations())
	u.SetOwnerReferences(next.GetOwnerReferences())

	failed := func(err error) applied {
		return applied{outcome: withPresence(failure(t.gvk(), err), present)}
	}
	if err := c.dryCreate(ctx, t.manifest, u); err != nil && !apierrors.IsAlreadyExists(err) {
		return failed(err), false
	}
	err := t.mayReplace(ctx)
	if _, no := errors.AsType[*executor.DeniedError](err); no {
		return applied{outcome: withPresence(refused(err), present), live: live}, false
	} else if err != nil {
		return failed(err), false
	}
	err = c.remove(ctx, entry{objectID: t.id(), Version: t.resource.Version}, live)
	switch {
	case apierrors.IsConflict(err) || apierrors.IsNotFound(err):
		return applied{}, true
	case err != nil:
		return failed(err), false
	}
	after, err := c.create(ctx, t.manifest, u)
	switch {
	case apierrors.IsAlreadyExists(err): // Finalizers keep the old one, or somebody was faster.
		return applied{}, true
	case err != nil:
		err = fmt.Errorf("create it again with what could not be changed: %w", err)
		return applied{outcome: withPresence(failure(t.gvk(), err), absent)}, false
	}
	return applied{outcome: done(configured), live: after, result: digestLive(after)}, false
}

// dryCreate fails with AlreadyExists if u is valid and there is one of its name.
func (c *client) dryCreate(ctx context.Context, m *manifest, u *unstructured.Unstructured) error {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	_, err := c.of(m.resource, u.GetNamespace()).Create(ctx, u, metav1.CreateOptions{
		FieldManager: updateManager, DryRun: []string{metav1.DryRunAll},
	})
	return err
}
