package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// defaultTimeout is how long --wait waits without --timeout.
const defaultTimeout = 2 * time.Minute

// waitApplied returns when a work is applied and available in its latest
// generation. Meanwhile it reports what changes on standard error.
func (h *hub) waitApplied(ctx context.Context, cluster, name string, timeout time.Duration) error {
	last := pending
	err := h.followOne(ctx, cluster, name, timeout, func(u *unstructured.Unstructured) (bool, error) {
		if u == nil {
			return false, notFoundf("work %q of cluster %q was deleted meanwhile", name, cluster)
		}
		w, err := typed(u)
		if err != nil {
			return false, err
		}
		v := judge(w, h.knownAgents(ctx, cluster)[cluster], time.Now())
		if now := v.progress(); now != last {
			last = now
			fmt.Fprintf(h.ErrOut, "%s on cluster %s, generation %d: %s\n", name, cluster, v.Desired, now)
		}
		if v.Undeliverable {
			return false, coded(exitFailure, fmt.Errorf("work %q does not reach cluster %q: %s", name, cluster, v.Obstacle))
		}
		return v.Done, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return coded(exitTimeout, fmt.Errorf("work %q on cluster %q is not applied and available after %s: %s. See more: fleetcast describe work %s --cluster %s",
			name, cluster, timeout, h.atLast(ctx, cluster, last), name, cluster))
	}
	return h.explain(err, "wait for work %q of cluster %q", name, cluster)
}

// waitGone returns when the work with this UID is gone, which is when its
// cluster confirmed that nothing of it is left.
func (h *hub) waitGone(ctx context.Context, cluster, name string, uid types.UID, timeout time.Duration) error {
	last := ""
	err := h.followOne(ctx, cluster, name, timeout, func(u *unstructured.Unstructured) (bool, error) {
		if u == nil || u.GetUID() != uid {
			return true, nil
		}
		w, err := typed(u)
		if err != nil {
			return false, err
		}
		v := judge(w, h.knownAgents(ctx, cluster)[cluster], time.Now())
		if now := v.message(); now != last {
			last = now
			fmt.Fprintf(h.ErrOut, "%s on cluster %s: deleting: %s\n", name, cluster, now)
		}
		if v.Withheld {
			return false, coded(exitFailure, fmt.Errorf("work %q of cluster %q is marked for deletion, which the hub withholds because many works of this cluster are being deleted. If that is meant: %s",
				name, cluster, confirmCommand(w)))
		}
		return false, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return coded(exitTimeout, fmt.Errorf("work %q on cluster %q is not gone after %s: %s. The deletion goes on; see it: fleetcast describe work %s --cluster %s",
			name, cluster, timeout, h.atLast(ctx, cluster, last), name, cluster))
	}
	return h.explain(err, "wait until work %q of cluster %q is gone", name, cluster)
}

// atLast completes what was last known of a work with whether its cluster went
// offline meanwhile, of which nobody tells whoever follows the work.
func (h *hub) atLast(ctx context.Context, cluster, last string) string {
	offline := h.knownAgents(ctx, cluster)[cluster].offline(time.Now())
	if offline == "" || strings.Contains(last, "offline") {
		return last
	}
	return last + "; " + offline
}

// followOne calls see with the work as it is and as it becomes, nil when there
// is none, until see returns true or fails. After timeout it fails with
// context.DeadlineExceeded.
func (h *hub) followOne(ctx context.Context, cluster, name string, timeout time.Duration, see func(*unstructured.Unstructured) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}
	listed := false
	return h.follow(ctx, workResource, cluster, options, func(event watch.EventType, u *unstructured.Unstructured) (bool, error) {
		switch event {
		case watch.Bookmark:
			there := listed
			listed = false
			if there {
				return false, nil
			}
			return see(nil)
		case watch.Deleted:
			return see(nil)
		default:
			listed = event == watch.Added
			return see(u)
		}
	})
}
