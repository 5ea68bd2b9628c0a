package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/pager"
	clusterv1 "open-cluster-management.io/api/cluster/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/version"
)

var (
	workKind        = schema.GroupVersionKind{Group: workv1.GroupName, Version: "v1", Kind: "ManifestWork"}
	workResource    = schema.GroupVersionResource{Group: workv1.GroupName, Version: "v1", Resource: "manifestworks"}
	clusterResource = schema.GroupVersionResource{Group: clusterv1.GroupName, Version: "v1", Resource: "managedclusters"}
	eventResource   = schema.GroupVersionResource{Version: "v1", Resource: "events"}
)

// rewatch is how long to wait before a watch that ended is begun again.
const rewatch = time.Second

// A hub is the API server that the connection flags choose, and the streams of
// the command that talks to it. Works are read without their Go types, so that
// they are printed as the API gives them.
type hub struct {
	genericiooptions.IOStreams

	config *genericclioptions.ConfigFlags
	client dynamic.Interface
	host   string
}

func newHub(streams genericiooptions.IOStreams) *hub {
	config := genericclioptions.NewConfigFlags(true)
	// --cluster is a cluster of the fleet here, and nothing is cached.
	config.ClusterName = nil
	config.CacheDir = nil
	config.DisableCompression = nil
	return &hub{IOStreams: streams, config: config}
}

func (h *hub) addFlags(root *cobra.Command) {
	h.config.AddFlags(root.PersistentFlags())
	root.PersistentFlags().Lookup("namespace").Usage = "The same as --cluster: a cluster's works are in the namespace of its name"
}

// connect reads the kubeconfig. It does not speak to the API server.
func (h *hub) connect() error {
	if h.client != nil {
		return nil
	}
	config, err := h.config.ToRESTConfig()
	if err != nil {
		return explain(err, "read the kubeconfig", "")
	}
	raw, err := h.config.ToRawKubeConfigLoader().RawConfig()
	if err == nil && len(raw.Clusters) == 0 && *h.config.APIServer == "" && strings.HasPrefix(config.Host, "http://localhost") {
		// client-go's guess for want of anything better.
		return errors.New("no hub is configured. Set KUBECONFIG, or give --kubeconfig or --server")
	}
	config.UserAgent = "fleetcast/" + version.Get().Version
	config.WarningHandler = rest.NewWarningWriter(h.ErrOut, rest.WarningWriterOptions{Deduplicate: true})
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return explain(err, "use the kubeconfig", config.Host)
	}
	h.client, h.host = client, config.Host
	return nil
}

// explain is explain for the API server of h.
func (h *hub) explain(err error, format string, args ...any) error {
	return explain(err, fmt.Sprintf(format, args...), h.host)
}

// work reads one work. A missing one is an error with exitNotFound.
func (h *hub) work(ctx context.Context, cluster, name string) (*unstructured.Unstructured, error) {
	u, err := h.client.Resource(workResource).Namespace(cluster).Get(ctx, name, metav1.GetOptions{})
	if isObjectNotFound(err) {
		return nil, notFoundf("work %q does not exist on cluster %q. See what does: fleetcast get works --cluster %s", name, cluster, cluster)
	}
	return u, h.explain(err, "read work %q of cluster %q", name, cluster)
}

// isObjectNotFound tells a missing object from an API that is not served.
func isObjectNotFound(err error) bool {
	var status apierrors.APIStatus
	return apierrors.IsNotFound(err) && errors.As(err, &status) && status.Status().Details != nil && status.Status().Details.Name != ""
}

// list reads all objects of a resource, page by page; namespace "" means all.
// It returns them with the version of the list, from which a watch continues.
func (h *hub) list(ctx context.Context, resource schema.GroupVersionResource, namespace string, options metav1.ListOptions) ([]*unstructured.Unstructured, string, error) {
	p := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return h.client.Resource(resource).Namespace(namespace).List(ctx, options)
	})
	list, _, err := p.List(ctx, options)
	if err != nil {
		return nil, "", err
	}
	var found []*unstructured.Unstructured
	err = meta.EachListItem(list, func(o runtime.Object) error {
		u, ok := o.(*unstructured.Unstructured)
		if !ok {
			return fmt.Errorf("unexpected %T in a list of %s", o, resource.Resource)
		}
		found = append(found, u)
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	accessor, err := meta.ListAccessor(list)
	if err != nil {
		return nil, "", err
	}
	// The API sorts by namespace and name, except while pages come from
	// different versions.
	slices.SortFunc(found, byClusterAndName)
	return found, accessor.GetResourceVersion(), nil
}

// follow calls see for the objects of a resource in the cluster's namespace that
// match now (Added), once with a nil object when all of them were seen (Bookmark),
// and then for every change (Modified, which includes new objects, and Deleted),
// until see returns true, fails, or ctx ends. After an interruption of the watch
// it starts over: what was deleted meanwhile is then not among the Added. Only
// the first failure to list is returned: later ones are waited out, because
// whoever follows has a deadline or an interrupt key.
func (h *hub) follow(ctx context.Context, resource schema.GroupVersionResource, cluster string, options metav1.ListOptions, see func(watch.EventType, *unstructured.Unstructured) (bool, error)) error {
	for first := true; ; first = false {
		objects, listed, err := h.list(ctx, resource, cluster, options)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			for _, o := range objects {
				if done, err := see(watch.Added, o); done || err != nil {
					return err
				}
			}
			if done, err := see(watch.Bookmark, nil); done || err != nil {
				return err
			}
			from := options
			from.ResourceVersion = listed
			if done, err := h.watch(ctx, resource, cluster, from, see); done || err != nil {
				return err
			}
		case first:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rewatch):
		}
	}
}

// watch calls see for every change after options.ResourceVersion, until the
// watch ends for whatever reason.
func (h *hub) watch(ctx context.Context, resource schema.GroupVersionResource, cluster string, options metav1.ListOptions, see func(watch.EventType, *unstructured.Unstructured) (bool, error)) (bool, error) {
	w, err := h.client.Resource(resource).Namespace(cluster).Watch(ctx, options)
	if apierrors.IsForbidden(err) {
		return false, err
	}
	if err != nil {
		// Listing says whether this lasts.
		return false, nil
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case e, ok := <-w.ResultChan():
			if !ok {
				return false, nil
			}
			u, ok := e.Object.(*unstructured.Unstructured)
			if !ok || e.Type == watch.Error || e.Type == watch.Bookmark {
				continue
			}
			event := e.Type
			if event == watch.Added {
				// Added stands for what a listing found.
				event = watch.Modified
			}
			if done, err := see(event, u); done || err != nil {
				return done, err
			}
		}
	}
}

func byClusterAndName(a, b *unstructured.Unstructured) int {
	return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
}

// typed converts a work to its Go type.
func typed(u *unstructured.Unstructured) (*workv1.ManifestWork, error) {
	w := &workv1.ManifestWork{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, w); err != nil {
		return nil, fmt.Errorf("read work %q of cluster %q: %w", u.GetName(), u.GetNamespace(), err)
	}
	return w, nil
}
