package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	workv1 "open-cluster-management.io/api/work/v1"
)

const (
	// evictionElapsedAnnotation is how much of the grace period has passed, by the
	// monotonic clocks of the processes that watched it pass.
	evictionElapsedAnnotation = "work.fleetcast.io/eviction-elapsed"
)

// NeverEvict is the shortest grace period that switches eviction off.
const NeverEvict = 100 * 365 * 24 * time.Hour

var errEvicting = errors.New("what is left of it from before is being removed")

// A Ledger says what the agent knows of works, whether or not they are on the
// cluster. Its method does not block, and is called concurrently.
type Ledger interface {
	// Fate says whether the agent holds a work, and, if not, whether it remembers
	// that the source had it deleted. Neither is what an agent says that does not
	// know: its disk is new, or the work is another agent's. It speaks of the works
	// of the agent's own cluster name.
	Fate(source, id string) (held, deleted bool)
}

// unknowing is the ledger of an applier that has none.
type unknowing struct{}

func (unknowing) Fate(_, _ string) (held, deleted bool) { return false, false }

// An eviction removes the AppliedManifestWorks of this agent, and their objects,
// whose works their sources had deleted, as the agent remembers: they come back when
// a cluster is restored from a backup. It does so after a grace period in which
// that was so all the time that somebody looked. It is used by one goroutine.
type eviction struct {
	*Applier
	grace, interval time.Duration
	// watched says when an AppliedManifestWork was last found to be deleted.
	watched map[types.UID]time.Time
	// kept is how many were last said to stay.
	kept int
}

// standing is how an AppliedManifestWork stands with the agent.
type standing int

const (
	foreign  standing = iota // It is another agent's.
	held                     // Its work is the engine's business.
	orphaned                 // This agent knows nothing of its work.
	evicting                 // Its work was deleted.
)

func newEviction(a *Applier) *eviction {
	const rounds, shortest, longest = 12, 100 * time.Millisecond, 5 * time.Minute
	grace := a.options.EvictionGrace
	return &eviction{
		Applier: a, grace: grace, interval: min(max(grace/rounds, shortest), longest),
		watched: make(map[types.UID]time.Time),
	}
}

// run looks from time to time until ctx ends.
func (e *eviction) run(ctx context.Context) {
	if e.grace >= NeverEvict {
		return
	}
	tick := time.NewTicker(e.interval)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := e.look(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			e.log.Warn("cannot look for works that are not wanted any more, trying again", "after", e.interval, "err", clip(err.Error()))
		}
		failing = err != nil
	}
}

// look takes every AppliedManifestWork of this agent one step further.
func (e *eviction) look(ctx context.Context) error {
	counts := make(map[standing]int)
	var names []string
	present := make(map[types.UID]bool)
	var errs []error
	err := e.client.eachAppliedWork(ctx, func(w *workv1.AppliedManifestWork) {
		present[w.UID] = true
		s, err := e.step(ctx, w)
		if err != nil {
			errs = append(errs, fmt.Errorf("AppliedManifestWork %s: %w", w.Name, err))
		}
		counts[s]++
		if s == orphaned {
			names = append(names, w.Name)
		}
	})
	if err != nil {
		return err
	}
	for uid := range e.watched {
		if !present[uid] {
			delete(e.watched, uid)
		}
	}
	e.mu.Lock()
	maps.DeleteFunc(e.missed, func(uid types.UID, _ time.Time) bool { return !present[uid] })
	e.mu.Unlock()
	e.metrics.orphaned.WithLabelValues(orphanKept).Set(float64(counts[orphaned]))
	e.metrics.orphaned.WithLabelValues(orphanEvicting).Set(float64(counts[evicting]))
	e.tell(names)
	return errors.Join(errs...)
}

// tell says how many stay although nobody holds their works, if that is news.
func (e *eviction) tell(names []string) {
	if news := len(names) != e.kept; !news {
		return
	}
	e.kept = len(names)
	if len(names) == 0 {
		return
	}
	const most = 5
	slices.Sort(names)
	e.log.Warn("the cluster has objects of works that this agent does not hold; they stay, since it does not remember that these works were deleted",
		"works", len(names), "appliedmanifestworks", strings.Join(names[:min(most, len(names))], ", "))
}

// step decides on one AppliedManifestWork and does what is to be done now.
func (e *eviction) step(ctx context.Context, w *workv1.AppliedManifestWork) (standing, error) {
	if w.Spec.AgentID != e.options.AgentID {
		return foreign, nil
	}
	if e.elsewhere(w) {
		// What this agent knows, it knows of the works of its own cluster name. Even
		// if somebody deleted this one, its agent knows which objects stay.
		delete(e.watched, w.UID)
		return orphaned, nil
	}
	key := keyOf(w, workKey{})
	has, deleted := e.ledger.Fate(key.source, key.id)
	switch {
	case has:
		delete(e.watched, w.UID)
		if w.Status.EvictionStartTime == nil || w.DeletionTimestamp != nil {
			return held, nil
		}
		e.log.Info("work is wanted again", "source", key.source, "work", key.id, "name", w.Spec.ManifestWorkName)
		return held, e.client.setEviction(ctx, w, nil, 0)
	case w.DeletionTimestamp != nil:
		// Somebody deleted it to have its objects removed.
		return evicting, e.remove(ctx, key, w)
	case !deleted || w.Annotations[clusterAnnotation] == "":
		// What has passed of the grace period stands still.
		delete(e.watched, w.UID)
		return orphaned, nil
	}
	return evicting, e.advance(ctx, key, w)
}

