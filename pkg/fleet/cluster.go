package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// A Behaviour is how a simulated cluster takes what its agent applies. The zero
// value takes everything at once and keeps it.
type Behaviour struct {
	// Delay is how long an application takes on average; it is drawn from an
	// exponential distribution.
	Delay metav1.Duration `json:"delay,omitzero"`
	// Failures is the share of applications that fail and are tried again by the
	// agent, from 0 to under 1.
	Failures float64 `json:"failures,omitempty"`
	// Drift is the mean time between two losses of an object on one cluster,
	// which its agent is told of and puts right. Zero: nothing is lost.
	Drift metav1.Duration `json:"drift,omitzero"`
}

func (b Behaviour) validate() error {
	switch {
	case b.Delay.Duration < 0 || b.Drift.Duration < 0:
		return errors.New("clusters: delay and drift must not be negative")
	case b.Failures < 0 || b.Failures >= 1:
		return fmt.Errorf("clusters: a share of failures of %v is not from 0 to under 1", b.Failures)
	}
	return nil
}

// errRefused is what a cluster says at random.
var errRefused = errors.New("the simulated cluster refuses this application")

// A cluster is what an agent's works are applied to: it remembers which of them
// it was made to run.
type cluster struct {
	behaviour Behaviour

	mu      sync.Mutex
	rng     *rand.Rand
	has     map[agents.Key]codec.Bundle
	drifted map[agents.Key]struct{} // Lost, and not put right yet.
	applied int                     // Applications, failed ones included.
	losses  int
}

var _ agents.Applier = (*cluster)(nil)

func newCluster(b Behaviour, seed, number uint64) *cluster {
	return &cluster{
		behaviour: b, rng: rand.New(rand.NewPCG(seed, number)),
		has: map[agents.Key]codec.Bundle{}, drifted: map[agents.Key]struct{}{},
	}
}

// Apply implements agents.Applier.
func (c *cluster) Apply(ctx context.Context, b codec.Bundle, last codec.Report) (codec.Report, error) {
	delay, fails := c.draw()
	if err := sleep(ctx, delay); err != nil {
		return codec.Report{}, err
	}
	if fails {
		return c.report(b, last, errRefused)
	}
	c.mu.Lock()
	k := agents.Key{Source: b.Source, ID: b.ID}
	c.has[k] = b
	delete(c.drifted, k)
	c.mu.Unlock()
	return c.report(b, last, nil)
}

// draw decides how an application goes.
func (c *cluster) draw() (delay time.Duration, fails bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.applied++
	if c.behaviour.Delay.Duration > 0 {
		delay = time.Duration(c.rng.ExpFloat64() * float64(c.behaviour.Delay.Duration))
	}
	return delay, c.behaviour.Failures > 0 && c.rng.Float64() < c.behaviour.Failures
}

// Observe implements agents.Applier.
func (c *cluster) Observe(_ context.Context, b codec.Bundle, last codec.Report) (codec.Report, error) {
	return c.report(b, last, nil)
}

// Delete implements agents.Applier.
func (c *cluster) Delete(ctx context.Context, b codec.Bundle, _ codec.Report) (codec.Report, error) {
	delay, _ := c.draw()
	if err := sleep(ctx, delay); err != nil {
		return codec.Report{}, err
	}
	c.mu.Lock()
	k := agents.Key{Source: b.Source, ID: b.ID}
	delete(c.has, k)
	delete(c.drifted, k)
	c.mu.Unlock()
	return codec.NewReport(b, workv1.ManifestWorkStatus{Conditions: []metav1.Condition{{
		Type: api.ConditionDeleted, Status: metav1.ConditionTrue, Reason: api.ReasonDeleted,
		Message: "Nothing of the work is left", ObservedGeneration: b.Generation, LastTransitionTime: metav1.Now(),
	}}})
}

// report says of a work what the applier of a real cluster says of one
// ConfigMap, in the same fields.
func (c *cluster) report(b codec.Bundle, last codec.Report, failure error) (codec.Report, error) {
	now := metav1.Now()
	if before, err := last.Status(); err == nil && len(before.Conditions) > 0 && before.Conditions[0].ObservedGeneration == b.Generation {
		now = before.Conditions[0].LastTransitionTime
	}
	status, reason, message := metav1.ConditionTrue, api.ReasonManifestApplied, "The manifest is applied"
	workReason, workMessage := api.ReasonWorkApplied, "All 1 manifests are applied"
	if failure != nil {
		status, reason, message = metav1.ConditionFalse, api.ReasonManifestFailed, failure.Error()
		workReason, workMessage = api.ReasonWorkFailed, "1 of 1 manifests are not applied"
	}
	r, err := codec.NewReport(b, workv1.ManifestWorkStatus{
		Conditions: []metav1.Condition{
			{Type: workv1.WorkApplied, Status: status, Reason: workReason, Message: workMessage, ObservedGeneration: b.Generation, LastTransitionTime: now},
			{Type: workv1.WorkAvailable, Status: status, Reason: api.ReasonResourcesAvailable, Message: "All 1 resources are available", ObservedGeneration: b.Generation, LastTransitionTime: now},
		},
		ResourceStatus: workv1.ManifestResourceStatus{Manifests: []workv1.ManifestCondition{{
			ResourceMeta: workv1.ManifestResourceMeta{Version: "v1", Kind: "ConfigMap", Resource: "configmaps", Namespace: namespace, Name: objectName},
			Conditions: []metav1.Condition{
				{Type: workv1.ManifestApplied, Status: status, Reason: reason, Message: message, ObservedGeneration: b.Generation, LastTransitionTime: now},
				{Type: workv1.ManifestAvailable, Status: status, Reason: api.ReasonResourceAvailable, Message: "The resource exists", LastTransitionTime: now},
			},
		}}},
	})
	return r, errors.Join(err, failure)
}

// live loses objects until the returned function is called, and tells the agent.
func (c *cluster) live(ctx context.Context, changed func(source, id string)) (stop func()) {
	if c.behaviour.Drift.Duration <= 0 {
		return func() {}
	}
	r := run(ctx, func(ctx context.Context) error {
		for {
			c.mu.Lock()
			pause := time.Duration(c.rng.ExpFloat64() * float64(c.behaviour.Drift.Duration))
			c.mu.Unlock()
			if err := sleep(ctx, pause); err != nil {
				return err
			}
			if k, ok := c.lose(); ok {
				changed(k.Source, k.ID)
			}
		}
	})
	return func() { _ = r.stop() } // That it was stopped is no news.
}

// lose loses one object at random.
func (c *cluster) lose() (agents.Key, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.has) == 0 {
		return agents.Key{}, false
	}
	at := c.rng.IntN(len(c.has))
	for k := range c.has { // Which one is not up to the seed: maps have no order.
		if at--; at < 0 {
			c.drifted[k] = struct{}{}
			c.losses++
			return k, true
		}
	}
	return agents.Key{}, false
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
