package codec_test

import (
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// A source sends a work of a cluster's namespace to that cluster.
func ExampleBundle_Encode() {
	work := &workv1.ManifestWork{
		ObjectMeta: metav1.ObjectMeta{Namespace: "edge-007", Name: "web-tier", Generation: 3},
		Spec: workv1.ManifestWorkSpec{Workload: workv1.ManifestsTemplate{Manifests: []workv1.Manifest{{
			RawExtension: runtime.RawExtension{Raw: []byte(
				`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"web"}}`,
			)},
		}}}},
	}
	bundle, err := codec.NewBundle("hub-alpha", work)
	if err != nil {
		fmt.Println(err)
		return
	}
	e, err := bundle.Encode(codec.Create)
	if err != nil {
		fmt.Println(err)
		return
	}
	for name, value := range e.All() {
		if name != event.ID && name != event.Time { // They differ from run to run.
			fmt.Printf("%s=%s\n", name, value)
		}
	}
	fmt.Printf("%s\n", e.Data)
	// Output:
	// specversion=1.0
	// source=hub-alpha
	// type=io.open-cluster-management.works.v1alpha1.manifestbundles.spec.create_request
	// datacontenttype=application/json
	// clustername=edge-007
	// originalsource=
	// resourceid=d413c17e-d14b-567d-87b3-5cc5ff557269
	// resourceversion=3
	// metadata={"name":"web-tier","namespace":"edge-007","uid":"d413c17e-d14b-567d-87b3-5cc5ff557269","generation":3}
	// logtracing={}
	// {"manifests":[{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"web"}}]}
}

// An agent reads what came, and tells what is not for it from what is broken.
func ExampleDecode() {
	e := event.Of(
		[]byte(`{"manifests":[{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"web"}}]}`),
		event.Attribute{Name: event.SpecVersion, Value: event.Version},
		event.Attribute{Name: event.ID, Value: "9d9f72d1-2afa-4fe9-9351-9ef3dd77a614"},
		event.Attribute{Name: event.Source, Value: "hub-alpha"},
		event.Attribute{Name: event.Type, Value: codec.DataType + ".spec.create_request"},
		event.Attribute{Name: "clustername", Value: "edge-007"},
		event.Attribute{Name: "resourceid", Value: "d413c17e-d14b-567d-87b3-5cc5ff557269"},
		event.Attribute{Name: "resourceversion", Value: "3"},
		event.Attribute{Name: "metadata", Value: `{"name":"web-tier"}`},
	)
	_, message, err := codec.Decode(e)
	switch {
	case errors.Is(err, codec.ErrUnknownType):
		fmt.Println("meant for somebody else")
	case err != nil:
		fmt.Println("dropped:", err)
	}
	switch m := message.(type) {
	case codec.Bundle:
		work, err := m.Work()
		if err != nil {
			fmt.Println("dropped:", err)
			return
		}
		fmt.Printf("%s shall run %s at generation %d: %d manifest\n",
			m.Cluster, work.Name, m.Generation, len(work.Spec.Workload.Manifests))
	case codec.StatusResync:
		fmt.Printf("%s wants reports\n", m.Source)
	}
	// Output:
	// edge-007 shall run web-tier at generation 3: 1 manifest
}
