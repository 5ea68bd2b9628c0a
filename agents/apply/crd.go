package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fleetcast-io/fleetcast/pkg/api/crds"
)

const (
	crdPoll = 50 * time.Millisecond

	appliedWorkCRD = "appliedmanifestworks.work.open-cluster-management.io"
)

var crdResource = resource{GroupVersionResource: apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")}

func isCRD(k schema.GroupVersionKind) bool {
	return k.Group == apiextensionsv1.GroupName && k.Kind == "CustomResourceDefinition"
}

// InstallCRD makes the cluster serve AppliedManifestWork. One that is installed
// already is left as it is, and nothing is written then: an API server that
// takes no writes does not keep the agent from starting. It returns when the
// kind is served.
func (a *Applier) InstallCRD(ctx context.Context) error {
	installed, err := a.hasCRD(ctx, appliedWorkCRD)
	if err != nil {
		return fmt.Errorf("look for the CRD of AppliedManifestWork: %w", err)
	}
	for _, crd := range crds.Agent() {
		if installed || crd.Name != appliedWorkCRD {
			continue
		}
		crd.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(crd)
		if err != nil {
			return fmt.Errorf("convert the CRD of AppliedManifestWork: %w", err)
		}
		delete(content, "status")
		call, cancel := a.client.limit(ctx)
		defer cancel()
		_, err = a.client.of(crdResource, "").Create(call, &unstructured.Unstructured{Object: content},
			metav1.CreateOptions{FieldManager: updateManager})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("install the CRD of AppliedManifestWork: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, a.options.Establish)
	defer cancel()
	if err := a.client.untilEstablished(ctx, appliedWorkCRD); err != nil {
		return fmt.Errorf("wait for the CRD of AppliedManifestWork: %w", err)
	}
	return nil
}

func (a *Applier) hasCRD(ctx context.Context, name string) (bool, error) {
	ctx, cancel := a.client.limit(ctx)
	defer cancel()
	_, err := a.client.of(crdResource, "").Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// definedKinds are the kinds that the CRDs among the manifests define. Their
// resources are known before the server serves them.
func definedKinds(manifests []*manifest) map[schema.GroupVersionKind]resource {
	defined := make(map[schema.GroupVersionKind]resource)
	for _, m := range manifests {
		if m.object == nil || !isCRD(m.gvk()) {
			continue
		}
		group, kind := crdKind(m.object)
		plural, _, _ := unstructured.NestedString(m.object.Object, "spec", "names", "plural")
		scope, _, _ := unstructured.NestedString(m.object.Object, "spec", "scope")
		versions, _, _ := unstructured.NestedSlice(m.object.Object, "spec", "versions")
		if group == "" || kind == "" || plural == "" {
			continue
		}
		for _, v := range versions {
			version, ok := v.(map[string]any)
			if !ok {
				continue
			}
			if name, ok := version["name"].(string); ok && name != "" {
				defined[schema.GroupVersionKind{Group: group, Version: name, Kind: kind}] = resource{
					schema.GroupVersionResource{Group: group, Version: name, Resource: plural},
					scope == string(apiextensionsv1.NamespaceScoped),
				}
			}
		}
	}
	return defined
}

func crdKind(u *unstructured.Unstructured) (group, kind string) {
	group, _, _ = unstructured.NestedString(u.Object, "spec", "group")
	kind, _, _ = unstructured.NestedString(u.Object, "spec", "names", "kind")
	return group, kind
}

// awaitCRD waits for a CRD that was written to be established, so that its
// instances, which come later in the same work, find it served. If that takes
// too long they fail and are tried again.
func (a *Applier) awaitCRD(ctx context.Context, c *client, m *manifest, established map[schema.GroupKind]bool) {
	group, kind := crdKind(m.object)
	for defined := range definedKinds([]*manifest{m}) {
		a.mapper.forget(defined.GroupVersion())
	}
	ctx, cancel := context.WithTimeout(ctx, a.options.Establish)
	defer cancel()
	if err := c.untilEstablished(ctx, m.object.GetName()); err != nil {
		a.log.Debug("CRD is not established yet", "crd", m.object.GetName(), "error", err)
		return
	}
	established[schema.GroupKind{Group: group, Kind: kind}] = true
}

func (c *client) untilEstablished(ctx context.Context, name string) error {
	for {
		live, err := c.of(crdResource, "").Get(ctx, name, metav1.GetOptions{})
		if err == nil && isEstablished(live) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(crdPoll):
		}
	}
}

func isEstablished(crd *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	for _, c := range conditions {
		condition, ok := c.(map[string]any)
		if ok && condition["type"] == string(apiextensionsv1.Established) {
			return condition["status"] == string(apiextensionsv1.ConditionTrue)
		}
	}
	return false
}

// untilServed repeats a strategy while the server does not serve the type yet.
func (a *Applier) untilServed(ctx context.Context, c *client, t task, did applied) applied {
	deadline := time.NewTimer(a.options.Establish)
	defer deadline.Stop()
	for did.outcome.err != nil && typeMissing(did.outcome.err) {
		select {
		case <-ctx.Done():
			return did
		case <-deadline.C:
			return did
		case <-time.After(crdPoll):
		}
		did = strategies[t.option.strategy](ctx, c, t)
	}
	return did
}
