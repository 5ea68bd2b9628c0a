package hub_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/sources/kube"
)

// TestRestoreEndsTheHub: a hub whose API server is put back to a backup ends, so
// that it is started anew. It outlives an API server that was merely away, and so
// does the one that is started anew.
func TestRestoreEndsTheHub(t *testing.T) {
	server := apitest.Start(t, apitest.Hub)
	cluster, b := server.Namespace(t), mem.NewBroker(mem.Options{})
	direct, err := client.New(server.Config(), client.Options{Scheme: api.NewScheme()})
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, config(server, b))
	eventually(t, "the hub is ready", func() error { return r.ready(t) })
	backup := server.BackUp(t)
	eventually(t, "the hub is ready again", func() error { return r.ready(t) })

	notes := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: cluster, Name: "notes"}}
	eventually(t, "a note is taken", func() error { return client.IgnoreAlreadyExists(direct.Create(t.Context(), notes)) })
	for i := range 200 { // What an hour or a night writes.
		notes.Data, notes.ResourceVersion = map[string]string{"n": fmt.Sprint(i)}, ""
		eventually(t, "another note is taken", func() error { return direct.Update(t.Context(), notes) })
	}
	w := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Namespace: cluster, Name: "web"}}
	w.Spec.Workload.Manifests = []workv1.Manifest{{RawExtension: runtime.RawExtension{
		Raw: []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"web","namespace":"default"}}`),
	}}}
	eventually(t, "a work is made", func() error { return client.IgnoreAlreadyExists(direct.Create(t.Context(), w)) })
	eventually(t, "the hub has seen it", func() error {
		if err := direct.Get(t.Context(), client.ObjectKeyFromObject(w), w); err != nil {
			return err
		}
		if len(w.Finalizers) == 0 {
			return errors.New("it has no finalizer")
		}
		return nil
	})
	select {
	case err := <-r.done:
		t.Fatalf("before the restore the hub ended with %v", err)
	default:
	}

	backup.Restore(t)
	select {
	case err := <-r.done:
		if !errors.Is(err, kube.ErrRewound) || !strings.Contains(err.Error(), "started again") {
			t.Errorf("the hub ended with %v, want one that says that the API server was restored and what to do", err)
		}
	case <-time.After(patience):
		t.Fatalf("the hub has not noticed within %s", patience)
	}
	r = start(t, config(server, b))
	eventually(t, "the next hub is ready", func() error { return r.ready(t) })
}
