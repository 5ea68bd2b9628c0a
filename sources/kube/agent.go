package kube

import (
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/resourceversion"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
	"github.com/fleetcast-io/fleetcast/sources"
)

const (
	// coalescing is how long a confirmed deletion waits to be saved together with
	// those after it. One that is lost is one that an agent with older data is
	// not told of again.
	coalescing = 30 * time.Second
	// namespaceRetry is how long it takes, and up to half as long again, until a
	// cluster whose namespace was missing is looked at again.
	namespaceRetry = 2 * time.Minute
	// judging is how long deletions wait for those that come with them before the
	// breaker decides on them. Publishing one decides at once.
	judging = time.Second
	// writers is how many Agents are written at a time.
	writers = 4
	// writeAttempts bounds the conflicts of one write, flushTimeout the last ones.
	writeAttempts = 5
	flushTimeout  = 15 * time.Second
	flushPause    = 200 * time.Millisecond
	// maxRetry is the longest pause before a write is tried again.
	maxRetry = 5 * time.Minute
)

// Run saves tombstones and does what the Agents' specs ask for, until ctx ends.
// One replica runs it at a time: the one whose dispatcher runs. At the end it
// saves what it did not save yet.
func (s *Source) Run(ctx context.Context) error {
	if !toolscache.WaitForCacheSync(ctx.Done(), s.Loaded) {
		return nil // The context ended first.
	}
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](time.Second, maxRetry))
	s.mu.Lock()
	s.queue = queue
	for name, c := range s.clusters {
		if c.due() {
			queue.Add(name)
		}
	}
	s.mu.Unlock()

	var workers sync.WaitGroup
	for range writers {
		workers.Go(func() {
			for {
				cluster, stop := queue.Get()
				if stop {
					return
				}
				if err := s.reconcile(ctx, cluster); err != nil && ctx.Err() == nil && !errors.Is(err, sources.ErrNoCluster) {
					s.log.Warn("the record of a cluster's agent was not saved, trying again", "cluster", cluster, "err", err)
					queue.AddRateLimited(cluster)
				} else {
					queue.Forget(cluster)
				}
				queue.Done(cluster)
			}
		})
	}
	<-ctx.Done()
	s.mu.Lock()
	s.queue = nil
	s.mu.Unlock()
	queue.ShutDown()
	workers.Wait()
	s.flush(ctx)
	return nil
}

// flush saves what is not saved, as far as that is quick.
func (s *Source) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	s.mu.Lock()
	var due []string
	for name, c := range s.clusters {
		if c.changes != c.saved {
			due = append(due, name)
		}
	}
	s.mu.Unlock()
	for _, cluster := range due {
		err := s.saveRecord(ctx, cluster)
		for err != nil && !errors.Is(err, sources.ErrNoCluster) && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(flushPause):
				err = s.saveRecord(ctx, cluster)
			}
		}
		if err != nil && !errors.Is(err, sources.ErrNoCluster) {
			s.log.Info("tombstones were not saved at the end", "cluster", cluster, "err", err)
		}
	}
}

// enqueue has the Agent of a cluster written, and enqueueLater together with
// what changes meanwhile. The caller holds mu.
func (s *Source) enqueue(cluster string) { s.enqueueAfter(cluster, 0) }

func (s *Source) enqueueLater(cluster string) {
	delay := s.coalescing
	if c := s.clusters[cluster]; c != nil && c.agent != nil && c.agent.DeletionTimestamp != nil {
		delay = 0 // Its namespace waits for it.
	}
	s.enqueueAfter(cluster, delay)
}

func (s *Source) enqueueAfter(cluster string, delay time.Duration) {
	if s.queue != nil {
		s.queue.AddAfter(cluster, delay)
	}
}

// reconcile does what the Agent's spec asks for, saves its status, and has the
// works say whose deletion is withheld.
func (s *Source) reconcile(ctx context.Context, cluster string) error {
	if err := s.tellWithheld(ctx, cluster); err != nil {
		return err
	}
	asked, granted, err := s.grantDeletions(ctx, cluster)
	if err != nil {
		return err
	}
	// Saved before it is sent, and before the spec forgets it.
	if err := s.saveRecord(ctx, cluster); err != nil {
		return err
	}
	if len(asked) == 0 {
		return nil
	}
	s.publish(cluster, granted)
	if err := s.clearSpec(ctx, cluster, asked); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(cluster)
	return nil
}

// agentAdded, agentUpdated and agentDeleted follow the cache.
func (s *Source) agentAdded(obj any) {
	if a, ok := obj.(*v1alpha1.Agent); ok && a.Name == s.id {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.known(a)
	}
}

func (s *Source) agentUpdated(before, after any) {
	old, ok := before.(*v1alpha1.Agent)
	if a, is := after.(*v1alpha1.Agent); ok && is && a.Name == s.id && olderAgent(a, old) {
		// The API server went back, as when it was restored from a backup.
		s.mu.Lock()
		s.clusterOf(a.Namespace).agent = nil
		s.mu.Unlock()
	}
	s.agentAdded(after)
}

func (s *Source) agentDeleted(obj any) {
	witnessed := true
	if unknown, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
		obj, witnessed = unknown.Obj, false
	}
	a, ok := obj.(*v1alpha1.Agent)
	if !ok || a.Name != s.id {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clusterOf(a.Namespace)
	if c.agent == nil || c.agent.UID != a.UID {
		return
	}
	if witnessed && c.agent.DeletionTimestamp != nil && hasAgentFinalizer(c.agent) && c.unconfirmed > 0 {
		// This process takes it off only when there are none.
		s.log.Warn("the finalizer was taken off the Agent of a cluster by force; deletions that the cluster did not confirm are forgotten",
			"cluster", a.Namespace, "deletions", c.unconfirmed)
		c.giveUp()
	}
	c.agent = nil
	if c.state != nil || len(c.tombstones) > 0 {
		// Made again, unless its namespace is gone, too.
		c.changes++
		s.enqueue(a.Namespace)
	}
	s.forget(a.Namespace)
}

func olderAgent(a, b *v1alpha1.Agent) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err == nil && order < 0
}

// known takes note of an Agent as the API server has or had it. The caller holds
// mu.
func (s *Source) known(a *v1alpha1.Agent) {
	c := s.clusterOf(a.Namespace)
	if c.agent != nil && olderAgent(a, c.agent) {
		return
	}
	c.agent = a
	c.merge(a.Status.Tombstones)
	if s.queue == nil {
		// A replica that does not write forgets as the one that does.
		c.trim(time.Now())
	}
	if len(a.Spec.Delete) > 0 || c.keepsAgent() && !hasAgentFinalizer(a) && a.DeletionTimestamp == nil {
		s.enqueue(a.Namespace)
	}
}
