package kube_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
	"github.com/fleetcast-io/fleetcast/sources/kube"
)

// TestCheckedWorkSaysWhatIsWrong: a work that the hub has something against is not
// sent, says so over a restart, and is sent when it was changed; its deletion goes
// in any case.
func TestCheckedWorkSaysWhatIsWrong(t *testing.T) {
	o := kube.Options{Check: func(w *workv1.ManifestWork) (reason, message string) {
		if strings.Contains(string(w.Spec.Workload.Manifests[0].Raw), "wrong") {
			return api.ReasonTooLarge, "It is wrong. " + strings.Repeat("Make it ü. ", 200)
		}
		return "", ""
	}}
	h := startHubWith(t, apitest.Shared(t).Namespace(t), mem.NewBroker(mem.Options{}), o)
	a := h.agent()
	first := a.takeGeneration(h.create("web"))
	w := h.change("web", func(w *workv1.ManifestWork) { w.Spec.Workload.Manifests = manifests("wrong") })
	says := func() error {
		got := h.mustGet("web")
		if summary(got) != "Dispatched=False TooLarge" {
			return errors.New(summary(got))
		}
		c := got.Status.Conditions[0]
		if c.ObservedGeneration != w.Generation || !strings.HasPrefix(c.Message, "It is wrong. Make") || !strings.HasSuffix(c.Message, "..") || len(c.Message) > 1024 {
			return fmt.Errorf("condition of generation %d with %d bytes: %s", c.ObservedGeneration, len(c.Message), c.Message)
		}
		return nil
	}
	h.eventually("the condition says so", says)
	h.eventOn(w, api.ReasonTooLarge)
	if held := h.held()[first.ID]; held.Generation != w.Generation || held.Digest != (digest.Content{}) {
		t.Errorf("held as %+v, want generation %d that cannot be sent", held, w.Generation)
	}

	h = h.restart(o)
	// What comes after it in the queue has been sent, so it would have been.
	a.takeGeneration(h.create("other"))
	if err := says(); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	w = h.change("web", func(w *workv1.ManifestWork) { w.Spec.Workload.Manifests = manifests("right") })
	a.takeGeneration(w)
	h.eventually("the condition is cleared", func() error {
		if got := summary(h.mustGet("web")); got != "" {
			return errors.New(got)
		}
		return nil
	})

	h.change("web", func(w *workv1.ManifestWork) { w.Spec.Workload.Manifests = manifests("wrong again") })
	h.eventually("the condition is back", func() error {
		if got := summary(h.mustGet("web")); !strings.Contains(got, api.ReasonTooLarge) {
			return errors.New(got)
		}
		return nil
	})
	if err := h.Delete(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	a.deletions(1)
}
