package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// A cluster is an imagined one: an applier that has what was applied, takes its
// time, fails now and then, and holds every call against the promises.
type cluster struct {
	name string
	slow time.Duration // The longest that a call takes.
	// shared says that two agents act on it, which nothing keeps apart.
	shared bool

	mu      sync.Mutex
	rng     *rand.Rand
	objects map[agents.Key]object
	applied map[agents.Key]int64 // The generation applied last, also of works that are gone.
	busy    map[agents.Key]bool
	failing int
	changes map[change]int // How often each version took effect.
	deletes map[agents.Key]int
	// unwanted is for how long an agent remembered that what is there was deleted.
	// What was evicted is counted.
	unwanted map[agents.Key]time.Duration
	evicted  map[agents.Key]int

	// mayDelete says whether somebody asked for the deletion of a work as of a
	// generation.
	mayDelete func(k agents.Key, generation int64) bool
	// mayEvict says whether a work may be removed that no agent knows.
	mayEvict func(k agents.Key) bool
	// broken takes what is against the promises.
	broken func(format string, args ...any)
}

type object struct {
	generation int64
	content    string
}

type change struct {
	key        agents.Key
	generation int64
	content    string
}

func newCluster(name string, rng *rand.Rand) *cluster {
	return &cluster{
		name: name, rng: rng, slow: 2 * time.Second,
		objects: map[agents.Key]object{}, applied: map[agents.Key]int64{}, busy: map[agents.Key]bool{},
		changes: map[change]int{}, deletes: map[agents.Key]int{},
		unwanted: map[agents.Key]time.Duration{}, evicted: map[agents.Key]int{},
		mayDelete: func(agents.Key, int64) bool { return true },
		mayEvict:  func(agents.Key) bool { return true },
	}
}

// fail lets the next calls fail.
func (c *cluster) fail(times int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failing = times
}

// forget lets the cluster's agent apply what it has from an older copy of its
// store: what came after that is not known to anybody.
func (c *cluster) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.applied)
}

func (c *cluster) has(k agents.Key) (object, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, ok := c.objects[k]
	return o, ok
}

func (c *cluster) all() map[agents.Key]object {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.objects)
}

// setBack puts an object back that the cluster had before.
func (c *cluster) setBack(k agents.Key, o object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.objects[k] = o
}

// begin notes that a call for a work is under way, which takes a while, during
// which anything may happen, and may fail.
func (c *cluster) begin(ctx context.Context, b codec.Bundle) (agents.Key, error) {
	k := agents.Key{Source: b.Source, ID: b.ID}
	c.mu.Lock()
	if c.busy[k] && !c.shared {
		c.broken("cluster %s: two calls for work %s at the same time", c.name, b.ID)
	}
	if b.Cluster != c.name {
		c.broken("cluster %s was given work %s of cluster %s", c.name, b.ID, b.Cluster)
	}
	c.busy[k] = true
	d := upTo(c.rng, c.slow)
	fails := c.failing > 0
	if fails {
		c.failing--
	}
	c.mu.Unlock()
	if d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return k, ctx.Err()
		}
	}
	if fails {
		return k, errors.New("the cluster's API server is overloaded")
	}
	return k, nil
}

func (c *cluster) end(k agents.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy[k] = false
}

// Apply implements agents.Applier.
func (c *cluster) Apply(ctx context.Context, b codec.Bundle, _ codec.Report) (codec.Report, error) {
	k, err := c.begin(ctx, b)
	defer c.end(k)
	if err != nil {
		return codec.Report{}, err
	}
	content, err := contentOf(b)
	if err != nil {
		return codec.Report{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.Generation < c.applied[k] && !c.shared {
		c.broken("V1: cluster %s applied generation %d of work %s after generation %d", c.name, b.Generation, b.ID, c.applied[k])
	}
	if owner, _, _ := strings.Cut(content, ":"); owner != c.name {
		c.broken("V5: cluster %s was given %q, which is of another cluster", c.name, content)
	}
	c.applied[k] = b.Generation
	now := object{b.Generation, content}
	if c.objects[k] != now {
		c.changes[change{k, b.Generation, content}]++
	}
	c.objects[k] = now
	return saying(b, workv1.WorkApplied, content)
}

// Observe implements agents.Applier.
func (c *cluster) Observe(ctx context.Context, b codec.Bundle, last codec.Report) (codec.Report, error) {
	k, err := c.begin(ctx, b)
	defer c.end(k)
	return last, err
}

// Delete implements agents.Applier.
func (c *cluster) Delete(ctx context.Context, b codec.Bundle, _ codec.Report) (codec.Report, error) {
	k, err := c.begin(ctx, b)
	defer c.end(k)
	if err != nil {
		return codec.Report{}, err
	}
	may := c.mayDelete(k, b.Generation) // Not under the lock: desks look at clusters under theirs.
	c.mu.Lock()
	defer c.mu.Unlock()
	if !may {
		c.broken("V3: cluster %s was told to delete work %s of %s, which nobody deleted", c.name, b.ID, b.Source)
	}
	c.applied[k] = max(c.applied[k], b.Generation)
	if _, had := c.objects[k]; had {
		c.deletes[k]++
	}
	delete(c.objects, k)
	delete(c.unwanted, k)
	return saying(b, api.ConditionDeleted, "")
}

func contentOf(b codec.Bundle) (string, error) {
	work, err := b.Work()
	if err != nil {
		return "", err
	}
	if len(work.Spec.Workload.Manifests) == 0 {
		return "", fmt.Errorf("work %s has no manifests", b.ID)
	}
	var configMap struct {
		Data struct {
			Content string `json:"content"`
		} `json:"data"`
	}
	if err := json.Unmarshal(work.Spec.Workload.Manifests[0].Raw, &configMap); err != nil {
		return "", err
	}
	return configMap.Data.Content, nil
}

// saying is a report of one condition with a message.
func saying(b codec.Bundle, condition, message string) (codec.Report, error) {
	return codec.NewReport(b, workv1.ManifestWorkStatus{Conditions: []metav1.Condition{{
		Type: condition, Status: metav1.ConditionTrue, ObservedGeneration: b.Generation, Reason: "Imagined", Message: message,
	}}})
}

// said is the message of such a report, "" for any other.
func said(r codec.Report) string {
	if r.ID == "" {
		return ""
	}
	status, err := r.Status()
	if err != nil || len(status.Conditions) != 1 {
		return ""
	}
	return status.Conditions[0].Message
}

// A disk is the store of one agent process: a copy of what another had, with a
// power switch.
type disk struct {
	*agents.Volatile
	crash *crash
}

// Commit implements agents.Store.
func (d disk) Commit(c agents.Changes) error {
	if d.crash.strikes(beforeCommit) {
		return errDead
	}
	if err := d.Volatile.Commit(c); err != nil {
		return err
	}
	if d.crash.strikes(afterCommit) {
		return errDead
	}
	return nil
}

// copyOf is a store of its own with what another has now.
func copyOf(v *agents.Volatile) (*agents.Volatile, error) {
	s, err := v.Load()
	if err != nil {
		return nil, err
	}
	out := &agents.Volatile{}
	return out, out.Commit(agents.Changes(s))
}
