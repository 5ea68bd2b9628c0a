package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/fleetcast-io/fleetcast/agents/apply/ignore"
	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// reduce returns the manifest without the fields that its work ignores now, and
// the sum by which it is recognised on the live object.
//
// Fields that are ignored on presence never count, but for the creation. Those
// that are ignored on change count in the sum: once the manifest changes, all of
// it is applied again.
func reduce(ctx context.Context, t task, live *unstructured.Unstructured) (intent *unstructured.Unstructured, sum string, err error) {
	intent = t.object.DeepCopy()
	if t.option.ignored == nil {
		return intent, applySum(t.sum, t.option.fieldManager), nil
	}
	reduced := t.object.DeepCopy()
	if err := t.option.ignored.Remove(ctx, reduced.Object, workv1.IgnoreFieldsConditionOnSpokePresent); err != nil {
		return nil, "", err
	}
	sum = applySum(digestJSON(reduced.Object), t.option.fieldManager)
	if live == nil {
		return intent, sum, nil
	}
	ignored := []workv1.IgnoreFieldsCondition{workv1.IgnoreFieldsConditionOnSpokePresent}
	if live.GetAnnotations()[api.SpecHashAnnotation] == sum {
		ignored = append(ignored, workv1.IgnoreFieldsConditionOnSpokeChange)
		if err := t.option.ignored.Remove(ctx, reduced.Object, workv1.IgnoreFieldsConditionOnSpokeChange); err != nil {
			return nil, "", err
		}
	}
	if err := keepOwned(ctx, t, live, reduced, ignored); err != nil {
		return nil, "", err
	}
	// Had somebody changed an ignored field since it was read, it would be written
	// over: so the server is told which state this was made for.
	reduced.SetResourceVersion(live.GetResourceVersion())
	return reduced, sum, nil
}

// keepOwned puts the ignored fields that nobody but us ever set into the reduced
// manifest, as they are on the live object: the server removes what a manager
// had applied and does not apply any more.
func keepOwned(ctx context.Context, t task, live, reduced *unstructured.Unstructured, ignored []workv1.IgnoreFieldsCondition) error {
	left := live.DeepCopy()
	left.SetManagedFields(nil)
	for _, condition := range ignored {
		if err := t.option.ignored.Remove(ctx, left.Object, condition); err != nil {
			return fmt.Errorf("on the live object: %w", err)
		}
	}
	self := ours{t.option.fieldManager, metav1.ManagedFieldsOperationApply}
	i := slices.IndexFunc(live.GetManagedFields(), self.has)
	if i < 0 {
		return nil
	}
	ownedFields(live.GetManagedFields()[i]).Iterate(func(path fieldpath.Path) {
		have, ok := fieldAt(live.Object, path)
		if !ok || !isManifests(path) {
			return
		}
		if _, still := fieldAt(reduced.Object, path); still {
			return
		}
		_, asked := fieldAt(t.object.Object, path)
		_, counts := fieldAt(left.Object, path)
		if asked || !counts {
			withField(reduced.Object, path, have)
		}
	})
	return nil
}

// unreduced is the outcome of a manifest whose ignored fields cannot be found.
func unreduced(m *manifest, err error, there presence) outcome {
	err = fmt.Errorf("serverSideApply.ignoreFields: %w", err)
	o := refused(err)
	if errors.Is(err, ignore.ErrBudget) {
		o = failure(m.gvk(), err) // The machine may have been busy.
	}
	o.reason, o.presence = api.ReasonManifestIgnoreFailed, there
	return o
}
