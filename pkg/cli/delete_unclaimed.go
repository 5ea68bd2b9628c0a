package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/util/retry"

	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
)

// deleteUnclaimed asks the hub to delete works that only their cluster knows.
func (d *deleteWork) deleteUnclaimed(ctx context.Context, cluster string, arguments []string) error {
	known, err := d.recorded(ctx, cluster)
	if err != nil {
		return err
	}
	works := known.listUnclaimed()
	all, rest := known[cluster].unclaimed(), 0
	if len(arguments) > 0 {
		if works, err = choose(works, all, cluster, arguments); err != nil {
			return err
		}
	} else {
		rest = all - len(works)
	}
	if len(works) == 0 {
		fmt.Fprintf(d.ErrOut, "Cluster %s holds no unclaimed works.\n", cluster)
		return nil
	}
	if err := d.ask(cluster, works, rest); err != nil {
		return err
	}
	bySource := map[string][]string{}
	for _, w := range works {
		bySource[w.Source] = append(bySource[w.Source], w.ID)
	}
	for _, source := range slices.Sorted(maps.Keys(bySource)) {
		if err := d.request(ctx, cluster, source, bySource[source]); err != nil {
			return d.explain(err, "ask hub %q to delete unclaimed works of cluster %q", source, cluster)
		}
	}
	if !d.wait {
		for _, w := range works {
			fmt.Fprintf(d.Out, "unclaimedwork/%s deletion confirmed\n", w.ID)
		}
		fmt.Fprintf(d.ErrOut, "Next: fleetcast describe cluster %s\n", cluster)
		return nil
	}
	return d.waitForgotten(ctx, cluster, works)
}

// ask shows what will be deleted and returns nil if that is wanted. There are
// rest more works, which the hub does not list.
func (d *deleteWork) ask(cluster string, works []unclaimedWork, rest int) error {
	if !d.yes {
		fmt.Fprintf(d.ErrOut, "Cluster %s will remove what it runs for:\n", cluster)
		for _, w := range works {
			fmt.Fprintf(d.ErrOut, "  %s\n", w)
		}
	}
	if rest > 0 {
		fmt.Fprintf(d.ErrOut, "Of its %d unclaimed works, the hub lists no others: %d stay until you ask again.\n", len(works)+rest, rest)
	}
	if d.yes {
		return nil
	}
	these := "this work"
	if len(works) > 1 {
		these = fmt.Sprintf("these %d works", len(works))
	}
	fmt.Fprintf(d.ErrOut, "Delete %s? [y/N] ", these)
	answer, err := bufio.NewReader(io.LimitReader(d.In, 1024)).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	if err != nil {
		fmt.Fprintln(d.ErrOut)
		return errors.New("nothing was deleted, as nobody answered the question; --yes does without it")
	}
	return errors.New("nothing was deleted")
}

// request adds IDs to those that the hub of a source shall delete.
func (d *deleteWork) request(ctx context.Context, cluster, source string, ids []string) error {
	agents := d.client.Resource(agentResource).Namespace(cluster)
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		u, err := agents.Get(ctx, source, metav1.GetOptions{})
		if err != nil {
			return err
		}
		wanted, _, err := unstructured.NestedStringSlice(u.Object, "spec", "delete")
		if err != nil {
			return err
		}
		wanted = append(wanted, without(ids, wanted)...)
		if err := unstructured.SetNestedStringSlice(u.Object, wanted, "spec", "delete"); err != nil {
			return err
		}
		_, err = agents.Update(ctx, u, metav1.UpdateOptions{FieldManager: fieldManager})
		return err
	})
}

// without returns those of list that are not in others.
func without(list, others []string) []string {
	var rest []string
	for _, s := range list {
		if !slices.Contains(others, s) {
			rest = append(rest, s)
		}
	}
	return rest
}

