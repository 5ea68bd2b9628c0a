package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/util/jsonpath"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/drivers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// resource finds the objects of one kind on a cluster, and splits [NS/]NAME.
func (w *world) resource(cluster, kind, name string) (dynamic.ResourceInterface, string, error) {
	server := w.servers[cluster]
	if server == nil {
		return nil, "", fmt.Errorf("no cluster %q in this script", cluster)
	}
	d, err := discovery.NewDiscoveryClientForConfig(server.Config())
	if err != nil {
		return nil, "", err
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(d))
	gvr, err := mapper.ResourceFor(schema.ParseGroupResource(kind).WithVersion(""))
	if err != nil {
		if meta.IsNoMatchError(err) {
			return nil, "", fmt.Errorf("%w: resource %s", errAbsent, kind)
		}
		return nil, "", err
	}
	client, err := dynamic.NewForConfig(server.Config())
	if err != nil {
		return nil, "", err
	}
	if namespace, name, ok := strings.Cut(name, "/"); ok {
		return client.Resource(gvr).Namespace(namespace), name, nil
	}
	return client.Resource(gvr), name, nil
}

func call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 10*time.Second)
}

func absent(err error) error {
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%w: %w", errAbsent, err)
	}
	return err
}

func (w *world) objectCommand(_ *testscript.TestScript, args []string) error {
	if len(args) != 3 && len(args) != 5 {
		return errors.New("usage: object CLUSTER RESOURCE [NS/]NAME [JSONPATH WANT]")
	}
	client, name, err := w.resource(args[0], args[1], args[2])
	if err != nil {
		return err
	}
	ctx, cancel := call()
	defer cancel()
	object, err := client.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return absent(err)
	}
	if len(args) == 3 {
		return nil
	}
	got, err := field(object, args[3])
	if err != nil {
		return err
	}
	if got != args[4] {
		return fmt.Errorf("%s is %q, want %q", args[3], got, args[4])
	}
	return nil
}

func field(object *unstructured.Unstructured, path string) (string, error) {
	p := jsonpath.New("field").AllowMissingKeys(true)
	if err := p.Parse(path); err != nil {
		return "", err
	}
	var out bytes.Buffer
	if err := p.Execute(&out, object.Object); err != nil {
		return "", err
	}
	return out.String(), nil
}

func (w *world) patchCommand(_ *testscript.TestScript, args []string) error {
	if len(args) != 4 {
		return errors.New("usage: patch CLUSTER RESOURCE [NS/]NAME JSON")
	}
	client, name, err := w.resource(args[0], args[1], args[2])
	if err != nil {
		return err
	}
	ctx, cancel := call()
	defer cancel()
	_, err = client.Patch(ctx, name, types.MergePatchType, []byte(args[3]), metav1.PatchOptions{FieldManager: "somebody-else"})
	return absent(err)
}

func (w *world) removeCommand(_ *testscript.TestScript, args []string) error {
	if len(args) != 3 {
		return errors.New("usage: remove CLUSTER RESOURCE [NS/]NAME")
	}
	client, name, err := w.resource(args[0], args[1], args[2])
	if err != nil {
		return err
	}
	ctx, cancel := call()
	defer cancel()
	return absent(client.Delete(ctx, name, metav1.DeleteOptions{}))
}

// publishCommand sends what a file holds, "name: value" attributes and a body
// after an empty line, as another client of the broker would.
func (w *world) publishCommand(ts *testscript.TestScript, args []string) error {
	if len(args) != 3 {
		return errors.New("usage: publish to-cluster|to-source CLUSTER FILE")
	}
	lane := map[string]brokers.Lane{"to-cluster": brokers.ToCluster, "to-source": brokers.ToSource}[args[0]]
	head, body, _ := strings.Cut(ts.ReadFile(args[2]), "\n\n")
	var e event.Event
	for line := range strings.Lines(head) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		e.Set(name, strings.TrimSpace(value))
	}
	if body != "" {
		e.Data = []byte(body)
	}
	ctx, cancel := call()
	defer cancel()
	t, err := drivers.All.Open(ctx, w.broker.url, brokers.Config{Role: brokers.RoleSource, Name: "hub1", ClientID: "somebody-else"})
	if err != nil {
		return err
	}
	defer func() { _ = t.Close(ctx) }()
	return w.until("the broker takes the event", func(ctx context.Context) error {
		return t.Publish(ctx, brokers.Topic{Lane: lane, Source: "hub1", Cluster: args[1], Key: args[2]}, e)
	})
}
