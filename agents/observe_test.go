package agents_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/codec"
)

// A carrying applier does as the real one: when it only looks, what was last
// said about applying stands.
type carrying struct{ *cluster }

func (c *carrying) Observe(_ context.Context, _ codec.Bundle, last codec.Report) (codec.Report, error) {
	return last, c.call("observe")
}

// TestLookDoesNotUndoWhatWasAppliedMeanwhile: the work is due to be looked at
// when an application of it ends, and the store has not yet taken what came of
// that.
func TestLookDoesNotUndoWhatWasAppliedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.applier = &carrying{b.cluster}
		b.cluster.next = []error{errors.New("not yet")}
		b.run(agents.Options{})
		b.settle(time.Second)
		b.publish(work("hub1", "w", 1, "one"), codec.Create)
		b.settle(100 * time.Millisecond)
		if got := conditionOf(t, b.last("w"), "Applied").Status; got != metav1.ConditionFalse {
			t.Fatalf("Applied = %s after a failure, want False", got)
		}
		b.cluster.mu.Lock()
		b.cluster.block, b.cluster.blocked = make(chan struct{}), make(chan struct{}, 10)
		b.cluster.mu.Unlock()
		<-b.cluster.blocked
		b.settle(3 * time.Minute) // It is to be looked at by then.
		b.store.slow(time.Second)
		close(b.cluster.block)
		b.settle(30 * time.Second)
		if b.cluster.count("observe") == 0 {
			t.Fatal("the work was not looked at")
		}
		if got := conditionOf(t, b.last("w"), "Applied").Status; got != metav1.ConditionTrue {
			t.Errorf("Applied = %s after the work was applied, want True", got)
		}
	})
}
