package faults

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

var (
	appliedWorkResource = schema.GroupVersionResource{Group: "work.open-cluster-management.io", Version: "v1", Resource: "appliedmanifestworks"}
	crdResource         = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
)

// What may happen to an agent while it applies, and to what it and its cluster
// remember.
var applyCases = []faultCase{
	{
		id: "26", title: "the agent is killed at every step of an update, of a deletion and of a first application; the work changes again before it is back", promises: "P1 P2 P3", bound: time.Minute,
		run: killedMidApply, afterwards: inventoriesAreTrue,
	},
	{
		id: "29a", title: "the agent loses its data directory while works change and go", promises: "P1 P3 P4", bound: time.Minute,
		run: dataLost, afterwards: inventoriesAreTrue,
	},
	{
		id: "29b", title: "the agent loses its data directory, and somebody deletes the CRD of what it keeps on its cluster", promises: "P1 P3", bound: 2 * time.Minute,
		run: inventoryLost, afterwards: inventoriesAreTrue,
	},
	{
		id: "29c", title: "the cluster's namespace on the hub is deleted with all works in it, and made anew", promises: "P1 P3", bound: time.Minute,
		world: settings{hubFlags: deleteAll}, run: hubNamespaceLost, afterwards: inventoriesAreTrue,
	},
	{
		id: "29d", title: "somebody deletes a namespace on the cluster that is part of a work", promises: "P1 P8", bound: time.Minute,
		run: namespaceLost,
		afterwards: func(w *world) {
			k := works("c1", 1)[0]
			await(w.t, "what was in the namespace is back", func() error { return w.clusters["c1"].hasParts(w.t.Context(), k, "inside") })
		},
	},
	{
		id: "31", title: "the agent has 5 % of a CPU and 64 MiB while 200 works of 10 kB come, twice; then so little memory that the kernel kills it", promises: "P1 P9", bound: 2 * time.Minute,
		run: throttled,
	},
}

// A moment is a request of the agent's at which it is killed.
type moment struct {
	title  string
	method string
	path   string // A part of it.
	ends   string // How it ends.
	nth    int    // Of those that match; 0 is the first.
	passes bool   // The API server carries it out before the agent is killed.
}

// updateMoments are the steps of an update that drops two objects and adds two.
var updateMoments = []moment{
	{title: "before the new objects are listed", method: http.MethodPatch, path: "/appliedmanifestworks/", ends: "/status"},
	{title: "when the new objects are listed", method: http.MethodPatch, path: "/appliedmanifestworks/", ends: "/status", passes: true},
	{title: "between the new objects", method: http.MethodPost, path: "/configmaps", passes: true},
	{title: "before the last new object", method: http.MethodPost, path: "/configmaps", nth: 1},
	{title: "before anything is dropped", method: http.MethodDelete, path: "/configmaps/"},
	{title: "between what is dropped", method: http.MethodDelete, path: "/configmaps/", passes: true},
	{title: "before the list is without what was dropped", method: http.MethodPatch, path: "/appliedmanifestworks/", ends: "/status", nth: 1},
	{title: "when the list is without what was dropped", method: http.MethodPatch, path: "/appliedmanifestworks/", ends: "/status", nth: 1, passes: true},
}

// deletionMoments are the steps of a deletion.
var deletionMoments = []moment{
	{title: "when the deletion is noted on the cluster", method: http.MethodDelete, path: "/appliedmanifestworks/", passes: true},
	{title: "between what is deleted", method: http.MethodDelete, path: "/configmaps/", passes: true},
	{title: "before the list goes", method: http.MethodPatch, path: "/appliedmanifestworks/"},
	{title: "when the list is gone", method: http.MethodPatch, path: "/appliedmanifestworks/", passes: true},
}

// firstMoments are the steps of a first application.
var firstMoments = []moment{
	{title: "when there is a list", method: http.MethodPost, path: "/appliedmanifestworks", passes: true},
	{title: "when the objects are listed", method: http.MethodPatch, path: "/appliedmanifestworks/", ends: "/status", passes: true},
	{title: "when the first object is there", method: http.MethodPost, path: "/configmaps", passes: true},
}

// kills returns a script that kills the program at the moment, and a channel
// that is closed then.
func (m moment) kills(p *process) (s script, killed <-chan struct{}) {
	done, seen := make(chan struct{}), 0
	return func(r *http.Request) *answer {
		if r.Method != m.method || !strings.Contains(r.URL.Path, m.path) || !strings.HasSuffix(r.URL.Path, m.ends) {
			return nil
		}
		if seen++; seen != m.nth+1 {
			return nil
		}
		kill := func() {
			p.kill()
			close(done)
		}
		if m.passes {
			return &answer{pass: kill}
		}
		kill()
		return &answer{}
	}, done
}

