package charts_test

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
)

const fieldManager = "helm"

// install applies what a chart renders, as Helm does, and removes it at the end
// of the test.
func install(t *testing.T, c client.Client, r *release) {
	t.Helper()
	for _, u := range r.objects {
		// Its CRD is the Prometheus operator's.
		if u.GetKind() == "ServiceMonitor" {
			continue
		}
		if err := c.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(u.DeepCopy()),
			client.FieldOwner(fieldManager), client.ForceOwnership); err != nil {
			t.Fatalf("apply %s %s: %v", u.GetKind(), u.GetName(), err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			if err := c.Delete(ctx, u); err != nil && !apierrors.IsNotFound(err) {
				t.Errorf("delete %s %s: %v", u.GetKind(), u.GetName(), err)
			}
		})
	}
}

// newClient reports unknown and repeated fields as errors, as kubectl does.
func newClient(t *testing.T) client.Client {
	t.Helper()
	c, err := client.New(apitest.Shared(t).Config(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return client.WithFieldValidation(c, metav1.FieldValidationStrict)
}

// restricted makes a namespace that takes pods of the strictest security
// standard only.
func restricted(t *testing.T) string {
	t.Helper()
	server := apitest.Shared(t)
	namespace := server.Namespace(t)
	clients, err := kubernetes.NewForConfig(server.Config())
	if err != nil {
		t.Fatal(err)
	}
	patch := []byte(`{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`)
	if _, err := clients.CoreV1().Namespaces().Patch(t.Context(), namespace, "application/merge-patch+json", patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	return namespace
}

// TestAccepted installs every chart with every file of values, and makes the
// pods that the workloads' controllers would make.
func TestAccepted(t *testing.T) {
	c := newClient(t)
	eachValues(t, func(t *testing.T, chart string, values map[string]any) {
		namespace := restricted(t)
		r := mustRender(t, chart, namespace, values)
		install(t, c, r)
		pods := 0
		for _, u := range r.objects {
			template := podTemplate(t, u)
			if template == nil {
				continue
			}
			pods++
			pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
			pod.Name, pod.Namespace = u.GetName()+"-0", namespace
			for _, claim := range claims(t, u) {
				pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: claim, VolumeSource: corev1.VolumeSource{
					PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim + "-" + pod.Name},
				}})
			}
			if err := c.Create(t.Context(), pod); err != nil {
				t.Errorf("make the pod of %s: %v", u.GetName(), err)
			}
		}
		if pods != 1 {
			t.Errorf("%d workloads, want 1", pods)
		}
	})
}

func claims(t *testing.T, u *unstructured.Unstructured) []string {
	t.Helper()
	list, _, err := unstructured.NestedSlice(u.Object, "spec", "volumeClaimTemplates")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, item := range list {
		claim, _ := item.(map[string]any)
		name, _, _ := unstructured.NestedString(claim, "metadata", "name")
		names = append(names, name)
	}
	return names
}

// TestStandardIsEnforced makes sure that TestAccepted can fail.
func TestStandardIsEnforced(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: restricted(t), Name: "loose"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "a"}}},
	}
	if err := newClient(t).Create(t.Context(), pod); err == nil || !strings.Contains(err.Error(), "PodSecurity") {
		t.Errorf("a pod without security context: got %v, want it refused by PodSecurity", err)
	}
}
