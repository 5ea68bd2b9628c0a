package cli

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
)

var agentResource = v1alpha1.GroupVersion.WithResource("agents")

// A roster is what the hub recorded of the agents of its clusters, by cluster.
// A hub of an earlier version has none.
type roster map[string]*presence

// A presence is what the hub recorded of one cluster. There is one agent object
// for each source ID that ever spoke with the cluster, and so nearly always one.
// Of nil nothing is known.
type presence struct {
	agents []*v1alpha1.Agent
}

// agents reads the roster of one cluster, or of all with "". An API server that
// does not serve agents has an empty one.
func (h *hub) agents(ctx context.Context, cluster string) (roster, error) {
	r, err := h.served(ctx, cluster)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return r, err
}

// recorded is agents for commands that are about nothing else: where there is no
// record, nobody knows what a cluster holds, and that is an error. Of an agent of
// OCM, too, nobody does.
func (h *hub) recorded(ctx context.Context, cluster string) (roster, error) {
	r, err := h.served(ctx, cluster)
	switch {
	case err != nil || cluster == "":
		return r, err
	case r[cluster] == nil:
		return nil, notFoundf("the hub has no record of an agent of cluster %q, so what it holds unclaimed is not known. See of which it has: fleetcast get clusters", cluster)
	case !r[cluster].tells() && r[cluster].unclaimed() == 0:
		return nil, fmt.Errorf("the agent of cluster %q speaks Open Cluster Management's protocol only, so what it holds unclaimed is not known", cluster)
	}
	return r, nil
}

// served is agents with an error if the API server does not serve them.
func (h *hub) served(ctx context.Context, cluster string) (roster, error) {
	found, _, err := h.list(ctx, agentResource, cluster, metav1.ListOptions{})
	if err != nil {
		doing := "list the agents of all clusters"
		if cluster != "" {
			doing = fmt.Sprintf("list the agents of cluster %q", cluster)
		}
		return nil, h.explain(err, "%s", doing)
	}
	r := roster{}
	for _, u := range found {
		a := &v1alpha1.Agent{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, a); err != nil {
			return nil, fmt.Errorf("read agent %q of cluster %q: %w", u.GetName(), u.GetNamespace(), err)
		}
		p := r[a.Namespace]
		if p == nil {
			p = &presence{}
			r[a.Namespace] = p
		}
		p.agents = append(p.agents, a)
	}
	return r, nil
}

// warnedAgents is agents for commands that show other things, too: whoever cannot
// read the roster is warned and sees the rest.
func (h *hub) warnedAgents(ctx context.Context, cluster string) roster {
	r, err := h.agents(ctx, cluster)
	if err != nil && ctx.Err() == nil {
		fmt.Fprintf(h.ErrOut, "Warning: %v\n", err)
	}
	return r
}

// knownAgents is warnedAgents for commands that say of clusters only what goes
// beyond the ordinary: the want of the right to read the roster is no news to
// whoever has never had it.
func (h *hub) knownAgents(ctx context.Context, cluster string) roster {
	r, err := h.agents(ctx, cluster)
	if err != nil && !apierrors.IsForbidden(err) && ctx.Err() == nil {
		fmt.Fprintf(h.ErrOut, "Warning: %v\n", err)
	}
	return r
}

// rosterAge is how long a watch goes on with a roster.
const rosterAge = 10 * time.Second

// recentAgents returns knownAgents, read again when it is older than rosterAge.
// The function is not safe for concurrent use.
func (h *hub) recentAgents(ctx context.Context, cluster string) func() roster {
	var r roster
	var read time.Time
	return func() roster {
		if now := time.Now(); now.Sub(read) > rosterAge {
			r, read = h.knownAgents(ctx, cluster), now
		}
		return r
	}
}