func killedMidApply(w *world) {
	c := w.clusters["c1"]
	g := w.gate(c)
	all := works("c1", len(updateMoments)+len(deletionMoments)+len(firstMoments))
	updated, rest := all[:len(updateMoments)], all[len(updateMoments):]
	deleted, first := rest[:len(deletionMoments)], rest[len(deletionMoments):]
	w.putAll(slices.Concat(updated, deleted))
	for _, k := range slices.Concat(updated, deleted) {
		w.putWith(k, part(k, "a"), part(k, "b"), part(k, "c"))
	}
	w.converge()
	at := func(m moment, do, meanwhile func()) {
		w.t.Helper()
		w.stepf("killed %s", m.title)
		s, killed := m.kills(c.agent)
		g.begin(s)
		do()
		select {
		case <-killed:
		case <-time.After(patience):
			w.t.Fatalf("the agent was not killed %s", m.title)
		}
		g.end()
		meanwhile()
		w.run(c.agent)
		w.converge()
	}
	for i, m := range updateMoments {
		k := updated[i]
		at(m, func() { w.putWith(k, part(k, "c"), part(k, "d"), part(k, "e")) },
			func() { w.putWith(k, part(k, "f")) })
		await(w.t, "only what the newest version has is there, killed "+m.title, func() error { return c.hasParts(w.t.Context(), k, "f") })
	}
	for i, m := range deletionMoments {
		k := deleted[i]
		at(m, func() { w.remove(k) }, func() {})
		await(w.t, "nothing of the deleted work is there, killed "+m.title, func() error { return c.hasParts(w.t.Context(), k) })
	}
	for i, m := range firstMoments {
		k := first[i]
		at(m, func() { w.put(k) }, func() { w.remove(k) })
	}
}

// inventoriesAreTrue holds what the cluster lists of works against what there
// shall be: no list without a work, no object without a list.
func inventoriesAreTrue(w *world) {
	w.t.Helper()
	w.record.mu.Lock()
	want := map[string]bool{}
	for k := range w.record.want {
		want[k.name] = true
	}
	w.record.mu.Unlock()
	lists, err := w.clusters["c1"].dynamic(w).Resource(appliedWorkResource).List(w.t.Context(), metav1.ListOptions{})
	w.must(err)
	listed := map[string]bool{}
	for i := range lists.Items {
		name, _, _ := unstructured.NestedString(lists.Items[i].Object, "spec", "manifestWorkName")
		if !want[name] || listed[name] {
			w.t.Errorf("P3: the cluster has %s, for work %q, which there is not or not twice", lists.Items[i].GetName(), name)
		}
		listed[name] = true
		applied, _, _ := unstructured.NestedSlice(lists.Items[i].Object, "status", "appliedResources")
		objects := w.clusters["c1"].objectsOf(w, name)
		if len(applied) != objects {
			w.t.Errorf("P3: the cluster lists %d objects of work %s, and has %d", len(applied), name, objects)
		}
	}
	if len(listed) != len(want) {
		w.t.Errorf("P3: the cluster lists %d works, want %d", len(listed), len(want))
	}
}

// objectsOf counts what the cluster has of a work.
func (c *cluster) objectsOf(w *world, name string) int {
	w.t.Helper()
	list, err := c.client.CoreV1().ConfigMaps(metav1.NamespaceAll).List(w.t.Context(), metav1.ListOptions{LabelSelector: partLabel + "=" + name})
	w.must(err)
	if _, own := c.holds()[name]; own {
		return len(list.Items) + 1
	}
	return len(list.Items)
}

func (c *cluster) dynamic(w *world) dynamic.Interface {
	w.t.Helper()
	client, err := dynamic.NewForConfig(c.server.Config())
	w.must(err)
	return client
}

func dataLost(w *world) {
	all, c := works("c1", 20), w.clusters["c1"]
	w.putAll(all)
	w.converge()
	before := c.uids(w, all[:15])
	for range 2 {
		c.agent.kill()
		w.must(os.RemoveAll(c.dir))
		w.putAll(all[:5])
		w.run(c.agent)
	}
	c.agent.kill()
	w.must(os.RemoveAll(c.dir))
	w.removeAll(all[15:])
	w.run(c.agent)
	w.converge()
	c.kept(w, all[:15], before)
}

func inventoryLost(w *world) {
	all, c := works("c1", 10), w.clusters["c1"]
	w.putAll(all)
	w.converge()
	c.agent.kill()
	w.must(os.RemoveAll(c.dir))
	// It takes with it what was applied: who deletes the list asks for that.
	for _, k := range all {
		w.record.tolerate(k)
	}
	w.must(c.dynamic(w).Resource(crdResource).Delete(w.t.Context(), "appliedmanifestworks.work.open-cluster-management.io", metav1.DeleteOptions{}))
	w.putAll(all[:5])
	for _, k := range all[:5] {
		w.record.tolerate(k)
	}
	w.remove(all[9])
	w.run(c.agent)
}

func hubNamespaceLost(w *world) {
	all := works("c1", 20)
	w.putAll(all)
	w.converge()
	for _, k := range all {
		w.record.remove(k)
	}
	namespaces := w.hub.core.CoreV1().Namespaces()
	w.must(namespaces.Delete(w.t.Context(), "c1", metav1.DeleteOptions{}))
	await(w.t, "the namespace is gone", func() error {
		_, err := namespaces.Get(w.t.Context(), "c1", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, fmt.Errorf("the hub still has namespace c1"))
	})
	w.must(w.hub.join(w.t.Context(), "c1"))
	w.putAll(all[:10])
}

func namespaceLost(w *world) {
	all, c := works("c1", 3), w.clusters["c1"]
	w.putAll(all)
	k := all[0]
	inside := part(k, "inside")
	inside["metadata"].(map[string]any)["namespace"] = "team"
	w.putWith(k, map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "team"}}, inside)
	w.converge()
	namespaces := c.client.CoreV1().Namespaces()
	old, err := namespaces.Get(w.t.Context(), "team", metav1.GetOptions{})
	w.must(err)
	w.must(namespaces.Delete(w.t.Context(), "team", metav1.DeleteOptions{}))
	await(w.t, "there is a new namespace", func() error {
		now, err := namespaces.Get(w.t.Context(), "team", metav1.GetOptions{})
		if err == nil && now.UID == old.UID {
			return errors.New("the namespace is the one that was deleted")
		}
		return err
	})
}
