package apiserver

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
)

const (
	namespaceWorkers = 4
	garbageWorkers   = 4
	// discoveryPeriod is after how long the garbage collector knows a new kind of
	// object. kube-controller-manager has 30 s, a long time in a demonstration.
	discoveryPeriod = 5 * time.Second
	resyncPeriod    = 10 * time.Minute
)

// startControllers runs what deletes the content of deleted namespaces and the
// dependents of deleted owners, and what gives namespaces their default service
// account. They end with ctx.
func startControllers(ctx context.Context, config *rest.Config) (*sync.WaitGroup, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make the controllers' client: %w", err)
	}
	metadataClient, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make the controllers' metadata client: %w", err)
	}
	objects := informers.NewSharedInformerFactory(client, resyncPeriod)
	partial := metadatainformer.NewSharedInformerFactory(metadataClient, resyncPeriod)

	namespaces := namespace.NewNamespaceController(ctx, client, metadataClient,
		client.Discovery().ServerPreferredNamespacedResources,
		objects.Core().V1().Namespaces(), resyncPeriod, corev1.FinalizerKubernetes)

	accounts, err := serviceaccount.NewServiceAccountsController(klog.FromContext(ctx),
		objects.Core().V1().ServiceAccounts(), objects.Core().V1().Namespaces(), client,
		serviceaccount.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return nil, fmt.Errorf("set up the service account controller: %w", err)
	}

	informersStarted := make(chan struct{})
	garbage, err := garbagecollector.NewGarbageCollector(ctx, client, metadataClient,
		restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery())),
		garbagecollector.DefaultIgnoredResources(),
		informerfactory.NewInformerFactory(objects, partial), informersStarted)
	if err != nil {
		return nil, fmt.Errorf("set up the garbage collector: %w", err)
	}

	objects.Start(ctx.Done())
	partial.Start(ctx.Done())
	close(informersStarted)

	var running sync.WaitGroup
	running.Go(func() { namespaces.Run(ctx, namespaceWorkers) })
	running.Go(func() { accounts.Run(ctx, 1) })
	running.Go(func() { garbage.Run(ctx, garbageWorkers, discoveryPeriod) })
	running.Go(func() { garbage.Sync(ctx, client.Discovery(), discoveryPeriod) })
	return &running, nil
}
