package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
)

const (
	// coalescing is how long a confirmed deletion waits to be saved together with
	// those after it. One that is lost is one that an agent with older data is
	// not told of again.
	coalescing = 30 * time.Second
	// writers is how many Agents are written at a time.
	writers = 4
	// writeAttempts bounds the conflicts of one write, flushTimeout the last ones.
	writeAttempts = 5
	flushTimeout  = 5 * time.Second
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
		if c.changes != c.saved || c.agent != nil && len(c.agent.Spec.Delete) > 0 {
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
				if err := s.reconcile(ctx, cluster); err != nil && ctx.Err() == nil {
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
		if err := s.saveRecord(ctx, cluster); err != nil {
			s.log.Info("tombstones were not saved at the end", "cluster", cluster, "err", err)
		}
	}
}

// enqueue and enqueueLater have the Agent of a cluster written. The caller
// holds mu.
func (s *Source) enqueue(cluster string) {
	if s.queue != nil {
		s.queue.Add(cluster)
	}
}

func (s *Source) enqueueLater(cluster string) {
	if s.queue != nil {
		s.queue.AddAfter(cluster, s.coalescing)
	}
}

// reconcile does what the Agent's spec asks for and saves its status.
func (s *Source) reconcile(ctx context.Context, cluster string) error {
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

func (s *Source) agentUpdated(_, obj any) { s.agentAdded(obj) }

func (s *Source) agentDeleted(obj any) {
	if unknown, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
		obj = unknown.Obj
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
	c.agent = nil
	if c.state != nil || len(c.tombstones) > 0 {
		// Made again, unless its namespace is gone, too.
		c.changes++
		s.enqueue(a.Namespace)
	}
	s.forget(a.Namespace)
}

// known takes note of an Agent as the API server has or had it. The caller holds
// mu.
func (s *Source) known(a *v1alpha1.Agent) {
	c := s.clusterOf(a.Namespace)
	if c.agent != nil && c.agent.UID == a.UID {
		order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, c.agent.ResourceVersion)
		if err == nil && order < 0 {
			return
		}
	}
	c.agent = a
	c.merge(a.Status.Tombstones)
	if s.queue == nil {
		// A replica that does not write forgets as the one that does.
		c.trim(time.Now())
	}
	if len(a.Spec.Delete) > 0 {
		s.enqueue(a.Namespace)
	}
}

// saveRecord saves the status of a cluster's Agent if it differs. A cluster without a
// namespace, or whose namespace goes, has no Agent: that is no error.
func (s *Source) saveRecord(ctx context.Context, cluster string) error {
	s.mu.Lock()
	c := s.clusterOf(cluster)
	s.mu.Unlock()
	c.writing.Lock()
	defer c.writing.Unlock()
	var err error
	for range writeAttempts {
		if err = s.saveOnce(ctx, cluster, c); err == nil || !apierrors.IsConflict(err) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("write Agent %s/%s: %w", cluster, s.id, err)
	}
	return nil
}

// saveOnce fails with a conflict if it is to be called again.
func (s *Source) saveOnce(ctx context.Context, cluster string, c *clusterRecord) error {
	s.mu.Lock()
	have, changes := c.agent, c.changes
	want := s.statusOf(c, time.Now())
	s.mu.Unlock()
	done := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		c.saved = max(c.saved, changes)
		s.forget(cluster)
	}
	if have == nil {
		if equality.Semantic.DeepEqual(want, v1alpha1.AgentStatus{}) {
			done()
			return nil
		}
		made, err := s.createAgent(ctx, cluster)
		switch {
		case err != nil:
			return err
		case made:
			return conflict(s.id, errors.New("there is one now, whose status counts, too"))
		default:
			done()
			return nil
		}
	}
	if sameStatus(have.Status, want) {
		done()
		return nil
	}
	out := have.DeepCopy()
	out.Status = want
	err := s.writer.Status().Update(ctx, out, client.FieldOwner(fieldManager))
	switch {
	case apierrors.IsNotFound(err):
		s.mu.Lock()
		if c.agent != nil && c.agent.UID == have.UID {
			c.agent = nil
		}
		s.mu.Unlock()
		return conflict(s.id, err)
	case apierrors.IsConflict(err):
		return cmp.Or(s.liveAgent(ctx, cluster), err)
	case err != nil:
		return err
	}
	s.mu.Lock()
	s.known(out)
	s.mu.Unlock()
	done()
	return nil
}

// createAgent says whether there is an Agent now. Without a namespace to create
// it in there is none.
func (s *Source) createAgent(ctx context.Context, cluster string) (bool, error) {
	a := &v1alpha1.Agent{ObjectMeta: metav1.ObjectMeta{Namespace: cluster, Name: s.id}}
	err := s.writer.Create(ctx, a, client.FieldOwner(fieldManager))
	switch {
	case err == nil:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.known(a)
		return true, nil
	case apierrors.IsAlreadyExists(err):
		return true, s.liveAgent(ctx, cluster)
	case apierrors.IsNotFound(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return false, nil
	default:
		return false, err
	}
}

// liveAgent has the record know what the API server has.
func (s *Source) liveAgent(ctx context.Context, cluster string) error {
	a := &v1alpha1.Agent{}
	err := s.live.Get(ctx, client.ObjectKey{Namespace: cluster, Name: s.id}, a)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case apierrors.IsNotFound(err):
		s.clusterOf(cluster).agent = nil
		return nil
	case err != nil:
		return fmt.Errorf("look up Agent %s/%s: %w", cluster, s.id, err)
	}
	s.known(a)
	return nil
}

// sameStatus leaves out what changes without being saved.
func sameStatus(have, want v1alpha1.AgentStatus) bool {
	want.LastSeen, want.LastSynced = have.LastSeen, have.LastSynced
	return equality.Semantic.DeepEqual(have, want)
}

func conflict(name string, reason error) error {
	return apierrors.NewConflict(v1alpha1.Resource("agents"), name, reason)
}
