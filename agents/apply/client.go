package apply

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	workclient "open-cluster-management.io/api/client/work/clientset/versioned/typed/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/executor"
)

const (
	userAgent = "fleetcast-agent"

	// updateManager signs what is written other than by server-side apply, so
	// that the two never count as one owner of a field.
	updateManager = userAgent
)

// A client talks to the cluster. Every call but a watch ends within timeout.
// Within that it waits for as long as the API server asks to, and so do all
// calls that come later; see pauses.
type client struct {
	objects  dynamic.Interface
	metadata metadata.Interface
	works    workclient.AppliedManifestWorkInterface
	kinds    *directory
	timeout  time.Duration

	reviews   reviews
	executors *executor.Clients
	// own is the agent's own client if objects are read and written as an
	// executor, and nil in it.
	own *client
}

func newClient(cfg *rest.Config, timeout time.Duration, writes writeCounter) (*client, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.UserAgent = userAgent
	cfg.Timeout = 0 // It would end watches as well.
	cfg.WarningHandlerWithContext = rest.NoWarnings{}
	if cfg.QPS == 0 && cfg.RateLimiter == nil {
		// The number of calls under way is bounded by the works applied at a
		// time, and the server has priority and fairness to protect itself: a
		// rate here would only slow down the first sync of a cluster.
		cfg.QPS = -1
	}
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return newPauses(countWrites{next, writes}) })
	transport, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("set up the connection to the API server: %w", err)
	}
	c := &client{timeout: timeout}
	if c.objects, err = dynamic.NewForConfigAndClient(cfg, transport); err != nil {
		return nil, fmt.Errorf("set up the object client: %w", err)
	}
	if c.metadata, err = metadata.NewForConfigAndClient(cfg, transport); err != nil {
		return nil, fmt.Errorf("set up the metadata client: %w", err)
	}
	works, err := workclient.NewForConfigAndClient(cfg, transport)
	if err != nil {
		return nil, fmt.Errorf("set up the work client: %w", err)
	}
	c.works = works.AppliedManifestWorks()
	c.reviews = reviews{c.objects}
	c.executors = executor.NewClients(cfg, transport, mostExecutors)
	if c.kinds, err = newDirectory(cfg, transport, timeout); err != nil {
		return nil, fmt.Errorf("set up the discovery client: %w", err)
	}
	return c, nil
}

func (c *client) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.timeout)
}

func (c *client) of(r resource, namespace string) dynamic.ResourceInterface {
	if r.namespaced {
		return c.objects.Resource(r.GroupVersionResource).Namespace(namespace)
	}
	return c.objects.Resource(r.GroupVersionResource)
}

func (c *client) get(ctx context.Context, m *manifest) (*unstructured.Unstructured, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	return c.of(m.resource, m.object.GetNamespace()).Get(ctx, m.object.GetName(), metav1.GetOptions{})
}

func (c *client) create(ctx context.Context, m *manifest, u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	return c.of(m.resource, u.GetNamespace()).Create(ctx, u, metav1.CreateOptions{FieldManager: updateManager})
}

func (c *client) update(ctx context.Context, m *manifest, u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	return c.of(m.resource, u.GetNamespace()).Update(ctx, u, metav1.UpdateOptions{FieldManager: updateManager})
}

func (c *client) applyPatch(ctx context.Context, m *manifest, u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	return c.of(m.resource, u.GetNamespace()).Apply(ctx, u.GetName(), u, metav1.ApplyOptions{
		FieldManager: m.option.fieldManager, Force: m.option.force,
	})
}

// metadataOf is the way to the metadata of an object, which is all that
// ownership and deletion need.
func (c *client) metadataOf(e entry) metadata.ResourceInterface {
	if e.Namespace != "" {
		return c.metadata.Resource(e.gvr()).Namespace(e.Namespace)
	}
	return c.metadata.Resource(e.gvr())
}

// lookUp returns the metadata of an object, nil if there is no such object or
// no such type.
func (c *client) lookUp(ctx context.Context, e entry) (*metav1.PartialObjectMetadata, error) {
	live, err := c.readMetadata(ctx, e)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return live, err
}

func (c *client) readMetadata(ctx context.Context, e entry) (*metav1.PartialObjectMetadata, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	return c.metadataOf(e).Get(ctx, e.Name, metav1.GetOptions{})
}

// find is lookUp for an object that was recorded long ago: if its version is not
// served any more, it is looked up in one that is. It returns the entry in the
// version that was used. Only if no version has the resource the object is gone
// with it.
func (c *client) find(ctx context.Context, e entry) (entry, *metav1.PartialObjectMetadata, error) {
	live, err := c.readMetadata(ctx, e)
	if typeMissing(err) {
		if e.Version, err = c.servedVersion(e); err != nil || e.Version == "" {
			return e, nil, err
		}
		live, err = c.readMetadata(ctx, e)
		if typeMissing(err) {
			return e, nil, fmt.Errorf("the API server says that it serves version %s, but it does not: %w", e.Version, err)
		}
	}
	if apierrors.IsNotFound(err) {
		return e, nil, nil
	}
	return e, live, err
}

// servedVersion returns a version that has the resource of e, the server's
// favourite first, or nothing if none has.
func (c *client) servedVersion(e entry) (string, error) {
	versions, err := c.kinds.versions(e.Group)
	if err != nil {
		return "", fmt.Errorf("ask for the versions of API group %q: %w", e.Group, err)
	}
	for _, version := range versions {
		gv := schema.GroupVersion{Group: e.Group, Version: version}
		list, err := c.kinds.kinds(gv.String())
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("ask for the kinds in %s: %w", gv, err)
		}
		if slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == e.Resource }) {
			return version, nil
		}
	}
	return "", nil
}

// setOwners writes the owners of the object that live describes. It fails with
// a conflict if the object changed meanwhile.
func (c *client) setOwners(ctx context.Context, e entry, live metav1.Object, owners []metav1.OwnerReference) (*metav1.PartialObjectMetadata, error) {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": live.GetUID(), "resourceVersion": live.GetResourceVersion(), "ownerReferences": owners,
	}})
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.limit(ctx)
	defer cancel()
	return c.metadataOf(e).Patch(ctx, e.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: updateManager})
}

// remove deletes exactly the object that live describes, in the version that
// was looked at: had somebody else become its owner meanwhile, it fails with a
// conflict.
func (c *client) remove(ctx context.Context, e entry, live metav1.Object) error {
	uid, version, background := live.GetUID(), live.GetResourceVersion(), metav1.DeletePropagationBackground
	ctx, cancel := c.limit(ctx)
	defer cancel()
	return c.metadataOf(e).Delete(ctx, e.Name, metav1.DeleteOptions{
		Preconditions:     &metav1.Preconditions{UID: &uid, ResourceVersion: &version},
		PropagationPolicy: &background,
	})
}
