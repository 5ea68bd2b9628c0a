package apply_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
)

// A work is told when the kind that it waits for is there, long before it would
// be asked for again, and nobody asks all the time.
func TestAMissingKindArrives(t *testing.T) {
	c := newCluster(t)
	c.restart(apply.Options{Discovery: time.Hour})
	c.run()
	crd, instance, served := c.widget("Novelty")
	w := c.newWork("web", instance)
	if _, err := w.apply(); err == nil {
		t.Fatal("a kind that is not served was applied")
	}
	for range 20 {
		_, _ = w.apply()
	}
	if got := c.asked(served.Group); got > 1 {
		t.Errorf("asked %d times for a kind that is not there", got)
	}
	if _, err := c.of(crds, "").Create(c.ctx, &unstructured.Unstructured{Object: crd}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.until("the work is told and its instance applied", func() bool {
		c.untilTold("web-id")
		_, err := w.apply()
		return err == nil
	})
	if c.get(served, c.namespace, "w") == nil {
		t.Error("the instance is missing")
	}
}

// asked counts the questions about the kinds of a group since the last call.
func (c *cluster) asked(group string) int {
	return len(slices.DeleteFunc(c.wire.requests(), func(r string) bool {
		return !strings.HasPrefix(r, "GET /apis/"+group+"/v1") || strings.Contains(r, "/namespaces/")
	}))
}

// A work that waits for a kind and is deleted waits for nothing more.
func TestNobodyWaitsForADeletedWork(t *testing.T) {
	c := newCluster(t)
	c.run()
	crd, instance, _ := c.widget("Relic")
	w := c.newWork("web", instance, c.configMap("a", nil))
	if _, err := w.apply(); err == nil {
		t.Fatal("a kind that is not served was applied")
	}
	if _, err := w.delete(); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	other := c.newWork("other", instance)
	if _, err := other.apply(); err == nil {
		t.Fatal("a kind that is not served was applied")
	}
	for len(c.changed) > 0 {
		<-c.changed
	}
	if _, err := c.of(crds, "").Create(c.ctx, &unstructured.Unstructured{Object: crd}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for id := ""; id != "other-id"; {
		select {
		case id = <-c.changed:
			if id == "web-id" {
				t.Error("the deleted work is told")
			}
		case <-time.After(patience):
			t.Fatal("the other work is not told")
		}
	}
	c.until("the other is applied", func() bool {
		status, err := other.apply()
		return err == nil && manifestCondition(status, 0, workv1.ManifestApplied) == manifestApplied
	})
}
