package kube_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/kube"
)

// withheld counts the works whose deletion is withheld, and names one.
func (h *hub) withheld() (n int, name string, err error) {
	var works workv1.ManifestWorkList
	if err := h.List(h.t.Context(), &works); err != nil {
		return 0, "", err
	}
	for i := range works.Items {
		w := &works.Items[i]
		if w.Namespace == h.cluster && strings.Contains(summary(w), "Dispatched=False "+api.ReasonDeletionWithheld) {
			n, name = n+1, w.Name
		}
	}
	return n, name, nil
}

// deletions takes so many and returns the IDs.
func (a *agent) deletions(n int) map[string]bool {
	a.t.Helper()
	ids := map[string]bool{}
	for len(ids) < n {
		ids[a.take(fmt.Sprintf("deletion %d of %d", len(ids)+1, n), codec.Bundle.Deleting).ID] = true
	}
	return ids
}

// TestMassDeletionIsWithheld: what goes beyond the limit stays on its cluster,
// over a restart, until somebody confirms it.
func TestMassDeletionIsWithheld(t *testing.T) {
	for name, mass := range map[string]func(*hub){
		"of works": func(h *hub) {
			if err := h.DeleteAllOf(h.t.Context(), &workv1.ManifestWork{}, inCluster(h)); err != nil {
				h.t.Fatal(err)
			}
		},
		"of their namespace": func(h *hub) {
			if err := h.Delete(h.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: h.cluster}}); err != nil {
				h.t.Fatal(err)
			}
			// What the namespace's own controller does, of which the test's API
			// server has none.
			h.eventually("delete what is in it", func() error {
				return h.DeleteAllOf(h.t.Context(), &workv1.ManifestWork{}, inCluster(h))
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := kube.Options{Breaker: &kube.Breaker{Share: 0.1, Works: 2}}
			h := startHubWith(t, apitest.Shared(t).Namespace(t), mem.NewBroker(mem.Options{}), o)
			a := h.agent()
			const works = 6
			for i := range works {
				a.takeGeneration(h.create(fmt.Sprintf("web%d", i)))
			}
			mass(h)
			h.eventually("the rest is withheld", func() error {
				n, _, err := h.withheld()
				if err == nil && n != works-2 {
					err = fmt.Errorf("%d works say so, want %d", n, works-2)
				}
				return err
			})
			passed := a.deletions(2)
			// The API server has works of other tests, too.
			if got, total := h.source.WithheldIn(h.cluster), gauge(t, h.source); got != works-2 || total < works-2 {
				t.Errorf("%d are known to be withheld, %v by the metric, want %d", got, total, works-2)
			}
			_, one, err := h.withheld()
			if err != nil {
				t.Fatal(err)
			}
			w := h.mustGet(one)
			if passed[string(w.UID)] {
				t.Errorf("work %s is withheld, and its deletion was sent", one)
			}
			if c := w.Status.Conditions[0]; !strings.Contains(c.Message, api.ConfirmDeletionAnnotation+"=true") {
				t.Errorf("the condition does not say how to confirm: %s", c.Message)
			}
			restarted := h.restart(o)
			for id, held := range restarted.held() {
				if !held.Deleting || held.Withheld == passed[id] {
					t.Errorf("after a restart %s is %+v; it passed: %t", id, held, passed[id])
				}
			}
			restarted.change(one, func(w *workv1.ManifestWork) {
				w.Annotations = map[string]string{api.ConfirmDeletionAnnotation: "true"}
			})
			b := a.take("the confirmed deletion", func(b codec.Bundle) bool { return b.ID == string(w.UID) })
			if !b.Deleting() {
				t.Error("it is no deletion")
			}
			h.eventually("the condition is gone", func() error {
				if got := summary(restarted.mustGet(one)); got != "" {
					return errors.New(got)
				}
				return nil
			})
			if got := restarted.report(a.reportOn(b, gone())); got != sources.Accepted {
				t.Errorf("Deleted: %s, want %s", got, sources.Accepted)
			}
			if n, _, err := h.withheld(); err != nil || n != works-3 {
				t.Errorf("%d works are withheld after one was confirmed, want %d (%v)", n, works-3, err)
			}
			// An operator who wants it all at once.
			restarted.restart(kube.Options{Breaker: &kube.Breaker{Share: 1}})
			a.deletions(works - 1)
		})
	}
}

// TestWithheldWorkRemovedByForce stays on its cluster: nobody confirmed.
func TestWithheldWorkRemovedByForce(t *testing.T) {
	h := startHubWith(t, apitest.Shared(t).Namespace(t), mem.NewBroker(mem.Options{}), kube.Options{Breaker: &kube.Breaker{}})
	a := h.agent()
	b := a.takeGeneration(h.create("web"))
	h.removeByForce("web")
	h.eventually("the source forgets it", func() error {
		if h.source.Remembers(b.ID) {
			return errors.New("there is a record")
		}
		return nil
	})
	if _, ok, err := h.source.Bundle(t.Context(), sources.Key{Cluster: h.cluster, ID: b.ID}); ok || err != nil {
		t.Errorf("its deletion is published: %t, %v", ok, err)
	}
	if _, err := h.agentObject(); !apierrors.IsNotFound(err) {
		t.Errorf("there is a record of it: %v", err)
	}
	if got := h.source.WithheldIn(h.cluster); got != 0 {
		t.Errorf("%d are known to be withheld, want 0: there is no work to confirm", got)
	}
}

// TestWithheldOfAnOfflineCluster: works say so although nothing would be sent.
func TestWithheldOfAnOfflineCluster(t *testing.T) {
	o := kube.Options{Breaker: &kube.Breaker{Share: 0.1, Works: 2}}
	h := startHubWith(t, apitest.Shared(t).Namespace(t), mem.NewBroker(mem.Options{}), o)
	a := h.agent()
	const works = 6
	for i := range works {
		a.takeGeneration(h.create(fmt.Sprintf("web%d", i)))
	}
	s := h.state()
	s.Online = false
	h.save(s)
	h = h.restart(o) // Knows that the cluster is offline.
	if err := h.DeleteAllOf(t.Context(), &workv1.ManifestWork{}, inCluster(h)); err != nil {
		t.Fatal(err)
	}
	h.eventually("works are withheld", func() error {
		if n, _, err := h.withheld(); err != nil || n != works-2 {
			return errors.Join(fmt.Errorf("%d works say so", n), err)
		}
		return nil
	})
	if got := h.source.WithheldIn(h.cluster); got != works-2 {
		t.Errorf("%d are known to be withheld, want %d", got, works-2)
	}
}
