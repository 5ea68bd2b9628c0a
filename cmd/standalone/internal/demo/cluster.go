package demo

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
)

// A field is one value of one object that the work brings to a cluster.
type field struct {
	what      string
	resource  schema.GroupVersionResource
	namespace string
	name      string
	path      []string // Empty: the object is there.
	want      string
}

func (f field) String() string {
	if len(f.path) == 0 {
		return f.what
	}
	return fmt.Sprintf("%s %q", f.what, f.want)
}

const namespace = "shop"

var (
	namespaces  = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	configMaps  = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	deployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	vouchers    = schema.GroupVersionResource{Group: "shop.example.com", Version: "v1", Resource: "vouchers"}
	applied     = schema.GroupVersionResource{Group: "work.open-cluster-management.io", Version: "v1", Resource: "appliedmanifestworks"}

	version1 = fields("grand opening", "2", "10")
	version2 = fields("summer sale", "3", "25")
)

func fields(banner, replicas, percent string) []field {
	return []field{
		{what: "namespace shop", resource: namespaces, name: namespace},
		{what: "banner", resource: configMaps, namespace: namespace, name: "settings", path: []string{"data", "banner"}, want: banner},
		{what: "replicas", resource: deployments, namespace: namespace, name: "web", path: []string{"spec", "replicas"}, want: replicas},
		{what: "voucher percent", resource: vouchers, namespace: namespace, name: "welcome", path: []string{"spec", "percent"}, want: percent},
	}
}

// A cluster is looked at as its administrator would.
type cluster struct {
	client dynamic.Interface
}

func openCluster(kubeconfig string) (*cluster, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return &cluster{client: client}, nil
}

func (c *cluster) objects(f field) dynamic.ResourceInterface {
	if f.namespace == "" {
		return c.client.Resource(f.resource)
	}
	return c.client.Resource(f.resource).Namespace(f.namespace)
}

// check returns nil if the field has its value.
func (c *cluster) check(ctx context.Context, f field) error {
	object, err := c.objects(f).Get(ctx, f.name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get %s %s: %w", f.resource.Resource, f.name, err)
	}
	if len(f.path) == 0 {
		return nil
	}
	value, _, err := unstructured.NestedFieldNoCopy(object.Object, f.path...)
	if err != nil {
		return fmt.Errorf("%s: %w", f.what, err)
	}
	if got := fmt.Sprint(value); got != f.want {
		return fmt.Errorf("%s is %q, want %q", f.what, got, f.want)
	}
	return nil
}

// absent returns nil if the field's object is not there, or its type is not.
func (c *cluster) absent(ctx context.Context, f field) error {
	_, err := c.objects(f).Get(ctx, f.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("get %s %s: %w", f.resource.Resource, f.name, err)
	}
	return fmt.Errorf("%s %s is still there", f.resource.Resource, f.name)
}

func (c *cluster) noAppliedWorks(ctx context.Context) error {
	list, err := c.client.Resource(applied).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list applied works: %w", err)
	}
	if n := len(list.Items); n > 0 {
		return fmt.Errorf("%d applied works are left", n)
	}
	return nil
}

// vandalise changes one object of the work and removes another.
func (c *cluster) vandalise(ctx context.Context) error {
	patch := []byte(`{"data":{"banner":"closed"}}`)
	maps := c.client.Resource(configMaps).Namespace(namespace)
	if _, err := maps.Patch(ctx, "settings", types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "vandal"}); err != nil {
		return fmt.Errorf("change the settings: %w", err)
	}
	if err := c.client.Resource(deployments).Namespace(namespace).Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("remove the deployment: %w", err)
	}
	return nil
}
