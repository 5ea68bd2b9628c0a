package apply

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

var autoscalerResource = schema.GroupVersionResource{Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"}

const autoscalerKind = "HorizontalPodAutoscaler"

var replicasPath = fieldpath.MakePathOrDie("spec", "replicas")

// autoscale leaves the replicas to a HorizontalPodAutoscaler from the first
// change on, if there is one for the object. It asks only when somebody scaled
// it to something else than the manifest says.
func autoscale(ctx context.Context, c *client, m *manifest, live *unstructured.Unstructured, known memory) memory {
	if known.contests[replicasPath.String()].lost() {
		return known
	}
	want, asked := fieldAt(m.object.Object, replicasPath)
	have, there := fieldAt(live.Object, replicasPath)
	if !asked || !there || contains(have, want, false) {
		return known
	}
	for _, by := range claimed(live, m.object, ours{updateManager, metav1.ManagedFieldsOperationUpdate}, false) {
		if !by.scaling || !by.path.Equals(replicasPath) {
			continue
		}
		scaled, err := c.autoscaled(ctx, m)
		if err != nil || !scaled {
			return known // Then it is found out by putting the replicas back.
		}
		by.manager = autoscalerKind
		return known.leave(by)
	}
	return known
}

// autoscaled says whether there is a HorizontalPodAutoscaler for the object. Its
// name is not the work's to know: it may be of others.
func (c *client) autoscaled(ctx context.Context, m *manifest) (bool, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	list, err := c.objects.Resource(autoscalerResource).Namespace(m.object.GetNamespace()).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, fmt.Errorf("list the autoscalers: %w", err)
	}
	for i := range list.Items {
		target, _, err := unstructured.NestedStringMap(list.Items[i].Object, "spec", "scaleTargetRef")
		if err != nil {
			continue
		}
		gv, err := schema.ParseGroupVersion(target["apiVersion"])
		if err == nil && gv.Group == m.meta.Group && target["kind"] == m.meta.Kind && target["name"] == m.object.GetName() {
			return true, nil
		}
	}
	return false, nil
}
