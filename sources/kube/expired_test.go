package kube_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/kube"
)

// TestExpiredWorksAreNotWithheld: many finished works go at once without a word of
// an operator, and what else is deleted meanwhile is withheld as if they were not
// there, before and after a restart.
func TestExpiredWorksAreNotWithheld(t *testing.T) {
	o := kube.Options{Breaker: &kube.Breaker{Share: 0.5, Works: 1}}
	h := startHubWith(t, apitest.Shared(t).Namespace(t), mem.NewBroker(mem.Options{}), o)
	a := h.agent()
	const finished, running = 6, 4
	for i := range finished {
		w := h.create(fmt.Sprintf("job%d", i))
		a.takeGeneration(w)
		w = h.change(w.Name, func(w *workv1.ManifestWork) {
			w.Spec.DeleteOption = &workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeForeground, TTLSecondsAfterFinished: new(int64(60))}
		})
		b := a.takeGeneration(w)
		// Its conditions are of years ago.
		if got := h.report(a.reportOn(b, applied(w.Generation), condition(workv1.WorkComplete, "Done", w.Generation))); got != sources.Accepted {
			t.Fatalf("report: %s", got)
		}
	}
	for i := range running {
		a.takeGeneration(h.create(fmt.Sprintf("web%d", i)))
	}
	if err := h.DeleteAllOf(t.Context(), &workv1.ManifestWork{}, inCluster(h)); err != nil {
		t.Fatal(err)
	}
	h.eventually("what is not finished is withheld, but for its share", func() error {
		n, name, err := h.withheld()
		if err != nil {
			return err
		}
		// Half of the four, and not half of the ten.
		if n != running/2 || name[:3] != "web" {
			return fmt.Errorf("%d works are withheld, one is %q", n, name)
		}
		return nil
	})
	deleted := a.deletions(finished + running/2)
	if len(deleted) != finished+running/2 {
		t.Errorf("%d deletions", len(deleted))
	}

	// Those that are gone do not count after a restart either.
	var works workv1.ManifestWorkList
	if err := h.List(t.Context(), &works, inCluster(h)); err != nil {
		t.Fatal(err)
	}
	for i := range works.Items {
		if w := &works.Items[i]; w.Name[:3] == "job" {
			b := codec.Bundle{ID: string(w.UID), Source: sourceID, Cluster: h.cluster, Generation: w.Generation}
			if got := h.report(a.reportOn(b, gone())); got != sources.Accepted {
				t.Fatalf("confirmation: %s", got)
			}
		}
	}
	h = h.restart(o)
	h.eventually("as many are withheld", func() error {
		if n, _, err := h.withheld(); err != nil || n != running/2 {
			return errors.Join(err, fmt.Errorf("%d works are withheld", n))
		}
		return nil
	})
}

// TestFinishedWorkBeforeItsTimeCounts: that a work is finished is no word for its
// deletion.
func TestFinishedWorkBeforeItsTimeCounts(t *testing.T) {
	o := kube.Options{Breaker: &kube.Breaker{}}
	h := startHubWith(t, apitest.Shared(t).Namespace(t), mem.NewBroker(mem.Options{}), o)
	a := h.agent()
	w := h.create("job")
	a.takeGeneration(w)
	w = h.change("job", func(w *workv1.ManifestWork) {
		w.Spec.DeleteOption = &workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeForeground, TTLSecondsAfterFinished: new(int64(3600))}
	})
	b := a.takeGeneration(w)
	complete := condition(workv1.WorkComplete, "Done", w.Generation)
	complete.LastTransitionTime = metav1.NewTime(time.Now().Truncate(time.Second))
	if got := h.report(a.reportOn(b, applied(w.Generation), complete)); got != sources.Accepted {
		t.Fatalf("report: %s", got)
	}
	if err := h.Delete(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	h.eventually("the deletion is withheld", func() error {
		if n, _, err := h.withheld(); err != nil || n != 1 {
			return errors.Join(err, fmt.Errorf("%d works are withheld", n))
		}
		return nil
	})
}
