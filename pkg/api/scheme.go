package api

import (
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	addonv1alpha1 "open-cluster-management.io/api/addon/v1alpha1"
	addonv1beta1 "open-cluster-management.io/api/addon/v1beta1"
	clusterv1 "open-cluster-management.io/api/cluster/v1"
	clusterv1alpha1 "open-cluster-management.io/api/cluster/v1alpha1"
	clusterv1beta1 "open-cluster-management.io/api/cluster/v1beta1"
	clusterv1beta2 "open-cluster-management.io/api/cluster/v1beta2"
	workv1 "open-cluster-management.io/api/work/v1"
	workv1alpha1 "open-cluster-management.io/api/work/v1alpha1"

	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
)

// NewScheme returns a scheme with the OCM work, cluster and add-on APIs, this
// project's own, CRDs, and those Kubernetes kinds that hub and agent use with
// their Go types. Every call returns a new scheme, for the caller to extend.
func NewScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		workv1.Install, workv1alpha1.Install,
		clusterv1.Install, clusterv1alpha1.Install, clusterv1beta1.Install, clusterv1beta2.Install,
		addonv1alpha1.Install, addonv1beta1.Install,
		v1alpha1.Install,
		apiextensionsv1.AddToScheme,
		corev1.AddToScheme, coordinationv1.AddToScheme, certificatesv1.AddToScheme, rbacv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			// Registration fails only for two Go types under one kind.
			panic(fmt.Sprintf("register API types: %v", err))
		}
	}
	return scheme
}
