package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
)

// grantDeletions makes tombstones of the unclaimed works that the spec names. It
// returns what of the spec is done with, and those whose deletion is to be sent.
// What there is no room for waits in the spec.
func (s *Source) grantDeletions(ctx context.Context, cluster string) (done, granted []string, err error) {
	s.mu.Lock()
	agent := s.clusterOf(cluster).agent
	s.mu.Unlock()
	if agent == nil || len(agent.Spec.Delete) == 0 {
		return nil, nil, nil
	}
	var refused []string
	waiting := 0
	for _, id := range agent.Spec.Delete {
		w, ok, err := s.find(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		if ok && w.Namespace == cluster {
			refused = append(refused, id)
			continue
		}
		s.mu.Lock()
		t, err := s.deleteUnclaimed(cluster, s.clusterOf(cluster), id)
		if err == nil && t.ConfirmedAt == nil {
			granted = append(granted, id)
		}
		s.mu.Unlock()
		switch {
		case errors.Is(err, errNoRoom):
			waiting++
			continue
		case errors.Is(err, errNotUnclaimed):
			refused = append(refused, id)
		case err != nil:
			s.log.Warn("the deletion of an unclaimed work cannot be sent", "cluster", cluster, "id", id, "err", err)
			refused = append(refused, id)
		}
		done = append(done, id)
	}
	done = append(done, refused...)
	if len(granted) > 0 {
		s.log.Info("unclaimed works are deleted as the Agent's spec asks", "cluster", cluster, "works", len(granted), "waiting", waiting)
		what := fmt.Errorf("deleting %d unclaimed works on the cluster: %s", len(granted), some(granted))
		advice := "status.tombstones says when they are gone."
		if waiting > 0 {
			advice += fmt.Sprintf(" %d more wait in spec.delete until the cluster confirmed some.", waiting)
		}
		s.events.Eventf(agent, nil, corev1.EventTypeNormal, api.ReasonDeletionConfirmed, "Delete", "%s", note(what, advice))
	}
	if len(refused) > 0 {
		s.log.Warn("the Agent's spec names works that are not unclaimed; they are not deleted", "cluster", cluster, "works", len(refused))
		s.events.Eventf(agent, nil, corev1.EventTypeWarning, api.ReasonNotUnclaimed, "Delete", "%s",
			note(fmt.Errorf("not deleted, as status.unclaimed does not have them: %s", some(refused)), "Works of this hub are deleted as ManifestWorks."))
	}
	return done, granted, nil
}

// some is a few of many IDs.
func some(ids []string) string {
	const most = 10
	if len(ids) > most {
		return strings.Join(ids[:most], ", ") + fmt.Sprintf(" and %d more", len(ids)-most)
	}
	return strings.Join(ids, ", ")
}

// errNotUnclaimed says that a cluster is not known to hold a work unclaimed.
var errNotUnclaimed = errors.New("not among the cluster's unclaimed works")

// deleteUnclaimed returns the tombstone of an unclaimed work, made unless there is
// one. Its generation is above the one that the agent holds. The caller holds mu.
func (s *Source) deleteUnclaimed(cluster string, c *clusterRecord, id string) (*tombstone, error) {
	if t, ok := c.tombstones[id]; ok {
		return t, nil
	}
	u, ok := c.unclaimed(id)
	if !ok {
		return nil, errNotUnclaimed
	}
	t := v1alpha1.Tombstone{
		ID: u.ID, Name: u.Name, Generation: u.Generation + 1, DeletedAt: metav1.Now().Rfc3339Copy(), ByOperator: true,
	}
	if _, err := s.bundle(cluster, &tombstone{Tombstone: t}); err != nil {
		// The highest generation there is: an equal one counts, too.
		t.Generation = u.Generation
		if _, err := s.bundle(cluster, &tombstone{Tombstone: t}); err != nil {
			return nil, err
		}
	}
	if err := c.room(t); err != nil {
		return nil, err
	}
	c.add(t)
	return c.tombstones[id], nil
}

// publish names works as changed to whom Notify set.
func (s *Source) publish(cluster string, ids []string) {
	s.mu.Lock()
	notify := s.changed
	s.mu.Unlock()
	if notify == nil {
		return
	}
	for _, id := range ids {
		notify(keyOf(cluster, id))
	}
}

// clearSpec takes IDs off the spec.
func (s *Source) clearSpec(ctx context.Context, cluster string, ids []string) error {
	taken := make(map[string]bool, len(ids))
	for _, id := range ids {
		taken[id] = true
	}
	for range writeAttempts {
		s.mu.Lock()
		have := s.clusterOf(cluster).agent
		s.mu.Unlock()
		if have == nil {
			return nil
		}
		out := have.DeepCopy()
		out.Spec.Delete = slices.DeleteFunc(out.Spec.Delete, func(id string) bool { return taken[id] })
		if len(out.Spec.Delete) == len(have.Spec.Delete) {
			return nil
		}
		err := s.writer.Update(ctx, out, client.FieldOwner(fieldManager))
		switch {
		case err == nil:
			s.mu.Lock()
			s.known(out)
			s.mu.Unlock()
			return nil
		case apierrors.IsNotFound(err):
			return nil
		case !apierrors.IsConflict(err):
			return fmt.Errorf("take IDs off the spec of Agent %s/%s: %w", cluster, s.id, err)
		}
		if err := s.liveAgent(ctx, cluster); err != nil {
			return err
		}
	}
	return conflict(s.id, errors.New("others write it all the time"))
}
