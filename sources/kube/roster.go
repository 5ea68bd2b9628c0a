package kube

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
	"github.com/fleetcast-io/fleetcast/sources"
)

// Agents implements sources.Roster.
func (s *Source) Agents(context.Context) ([]sources.AgentState, error) {
	if !s.Loaded() {
		return nil, s.errFilling()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []sources.AgentState
	for cluster, c := range s.clusters {
		switch {
		case c.state != nil:
			out = append(out, *c.state)
		case c.agent != nil && c.agent.Status.Agent != "":
			out = append(out, stateOf(cluster, c.agent.Status))
		}
	}
	slices.SortFunc(out, func(a, b sources.AgentState) int { return cmp.Compare(a.Cluster, b.Cluster) })
	return out, nil
}

// SaveAgent implements sources.Roster: it writes the status of the cluster's
// Agent, unless nothing of it changed. Where a cluster has no namespace yet, it is
// looked for now and then, unless the agent is offline and there is nothing else
// of the cluster: then it is forgotten.
func (s *Source) SaveAgent(ctx context.Context, state sources.AgentState) error {
	state.Capabilities = slices.Clone(state.Capabilities)
	state.Unclaimed = slices.SortedFunc(slices.Values(state.Unclaimed), func(a, b sources.Unclaimed) int { return cmp.Compare(a.ID, b.ID) })
	s.mu.Lock()
	s.clusterOf(state.Cluster).state = &state
	s.mu.Unlock()
	return s.saveRecord(ctx, state.Cluster)
}

// stateOf is what a status says.
func stateOf(cluster string, status v1alpha1.AgentStatus) sources.AgentState {
	state := sources.AgentState{
		Cluster:      cluster,
		Agent:        status.Agent,
		Capabilities: slices.Clone(status.Capabilities),
		Online:       meta.IsStatusConditionTrue(status.Conditions, api.ConditionOnline),
		InSync:       meta.IsStatusConditionTrue(status.Conditions, api.ConditionInSync),
		Duplicate:    meta.IsStatusConditionTrue(status.Conditions, api.ConditionDuplicate),
	}
	if c := meta.FindStatusCondition(status.Conditions, api.ConditionOnline); c != nil {
		state.Since = c.LastTransitionTime.Time
	}
	if status.LastSeen != nil {
		state.LastSeen = status.LastSeen.Time
	}
	if status.LastSynced != nil {
		state.SyncedAt = status.LastSynced.Time
	}
	for _, u := range status.Unclaimed {
		state.Unclaimed = append(state.Unclaimed, sources.Unclaimed{ID: u.ID, Name: u.Name, Generation: u.Generation, Deleting: u.Deleting})
	}
	return state
}

// unclaimed finds a work that the cluster holds unclaimed. The lists are sorted.
// The caller holds mu.
func (c *clusterRecord) unclaimed(id string) (v1alpha1.UnclaimedWork, bool) {
	if c.state != nil {
		all := c.state.Unclaimed
		i, ok := slices.BinarySearchFunc(all, id, func(u sources.Unclaimed, id string) int { return cmp.Compare(u.ID, id) })
		if ok {
			return listed(all[i]), true
		}
		return v1alpha1.UnclaimedWork{}, false
	}
	if c.agent != nil {
		all := c.agent.Status.Unclaimed
		if i := slices.IndexFunc(all, func(u v1alpha1.UnclaimedWork) bool { return u.ID == id }); i >= 0 {
			return all[i], true
		}
	}
	return v1alpha1.UnclaimedWork{}, false
}

// listed is an unclaimed work as the Agent lists it.
func listed(u sources.Unclaimed) v1alpha1.UnclaimedWork {
	return v1alpha1.UnclaimedWork{ID: u.ID, Name: cut(u.Name, v1alpha1.MaxName), Generation: max(0, u.Generation), Deleting: u.Deleting}
}

// statusOf is the status as it shall be. The caller holds mu.
func (s *Source) statusOf(c *clusterRecord, now time.Time) v1alpha1.AgentStatus {
	var status v1alpha1.AgentStatus
	if c.agent != nil {
		c.agent.Status.DeepCopyInto(&status)
	}
	status.Tombstones = c.trim(now)
	setUnconfirmed(&status, c.unconfirmed)
	buried := func(id string) bool { _, ok := c.tombstones[id]; return ok }
	if c.state == nil {
		count := status.UnclaimedCount
		status.Unclaimed = slices.DeleteFunc(status.Unclaimed, func(u v1alpha1.UnclaimedWork) bool {
			if buried(u.ID) {
				status.UnclaimedCount = max(0, status.UnclaimedCount-1)
				return true
			}
			return false
		})
		if status.UnclaimedCount != count {
			setUnclaimed(&status, "")
		}
		return status
	}
	state := c.state
	status.Agent = cut(state.Agent, maxAgent)
	status.Capabilities = nil
	for _, capability := range state.Capabilities {
		if len(status.Capabilities) < v1alpha1.MaxCapabilities && len(capability) <= maxCapability {
			status.Capabilities = append(status.Capabilities, capability)
		}
	}
	status.LastSeen, status.LastSynced = timeOf(state.LastSeen), timeOf(state.SyncedAt)
	status.Unclaimed, status.UnclaimedCount = nil, 0
	size := 0
	for _, t := range status.Tombstones {
		size += c.tombstones[t.ID].size
	}
	for _, u := range state.Unclaimed {
		if buried(u.ID) {
			continue
		}
		status.UnclaimedCount++
		if u.ID == "" || len(u.ID) > v1alpha1.MaxID || len(status.Unclaimed) == v1alpha1.MaxUnclaimed {
			continue
		}
		one := listed(u)
		if n := sizeOfUnclaimed(one); size+n <= maxStatusBytes {
			size += n
			status.Unclaimed = append(status.Unclaimed, one)
		}
	}
	setPresence(&status, state)
	unknown := ""
	switch {
	case len(state.Capabilities) == 0:
		unknown = api.ReasonNotTold
	case state.SyncedAt.IsZero() && !state.InSync && len(state.Unclaimed) == 0:
		unknown = api.ReasonNotCompared
	}
	setUnclaimed(&status, unknown)
	setDuplicate(&status, state.Duplicate, unknown)
	return status
}

// Limits of texts in the schema of an Agent, in characters; a text that is not
// longer in bytes fits.
const (
	maxAgent      = 256
	maxCapability = 64
)

// whyUnknown are messages of conditions that are unknown, by their reason.
var whyUnknown = map[string]string{
	api.ReasonNotTold:     "The agent speaks Open Cluster Management's protocol, which does not tell.",
	api.ReasonNotCompared: "The agent was not compared with the hub yet.",
	api.ReasonSilent:      "Nothing is heard of the agent; lastSynced says when it was last known to hold what the hub held.",
}

// setPresence sets the conditions Online and InSync.
func setPresence(status *v1alpha1.AgentStatus, state *sources.AgentState) {
	online := metav1.Condition{
		Type: api.ConditionOnline, Status: metav1.ConditionFalse, Reason: api.ReasonSilent,
		Message: "Nothing is heard of the agent. Its works go on as they are; what changes reaches it when it is back.",
	}
	inSync := metav1.Condition{
		Type: api.ConditionInSync, Status: metav1.ConditionFalse, Reason: api.ReasonDigestsUnequal,
		Message: "The agent was not found to hold what the hub holds.",
	}
	unknown := func(c *metav1.Condition, reason string) {
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, reason, whyUnknown[reason]
	}
	switch {
	case len(state.Capabilities) == 0:
		unknown(&online, api.ReasonNotTold)
		unknown(&inSync, api.ReasonNotTold)
	case !state.Online:
		// The silence of the agent says nothing of what the hub holds by now.
		unknown(&inSync, api.ReasonSilent)
	default:
		online.Status, online.Reason, online.Message = metav1.ConditionTrue, api.ReasonConnected, "The agent is heard."
		if state.InSync {
			inSync.Status, inSync.Reason = metav1.ConditionTrue, api.ReasonDigestsMatch
			inSync.Message = "The agent holds what the hub holds, apart from what is known to differ."
		}
	}
	meta.SetStatusCondition(&status.Conditions, online)
	meta.SetStatusCondition(&status.Conditions, inSync)
	if since := timeOf(state.Since); since != nil {
		meta.FindStatusCondition(status.Conditions, api.ConditionOnline).LastTransitionTime = *since
	}
}

// setUnclaimed sets the condition Unclaimed as the count is, or for a reason for
// which it is unknown.
func setUnclaimed(status *v1alpha1.AgentStatus, unknown string) {
	c := metav1.Condition{
		Type: api.ConditionUnclaimed, Status: metav1.ConditionFalse, Reason: api.ReasonAllWorksClaimed,
		Message: "The cluster holds no works that this hub does not know.",
	}
	switch {
	case status.UnclaimedCount > 0:
		c.Status, c.Reason = metav1.ConditionTrue, api.ReasonWorksUnclaimed
		c.Message = fmt.Sprintf("The cluster holds %d works of this hub that the hub does not know. They stay there. "+
			"If they shall go, name them in spec.delete, or run: fleetcast delete works --unclaimed.", status.UnclaimedCount)
	case unknown != "":
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, unknown, whyUnknown[unknown]
	}
	meta.SetStatusCondition(&status.Conditions, c)
}

func setDuplicate(status *v1alpha1.AgentStatus, duplicate bool, unknown string) {
	c := metav1.Condition{
		Type: api.ConditionDuplicate, Status: metav1.ConditionFalse, Reason: api.ReasonOneAgent,
		Message: "One agent answers for the cluster.",
	}
	switch {
	case duplicate:
		c.Status, c.Reason = metav1.ConditionTrue, api.ReasonTwoAgents
		c.Message = "Two agents answer for the cluster in turns, as when its data was copied. Stop one of them."
	case unknown != "":
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, unknown, whyUnknown[unknown]
	}
	meta.SetStatusCondition(&status.Conditions, c)
}

// setUnconfirmed has the condition Unconfirmed while there are such deletions.
func setUnconfirmed(status *v1alpha1.AgentStatus, deletions int) {
	if deletions == 0 {
		meta.RemoveStatusCondition(&status.Conditions, api.ConditionUnconfirmed)
		return
	}
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: api.ConditionUnconfirmed, Status: metav1.ConditionTrue, Reason: api.ReasonDeletionsUnconfirmed,
		Message: fmt.Sprintf("The cluster did not confirm the deletion of %d works that are no more on the hub. The finalizer %s keeps this "+
			"object, and its namespace, until it does. If it never will, take the finalizer off: then these deletions are forgotten.",
			deletions, api.AgentFinalizer),
	})
}

// cut shortens a text to so many bytes.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}

// timeOf is a time as the API has it, nil if it is zero.
func timeOf(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	out := metav1.NewTime(t.UTC()).Rfc3339Copy()
	return &out
}
