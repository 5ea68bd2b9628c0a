package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
	"github.com/fleetcast-io/fleetcast/sources"
)

// saveRecord saves the status of a cluster's Agent if it differs. A cluster without
// a namespace, or whose namespace goes, has no Agent: that is no error, unless it
// is one to be forgotten.
func (s *Source) saveRecord(ctx context.Context, cluster string) error {
	s.mu.Lock()
	c := s.clusterOf(cluster)
	c.writes++ // Keeps the record.
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		c.writes--
		s.forget(cluster)
	}()
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
	have, changes, keeps := c.agent, c.changes, c.keepsAgent()
	want := s.statusOf(c, time.Now())
	s.mu.Unlock()
	if have == nil {
		if !equality.Semantic.DeepEqual(want, v1alpha1.AgentStatus{}) {
			made, err := s.createAgent(ctx, cluster, keeps)
			switch {
			case err != nil:
				return err
			case made:
				return conflict(s.id, errors.New("there is one now, whose status counts, too"))
			default:
				return s.withoutNamespace(cluster, c, changes)
			}
		}
	} else if err := s.update(ctx, c, have, want, keeps); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.saved, c.homeless = max(c.saved, changes), false
	return nil
}

// update has an Agent as it shall be. The finalizer is on it before there is
// something to keep, and goes when that is saved.
func (s *Source) update(ctx context.Context, c *clusterRecord, have *v1alpha1.Agent, want v1alpha1.AgentStatus, keeps bool) error {
	write := func(change func(*v1alpha1.Agent), send func(context.Context, *v1alpha1.Agent) error) error {
		out := have.DeepCopy()
		change(out)
		if err := send(ctx, out); err != nil {
			return s.updateFailed(ctx, c, have, err)
		}
		s.mu.Lock()
		s.known(out)
		s.mu.Unlock()
		have = out
		return nil
	}
	object := func(ctx context.Context, a *v1alpha1.Agent) error {
		return s.writer.Update(ctx, a, client.FieldOwner(fieldManager))
	}
	if keeps && !hasAgentFinalizer(have) && have.DeletionTimestamp == nil {
		if err := write(func(a *v1alpha1.Agent) { a.Finalizers = append(a.Finalizers, api.AgentFinalizer) }, object); err != nil {
			return err
		}
	}
	if !sameStatus(have.Status, want) {
		if err := write(func(a *v1alpha1.Agent) { a.Status = want }, func(ctx context.Context, a *v1alpha1.Agent) error {
			return s.writer.Status().Update(ctx, a, client.FieldOwner(fieldManager))
		}); err != nil {
			return err
		}
	}
	if !keeps && hasAgentFinalizer(have) {
		return write(func(a *v1alpha1.Agent) {
			a.Finalizers = slices.DeleteFunc(a.Finalizers, func(f string) bool { return f == api.AgentFinalizer })
		}, object)
	}
	return nil
}

// updateFailed makes a conflict of what another attempt may overcome.
func (s *Source) updateFailed(ctx context.Context, c *clusterRecord, have *v1alpha1.Agent, err error) error {
	switch {
	case apierrors.IsNotFound(err):
		s.mu.Lock()
		if c.agent != nil && c.agent.UID == have.UID {
			c.agent = nil
		}
		s.mu.Unlock()
		return conflict(s.id, err)
	case apierrors.IsConflict(err):
		return cmp.Or(s.liveAgent(ctx, have.Namespace), err)
	}
	return err
}

// withoutNamespace is what becomes of a record that cannot be kept in an Agent:
// it waits for the namespace, unless nothing of it is of use any more.
func (s *Source) withoutNamespace(cluster string, c *clusterRecord, changes int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.unconfirmed > 0 {
		if !c.homeless {
			c.homeless = true
			s.log.Warn("the cluster's namespace takes no Agent, as it is missing or being deleted; until it does, deletions that "+
				"the cluster did not confirm are known to this process only, and what is left of them shows as unclaimed after a restart",
				"cluster", cluster, "deletions", c.unconfirmed)
		}
		s.enqueueAfter(cluster, wait.Jitter(s.again, 0.5))
		return nil
	}
	c.saved, c.homeless = max(c.saved, changes), false
	switch {
	case c.state == nil || len(c.state.Capabilities) == 0:
	case !c.state.Online && !c.keepsAgent():
		c.state = nil
		return sources.ErrNoCluster
	default:
		s.enqueueAfter(cluster, wait.Jitter(s.again, 0.5))
	}
	return nil
}

// createAgent says whether there is an Agent now. Without a namespace to create
// it in there is none.
func (s *Source) createAgent(ctx context.Context, cluster string, keeps bool) (bool, error) {
	a := &v1alpha1.Agent{ObjectMeta: metav1.ObjectMeta{Namespace: cluster, Name: s.id}}
	if keeps {
		a.Finalizers = []string{api.AgentFinalizer}
	}
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

// liveAgent has the record know what the API server has, which counts even if it
// is older than what was known.
func (s *Source) liveAgent(ctx context.Context, cluster string) error {
	a := &v1alpha1.Agent{}
	err := s.live.Get(ctx, client.ObjectKey{Namespace: cluster, Name: s.id}, a)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("look up Agent %s/%s: %w", cluster, s.id, err)
	}
	s.clusterOf(cluster).agent = nil
	if err == nil {
		s.known(a)
	}
	return nil
}

func hasAgentFinalizer(a *v1alpha1.Agent) bool {
	return slices.Contains(a.Finalizers, api.AgentFinalizer)
}

// sameStatus leaves out what changes without being saved.
func sameStatus(have, want v1alpha1.AgentStatus) bool {
	want.LastSeen, want.LastSynced = have.LastSeen, have.LastSynced
	return equality.Semantic.DeepEqual(have, want)
}

func conflict(name string, reason error) error {
	return apierrors.NewConflict(v1alpha1.Resource("agents"), name, reason)
}
