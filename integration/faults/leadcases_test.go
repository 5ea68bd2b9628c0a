package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// agentResource is the hub's record of a cluster's agent.
var agentResource = schema.GroupVersionResource{Group: "fleetcast.io", Version: "v1alpha1", Resource: "agents"}

// What may happen to the hub's memory, and to who speaks for whom.
var leadCases = []faultCase{
	{
		id: "15", title: "the hub comes back empty under its name; an operator then has 5 of 20 works deleted that it does not know", promises: "P4 P8", bound: time.Minute,
		run: func(w *world) {
			all := works("c1", 20)
			w.putAll(all)
			w.converge()
			w.must(w.hub.stop())
			w.takeOver("hub-empty")
			w.put(key{"c1", "new"})
			await(w.t, "the hub tells of the works that it does not know", func() error { return w.unclaimed("c1", len(all)) })
			// Nothing of it changes when everybody starts again.
			w.broker.kill()
			w.broker.wipe()
			w.broker.start()
			w.restart(w.clusters["c1"].agent)
			w.restart(w.hub.process)
			w.converge()
			w.confirm("c1", all[:5])
		},
		afterwards: func(w *world) {
			await(w.t, "the hub tells of the works that are left", func() error { return w.unclaimed("c1", 15) })
		},
	},
	{
		id: "16", title: "a second hub with the same source ID and an API server of its own is started: one of the two leads, the other is fenced", promises: "P2 P4 P7", bound: 10 * time.Minute,
		run: func(w *world) {
			all := works("c1", 20)
			w.putAll(all)
			w.converge()
			first, second := w.hub, w.openHub("hub-second")
			w.must(within(10*time.Minute, func() error {
				if first.fenced(w.t.Context()) == nil {
					// Of what it had, clusters keep everything.
					w.record.orphan()
					w.hub = second
					return nil
				}
				return second.fenced(w.t.Context())
			}))
			w.put(key{"c1", "new"})
		},
		afterwards: func(w *world) {
			await(w.t, "the other hub leads", func() error { return w.hub.dispatches(w.t.Context()) })
		},
	},
	{
		id: "agent-gone", title: "an agent dies, is said to be offline, and finds what changed meanwhile when it is back", promises: "P1 P11", bound: time.Minute,
		run: func(w *world) {
			all, c := works("c1", 20), w.clusters["c1"]
			w.putAll(all)
			w.converge()
			await(w.t, "the hub says that the agent is online", func() error { return w.online("c1", "True") })
			c.agent.kill()
			w.must(within(5*time.Minute, func() error { return w.online("c1", "False") }))
			w.change(all)
			w.run(c.agent)
		},
		afterwards: func(w *world) {
			await(w.t, "the hub says that the agent is online", func() error { return w.online("c1", "True") })
		},
	},
}

// takeOver starts another hub with the source ID of the first, which has an API
// server of its own and no works. What the clusters have they shall keep.
func (w *world) takeOver(name string) {
	w.t.Helper()
	w.record.orphan()
	w.hub = w.openHub(name)
}

// agentRecord is what the hub has written down of a cluster's agent.
func (w *world) agentRecord(cluster string) (*unstructured.Unstructured, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	return w.hub.client.Resource(agentResource).Namespace(cluster).Get(ctx, w.hub.source, metav1.GetOptions{})
}

func (w *world) online(cluster, want string) error {
	u, err := w.agentRecord(cluster)
	if err != nil {
		return err
	}
	if _, got := condition(u, "Online"); got != want {
		return fmt.Errorf("the hub says that Online is %q of the agent of %s, want %q", got, cluster, want)
	}
	return nil
}

// unclaimed says whether the hub tells of so many works of the cluster that it
// does not know.
func (w *world) unclaimed(cluster string, want int) error {
	u, err := w.agentRecord(cluster)
	if err != nil {
		return err
	}
	if got, _, _ := unstructured.NestedInt64(u.Object, "status", "unclaimedCount"); got != int64(want) {
		return fmt.Errorf("the hub tells of %d unclaimed works of %s, want %d", got, cluster, want)
	}
	return nil
}

// confirm is an operator who has unclaimed works deleted.
func (w *world) confirm(cluster string, all []key) {
	w.t.Helper()
	u, err := w.agentRecord(cluster)
	w.must(err)
	names := map[string]bool{}
	for _, k := range all {
		w.record.release(k)
		names[k.name] = true
	}
	var ids []any
	listed, _, _ := unstructured.NestedSlice(u.Object, "status", "unclaimed")
	for _, l := range listed {
		if fields, ok := l.(map[string]any); ok && names[fmt.Sprint(fields["name"])] {
			ids = append(ids, fields["id"])
		}
	}
	if len(ids) != len(all) {
		w.t.Fatalf("of the works to delete, %d are listed, want %d", len(ids), len(all))
	}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"delete": ids}})
	w.must(err)
	_, err = w.hub.client.Resource(agentResource).Namespace(cluster).Patch(w.t.Context(), w.hub.source, types.MergePatchType, patch, metav1.PatchOptions{})
	w.must(err)
}