// waitForgotten returns when nothing of these works is left on the cluster.
func (d *deleteWork) waitForgotten(ctx context.Context, cluster string, works []unclaimedWork) error {
	waiting, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	left := slices.Clone(works)
	last := ""
	// agents is what is known of each source's agent.
	agents := map[string]*v1alpha1.Agent{}
	// lost counts those of left of which the record does not speak.
	lost := 0
	look := func() (bool, error) {
		var blocked string
		var err error
		lost = 0
		names := sync.OnceValues(func() (map[string]string, error) { return d.namesByID(waiting, cluster) })
		left = slices.DeleteFunc(left, func(w unclaimedWork) bool {
			a := agents[w.Source]
			if a == nil || err != nil {
				return false
			}
			stage := stageOf(w.ID, a)
			if stage == unlisted {
				// Either nothing of it is left, or the hub knows it again.
				if err = errClaimed(names, cluster, w.ID); err != nil {
					return false
				}
				stage = forgotten
			}
			switch stage {
			case forgotten:
				fmt.Fprintf(d.Out, "unclaimedwork/%s deleted\n", w.ID)
				return true
			case unknown:
				lost++
			}
			if blocked == "" || stage == refused {
				blocked = stage
			}
			return false
		})
		if err != nil {
			return false, err
		}
		if blocked == refused {
			return false, fmt.Errorf("the hub does not take the request to delete works that cluster %q holds unclaimed. See why: fleetcast describe cluster %s", cluster, cluster)
		}
		if now := fmt.Sprintf("%d of %d works left: %s", len(left), len(works), blocked); blocked != "" && now != last {
			last = now
			fmt.Fprintf(d.ErrOut, "cluster %s: %s\n", cluster, now)
		}
		return len(left) == 0, nil
	}
	err := d.follow(waiting, agentResource, cluster, metav1.ListOptions{}, func(event watch.EventType, u *unstructured.Unstructured) (bool, error) {
		if event == watch.Bookmark {
			return look()
		}
		if event == watch.Deleted {
			return false, fmt.Errorf("the record of the agent of cluster %q was removed, so nobody tells what became of its works. See what is known: fleetcast describe cluster %s", cluster, cluster)
		}
		a := &v1alpha1.Agent{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, a); err != nil {
			return false, fmt.Errorf("read agent %q of cluster %q: %w", u.GetName(), cluster, err)
		}
		agents[a.Name] = a
		if event == watch.Added {
			// They are looked at together when all are known.
			return false, nil
		}
		return look()
	})
	if errors.Is(err, context.DeadlineExceeded) && lost > 0 {
		return coded(exitTimeout, fmt.Errorf("what became of %d of %d unclaimed works of cluster %q is not known after %s: the hub's record does not name them. Ask again with: fleetcast get works --unclaimed --cluster %s",
			lost, len(works), cluster, d.timeout, cluster))
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return coded(exitTimeout, fmt.Errorf("%d of %d unclaimed works of cluster %q are not gone after %s: %s. The deletion goes on; see it: fleetcast describe cluster %s",
			len(left), len(works), cluster, d.timeout, d.atLast(ctx, cluster, last), cluster))
	}
	return d.explain(err, "wait until unclaimed works of cluster %q are gone", cluster)
}

// namesByID returns the names of the cluster's works that the hub knows.
func (d *deleteWork) namesByID(ctx context.Context, cluster string) (map[string]string, error) {
	works, _, err := d.list(ctx, workResource, cluster, metav1.ListOptions{})
	if err != nil {
		return nil, d.explain(err, "list works of cluster %q", cluster)
	}
	names := map[string]string{}
	for _, w := range works {
		names[string(w.GetUID())] = w.GetName()
	}
	return names, nil
}

// errClaimed is an error if the hub has a work of this ID, as after its data was
// restored: such a work is not unclaimed any more, and not deleted.
func errClaimed(names func() (map[string]string, error), cluster, id string) error {
	known, err := names()
	if err != nil {
		return err
	}
	if name, ok := known[id]; ok {
		return coded(exitFailure, fmt.Errorf("the hub knows the work with the ID %q of cluster %q again, so it was not deleted as an unclaimed one. If it shall go: fleetcast delete work %s --cluster %s",
			id, cluster, name, cluster))
	}
	return nil
}

// Stages of the deletion of an unclaimed work.
const (
	requested = "waiting for the hub"
	deleting  = waitingForCluster
	refused   = "refused"
	forgotten = "gone"
	// unlisted is a work that would be in the record if the cluster held it and
	// the hub did not know it.
	unlisted = "in no list"
	// unknown is a work of which the record says nothing.
	unknown = "the hub's record does not name them"
)

// stageOf says how far the hub and the cluster are with the deletion of a work
// that was unclaimed in an earlier version of a.
func stageOf(id string, a *v1alpha1.Agent) string {
	complete := true
	for _, t := range a.Status.Tombstones {
		switch {
		case t.ID == id && t.ConfirmedAt.IsZero():
			return deleting
		case t.ID == id:
			return forgotten
		case t.ConfirmedAt.IsZero():
			// The hub leaves out confirmed ones before others.
			complete = false
		}
	}
	if slices.Contains(a.Spec.Delete, id) {
		return requested
	}
	for _, w := range a.Status.Unclaimed {
		if w.ID == id && w.Deleting {
			return deleting
		}
		if w.ID == id {
			return refused
		}
	}
	complete = complete && int(a.Status.UnclaimedCount) == len(a.Status.Unclaimed)
	if complete && meta.IsStatusConditionTrue(a.Status.Conditions, api.ConditionInSync) {
		return unlisted
	}
	return unknown
}