// online returns True if an agent of the cluster is heard, False if it is not
// any more, and Unknown if nothing is known, with the time since when.
func (p *presence) online() (metav1.ConditionStatus, metav1.Time) {
	state, since := metav1.ConditionUnknown, metav1.Time{}
	if p == nil {
		return state, since
	}
	for _, a := range p.agents {
		c := meta.FindStatusCondition(a.Status.Conditions, api.ConditionOnline)
		switch {
		case c == nil || c.Status == metav1.ConditionUnknown:
		case c.Status == metav1.ConditionTrue:
			return c.Status, c.LastTransitionTime
		case since.Before(&c.LastTransitionTime) || state == metav1.ConditionUnknown:
			state, since = c.Status, c.LastTransitionTime
		}
	}
	return state, since
}

// tells says whether an agent of the cluster lets the hub know what it holds,
// which agents without capabilities, those of OCM, do not.
func (p *presence) tells() bool {
	if p != nil {
		for _, a := range p.agents {
			if len(a.Status.Capabilities) > 0 {
				return true
			}
		}
	}
	return false
}

// inSync returns whether the agents that are heard, or all if none is, hold what
// the hub holds. Of a cluster that is offline nobody can say that it does.
func (p *presence) inSync() metav1.ConditionStatus {
	if p == nil {
		return metav1.ConditionUnknown
	}
	online, _ := p.online()
	verdict := metav1.ConditionStatus("")
	for _, a := range p.agents {
		if online == metav1.ConditionTrue && !meta.IsStatusConditionTrue(a.Status.Conditions, api.ConditionOnline) {
			continue
		}
		state := metav1.ConditionUnknown
		if c := meta.FindStatusCondition(a.Status.Conditions, api.ConditionInSync); c != nil {
			state = c.Status
		}
		if verdict == "" || verdict == metav1.ConditionTrue {
			verdict = state
		}
	}
	if verdict == "" || verdict == metav1.ConditionTrue && online == metav1.ConditionFalse {
		return metav1.ConditionUnknown
	}
	return verdict
}

// created is when the hub heard of the cluster first.
func (p *presence) created() metav1.Time {
	var first metav1.Time
	for _, a := range p.agents {
		if first.IsZero() || a.CreationTimestamp.Before(&first) {
			first = a.CreationTimestamp
		}
	}
	return first
}

// duplicate says whether two agents answer for the cluster.
func (p *presence) duplicate() bool {
	if p == nil {
		return false
	}
	for _, a := range p.agents {
		if meta.IsStatusConditionTrue(a.Status.Conditions, api.ConditionDuplicate) {
			return true
		}
	}
	return false
}

// unclaimed counts the works that the cluster holds and the hub does not know.
func (p *presence) unclaimed() int {
	if p == nil {
		return 0
	}
	n := 0
	for _, a := range p.agents {
		n += max(int(a.Status.UnclaimedCount), len(a.Status.Unclaimed))
	}
	return n
}

// cell renders the presence for a column: yes, offline with the time, or unknown.
func (p *presence) cell(now time.Time) string {
	switch state, since := p.online(); state {
	case metav1.ConditionTrue:
		return "yes"
	case metav1.ConditionFalse:
		return "offline " + duration.HumanDuration(now.Sub(since.Time))
	default:
		return "unknown"
	}
}

// sentence is cell with all that is known.
func (p *presence) sentence(now time.Time) string {
	state, since := p.online()
	text := p.cell(now)
	switch {
	case p == nil:
		return text + ": the hub has no record of its agent"
	case state == metav1.ConditionTrue:
		text = "yes, for " + duration.HumanDuration(now.Sub(since.Time))
	case state == metav1.ConditionUnknown:
		text += ": its agent does not tell"
	}
	if p.duplicate() {
		text += "; two agents answer for it, stop one of them"
	}
	return text
}

// offline says in a clause that the cluster is offline; it is empty if it is not,
// or if nobody knows.
func (p *presence) offline(now time.Time) string {
	state, since := p.online()
	if state != metav1.ConditionFalse {
		return ""
	}
	return "the cluster has been offline for " + duration.HumanDuration(now.Sub(since.Time))
}

// listed counts the unclaimed works that the hub names.
func (p *presence) listed() int {
	n := 0
	if p != nil {
		for _, a := range p.agents {
			n += len(a.Status.Unclaimed)
		}
	}
	return n
}