// advance lets the time pass for which a work is known to be deleted.
func (e *eviction) advance(ctx context.Context, key workKey, w *workv1.AppliedManifestWork) error {
	now := time.Now()
	elapsed, err := time.ParseDuration(w.Annotations[evictionElapsedAnnotation])
	if err != nil || elapsed < 0 || w.Status.EvictionStartTime == nil {
		elapsed = 0
	}
	if last, ok := e.watched[w.UID]; ok {
		// Nobody looked if it was longer ago.
		elapsed += min(now.Sub(last), 2*e.interval)
	}
	e.watched[w.UID] = now
	if w.Status.EvictionStartTime == nil {
		e.log.Warn("this work was deleted, and what it made is there again; it is removed after the grace period",
			"source", key.source, "work", key.id, "name", w.Spec.ManifestWorkName, "appliedmanifestwork", w.Name, "grace_period", e.grace)
	} else if elapsed >= e.grace {
		return e.remove(ctx, key, w)
	}
	start := w.Status.EvictionStartTime
	if start == nil {
		start = &metav1.Time{Time: now}
	}
	return e.client.setEviction(ctx, w, start, elapsed)
}

// remove deletes an AppliedManifestWork with the objects that it owns alone. A
// work that comes meanwhile waits: whoever holds it was asked after it would have
// to wait.
func (e *eviction) remove(ctx context.Context, key workKey, w *workv1.AppliedManifestWork) error {
	e.evict(key, true)
	defer e.evict(key, false)
	has, deleted := e.ledger.Fate(key.source, key.id)
	if has || !deleted && w.DeletionTimestamp == nil {
		return nil
	}
	blockers, err := e.dismantle(ctx, key, w, func(entry) bool { return false })
	if err = errors.Join(stillThere(blockers), err); err != nil {
		return err
	}
	e.forget(key)
	e.metrics.evicted.Inc()
	e.log.Warn("removed what was left of a deleted work",
		"source", key.source, "work", key.id, "name", w.Spec.ManifestWorkName, "appliedmanifestwork", w.Name)
	return nil
}

// evict notes that what the cluster has of a work is being removed.
func (a *Applier) evict(key workKey, on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if on {
		a.evicting[key] = struct{}{}
	} else {
		delete(a.evicting, key)
	}
}

// beingEvicted says whether what the cluster has of a work is being removed.
func (a *Applier) beingEvicted(key workKey) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.evicting[key]
	return ok
}

// eachAppliedWork visits all AppliedManifestWorks of the cluster, page by page.
func (c *client) eachAppliedWork(ctx context.Context, visit func(*workv1.AppliedManifestWork)) error {
	const page = 100
	o := metav1.ListOptions{Limit: page}
	for {
		list, err := c.appliedWorkPage(ctx, o)
		if apierrors.IsNotFound(err) {
			return nil // The kind is not served.
		}
		if err != nil {
			return fmt.Errorf("list AppliedManifestWorks: %w", err)
		}
		for i := range list.Items {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			visit(&list.Items[i])
		}
		if o.Continue = list.Continue; o.Continue == "" {
			return nil
		}
	}
}

func (c *client) appliedWorkPage(ctx context.Context, o metav1.ListOptions) (*workv1.AppliedManifestWorkList, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	return c.works.List(ctx, o)
}

// setEviction writes since when an AppliedManifestWork is being evicted and how
// much of that time counts; a start of nil ends it.
func (c *client) setEviction(ctx context.Context, w *workv1.AppliedManifestWork, start *metav1.Time, elapsed time.Duration) error {
	var passed any
	if start != nil {
		passed = elapsed.Truncate(time.Millisecond).String()
	}
	for _, part := range []struct {
		fields      map[string]any
		subresource []string
		same        bool
	}{
		{map[string]any{
			"metadata": map[string]any{"uid": w.UID, "annotations": map[string]any{evictionElapsedAnnotation: passed}},
		}, nil, false},
		{map[string]any{
			"metadata": map[string]any{"uid": w.UID}, "status": map[string]any{"evictionStartTime": start},
		}, []string{"status"}, start.Equal(w.Status.EvictionStartTime)},
	} {
		if part.same {
			continue
		}
		patch, err := json.Marshal(part.fields)
		if err != nil {
			return err
		}
		if err := c.patchAppliedWork(ctx, w.Name, patch, part.subresource...); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("note the eviction: %w", err)
		}
	}
	return nil
}

func (c *client) patchAppliedWork(ctx context.Context, name string, patch []byte, subresources ...string) error {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	_, err := c.works.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: updateManager}, subresources...)
	return err
}
