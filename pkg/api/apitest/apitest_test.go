package apitest_test

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
)

func TestMain(m *testing.M) { apitest.Main(m, apitest.Full) }

func TestSharedServerGivesEachTestANamespace(t *testing.T) {
	server := apitest.Shared(t)
	if again := apitest.Shared(t); again != server {
		t.Error("a second server was started for the same package")
	}
	first, second := server.Namespace(t), server.Namespace(t)
	if first == second {
		t.Fatalf("two tests would share namespace %s", first)
	}
	client := kubernetes.NewForConfigOrDie(server.Config())
	if _, err := client.AppsV1().Deployments(first).List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("a full server does not serve deployments: %v", err)
	}
}

func TestObjectsSurviveTheServer(t *testing.T) {
	server := apitest.Start(t, apitest.Hub)
	client := kubernetes.NewForConfigOrDie(server.Config())
	for name, end := range map[string]func(testing.TB){"stopped": server.Stop, "killed": server.Kill} {
		namespace := server.Namespace(t)
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := client.CoreV1().ConfigMaps(namespace).Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
			t.Fatalf("create before the server is %s: %v", name, err)
		}
		end(t)
		if _, err := client.CoreV1().ConfigMaps(namespace).Get(t.Context(), name, metav1.GetOptions{}); err == nil {
			t.Fatalf("the server that was %s still answers", name)
		}
		server.Restart(t)
		var last error
		if err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
			_, last = client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
			return last == nil, nil
		}); err != nil {
			t.Errorf("the client from before the server was %s: %v", name, last)
		}
	}
}
