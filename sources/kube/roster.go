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
// Agent, unless nothing of it changed. A cluster without a namespace has none.
func (s *Source) SaveAgent(ctx context.Context, state sources.AgentState) error {
	state.Capabilities = slices.Clone(state.Capabilities)
	state.Unclaimed = slices.Clone(state.Unclaimed)
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

// unclaimed finds a work that the cluster holds unclaimed. The caller holds mu.
func (c *clusterRecord) unclaimed(id string) (v1alpha1.UnclaimedWork, bool) {
	if c.state != nil {
		for _, u := range c.state.Unclaimed {
			if u.ID == id {
				return v1alpha1.UnclaimedWork(u), true
			}
		}
		return v1alpha1.UnclaimedWork{}, false
	}
	if c.agent != nil {
		for _, u := range c.agent.Status.Unclaimed {
			if u.ID == id {
				return u, true
			}
		}
	}
	return v1alpha1.UnclaimedWork{}, false
}

// statusOf is the status as it shall be. The caller holds mu.
func (s *Source) statusOf(c *clusterRecord, now time.Time) v1alpha1.AgentStatus {
	var status v1alpha1.AgentStatus
	if c.agent != nil {
		c.agent.Status.DeepCopyInto(&status)
	}
	status.Tombstones = c.trim(now)
	buried := func(id string) bool { _, ok := c.tombstones[id]; return ok }
	if c.state == nil {
		listed := status.Unclaimed != nil
		status.Unclaimed = slices.DeleteFunc(status.Unclaimed, func(u v1alpha1.UnclaimedWork) bool {
			if buried(u.ID) {
				status.UnclaimedCount--
				return true
			}
			return false
		})
		if listed {
			setUnclaimed(&status)
		}
		return status
	}
	state := c.state
	status.Agent = cut(state.Agent, maxText)
	status.Capabilities = nil
	for _, capability := range state.Capabilities {
		if len(status.Capabilities) < v1alpha1.MaxCapabilities && len(capability) <= maxCapability {
			status.Capabilities = append(status.Capabilities, capability)
		}
	}
	status.LastSeen, status.LastSynced = timeOf(state.LastSeen), timeOf(state.SyncedAt)
	status.Unclaimed, status.UnclaimedCount = nil, 0
	for _, u := range state.Unclaimed {
		if buried(u.ID) || u.ID == "" || len(u.ID) > maxText {
			continue
		}
		status.UnclaimedCount++
		if len(status.Unclaimed) < v1alpha1.MaxUnclaimed {
			u.Name = cut(u.Name, maxText)
			status.Unclaimed = append(status.Unclaimed, v1alpha1.UnclaimedWork(u))
		}
	}
	setPresence(&status, state)
	setUnclaimed(&status)
	duplicate := metav1.Condition{
		Type: api.ConditionDuplicate, Status: metav1.ConditionFalse, Reason: api.ReasonOneAgent,
		Message: "One agent answers for the cluster.",
	}
	if state.Duplicate {
		duplicate.Status, duplicate.Reason = metav1.ConditionTrue, api.ReasonTwoAgents
		duplicate.Message = "Two agents answer for the cluster in turns, as when its data was copied. Stop one of them."
	}
	meta.SetStatusCondition(&status.Conditions, duplicate)
	return status
}

// Limits of texts in the schema of an Agent, in characters; a text that is not
// longer in bytes fits.
const (
	maxText       = 1024
	maxCapability = 64
)

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
	switch {
	case len(state.Capabilities) == 0:
		const unknown = "The agent speaks Open Cluster Management's protocol, which does not tell."
		online.Status, online.Reason, online.Message = metav1.ConditionUnknown, api.ReasonNotTold, unknown
		inSync.Status, inSync.Reason, inSync.Message = metav1.ConditionUnknown, api.ReasonNotTold, unknown
	case state.Online:
		online.Status, online.Reason, online.Message = metav1.ConditionTrue, api.ReasonConnected, "The agent is heard."
	}
	if len(state.Capabilities) > 0 && state.InSync {
		inSync.Status, inSync.Reason = metav1.ConditionTrue, api.ReasonDigestsMatch
		inSync.Message = "The agent holds what the hub holds, apart from what is known to differ."
	}
	meta.SetStatusCondition(&status.Conditions, online)
	meta.SetStatusCondition(&status.Conditions, inSync)
	if since := timeOf(state.Since); since != nil {
		meta.FindStatusCondition(status.Conditions, api.ConditionOnline).LastTransitionTime = *since
	}
}

// setUnclaimed sets the condition Unclaimed as the count is.
func setUnclaimed(status *v1alpha1.AgentStatus) {
	c := metav1.Condition{
		Type: api.ConditionUnclaimed, Status: metav1.ConditionFalse, Reason: api.ReasonAllWorksClaimed,
		Message: "The cluster holds no works that this hub does not know.",
	}
	if status.UnclaimedCount > 0 {
		c.Status, c.Reason = metav1.ConditionTrue, api.ReasonWorksUnclaimed
		c.Message = fmt.Sprintf("The cluster holds %d works of this hub that the hub does not know. They stay there. "+
			"If they shall go, name them in spec.delete, or run: fleetcast delete works --unclaimed.", status.UnclaimedCount)
	}
	meta.SetStatusCondition(&status.Conditions, c)
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
