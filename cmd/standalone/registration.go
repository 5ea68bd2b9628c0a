package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	clusterv1 "open-cluster-management.io/api/cluster/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// crdInterval is the wait between looks at whether the hub installed its CRDs.
const crdInterval = 100 * time.Millisecond

// registerCluster makes the hub know a cluster: a ManagedCluster, accepted, and
// the namespace of the same name that holds its works. It waits for the hub to
// install its CRDs. What is there already stays as it is.
func registerCluster(ctx context.Context, config *rest.Config, name string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	cluster := &clusterv1.ManagedCluster{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       clusterv1.ManagedClusterSpec{HubAcceptsClient: true},
	}
	c, err := client.New(config, client.Options{Scheme: api.NewScheme()})
	if err != nil {
		return fmt.Errorf("make a client of the hub: %w", err)
	}
	for _, object := range []client.Object{namespace, cluster} {
		if err := createWhenServed(ctx, c, object); err != nil {
			return fmt.Errorf("register %s at the hub: %w", name, err)
		}
	}
	return nil
}

// createWhenServed creates an object as soon as the API server serves its kind.
func createWhenServed(ctx context.Context, c client.Client, object client.Object) error {
	ticker := time.NewTicker(crdInterval)
	defer ticker.Stop()
	for {
		err := c.Create(ctx, object)
		switch {
		case err == nil, apierrors.IsAlreadyExists(err):
			return nil
		case !meta.IsNoMatchError(err) && !apierrors.IsNotFound(err):
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
