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

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/util/retry"

	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
)

// deleteUnclaimed asks the hub to delete works that only their cluster knows.
func (d *deleteWork) deleteUnclaimed(ctx context.Context, cluster string, arguments []string) error {
	clusters, err := d.agents(ctx, cluster)
	if err != nil {
		return err
	}
	works := clusters.listUnclaimed()
	if len(arguments) > 0 {
		if works, err = choose(works, cluster, arguments); err != nil {
			return err
		}
	}
	if len(works) == 0 {
		fmt.Fprintf(d.ErrOut, "Cluster %s holds no unclaimed works.\n", cluster)
		return nil
	}
	if err := d.ask(cluster, works); err != nil {
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

// ask shows what will be deleted and returns nil if that is wanted.
func (d *deleteWork) ask(cluster string, works []unclaimedWork) error {
	if d.yes {
		return nil
	}
	fmt.Fprintf(d.ErrOut, "Cluster %s will remove what it runs for:\n", cluster)
	for _, w := range works {
		fmt.Fprintf(d.ErrOut, "  %s\n", w)
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

// waitForgotten returns when the cluster confirmed that nothing of these works is
// left.
func (d *deleteWork) waitForgotten(ctx context.Context, cluster string, works []unclaimedWork) error {
	waiting, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	left := slices.Clone(works)
	last := ""
	// agents is what is known of each source's agent.
	agents := map[string]*v1alpha1.Agent{}
	look := func() (bool, error) {
		var blocked string
		left = slices.DeleteFunc(left, func(w unclaimedWork) bool {
			a := agents[w.Source]
			if a == nil {
				return false
			}
			stage := stageOf(w.ID, a)
			if stage == forgotten {
				fmt.Fprintf(d.Out, "unclaimedwork/%s deleted\n", w.ID)
			} else if blocked == "" || stage == refused {
				blocked = stage
			}
			return stage == forgotten
		})
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
	if errors.Is(err, context.DeadlineExceeded) {
		return coded(exitTimeout, fmt.Errorf("%d of %d unclaimed works of cluster %q are not gone after %s: %s. The deletion goes on; see it: fleetcast describe cluster %s",
			len(left), len(works), cluster, d.timeout, d.atLast(ctx, cluster, last), cluster))
	}
	return d.explain(err, "wait until unclaimed works of cluster %q are gone", cluster)
}

// Stages of the deletion of an unclaimed work.
const (
	requested = "waiting for the hub"
	deleting  = waitingForCluster
	refused   = "refused"
	forgotten = "gone"
)

// stageOf says how far the hub and the cluster are with the deletion that a's
// spec asked for.
func stageOf(id string, a *v1alpha1.Agent) string {
	for _, t := range a.Status.Tombstones {
		if t.ID == id {
			if t.ConfirmedAt.IsZero() {
				return deleting
			}
			return forgotten
		}
	}
	switch {
	case slices.Contains(a.Spec.Delete, id):
		return requested
	case slices.ContainsFunc(a.Status.Unclaimed, func(w v1alpha1.UnclaimedWork) bool { return w.ID == id && !w.Deleting }):
		return refused
	default:
		return forgotten
	}
}
