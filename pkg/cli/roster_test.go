package cli

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
)

func agentWith(conditions ...metav1.Condition) *v1alpha1.Agent {
	return &v1alpha1.Agent{Status: v1alpha1.AgentStatus{Conditions: conditions}}
}

func presenceOf(agents ...*v1alpha1.Agent) *presence { return &presence{agents: agents} }

// TestPresence has agents of several source IDs, as after a hub got another.
func TestPresence(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	state := func(kind string, status metav1.ConditionStatus, since time.Duration) metav1.Condition {
		return metav1.Condition{Type: kind, Status: status, LastTransitionTime: metav1.NewTime(now.Add(-since))}
	}
	online := func(status metav1.ConditionStatus, since time.Duration) metav1.Condition {
		return state(api.ConditionOnline, status, since)
	}
	inSync := func(status metav1.ConditionStatus) metav1.Condition { return state(api.ConditionInSync, status, 0) }
	for _, tc := range []struct {
		reason             string
		presence           *presence
		cell, inSync, said string
	}{
		{"a hub without records", nil, "unknown", "Unknown", "unknown: the hub has no record of its agent"},
		{"nothing written yet", presenceOf(agentWith()), "unknown", "Unknown", "unknown: its agent does not tell"},
		{
			"OCM's agents do not tell", presenceOf(agentWith(online(metav1.ConditionUnknown, 0))),
			"unknown", "Unknown", "unknown: its agent does not tell",
		},
		{
			"heard", presenceOf(agentWith(online(metav1.ConditionTrue, time.Hour), inSync(metav1.ConditionTrue))),
			"yes", "True", "yes, for 60m",
		},
		{
			"not heard any more: it may lack what changed since",
			presenceOf(agentWith(online(metav1.ConditionFalse, 3*time.Minute), inSync(metav1.ConditionTrue))),
			"offline 3m", "Unknown", "offline 3m",
		},
		{
			"it lacked something when it was heard last",
			presenceOf(agentWith(online(metav1.ConditionFalse, 3*time.Minute), inSync(metav1.ConditionFalse))),
			"offline 3m", "False", "offline 3m",
		},
		{
			"one source is heard, one is of the past",
			presenceOf(
				agentWith(online(metav1.ConditionFalse, 3*time.Minute), inSync(metav1.ConditionFalse)),
				agentWith(online(metav1.ConditionTrue, time.Minute), inSync(metav1.ConditionTrue)),
			),
			"yes", "True", "yes, for 60s",
		},
		{
			"both are of the past: the later counts",
			presenceOf(agentWith(online(metav1.ConditionFalse, time.Hour)), agentWith(online(metav1.ConditionFalse, 2*time.Hour))),
			"offline 60m", "Unknown", "offline 60m",
		},
		{
			"both are heard, one differs",
			presenceOf(
				agentWith(online(metav1.ConditionTrue, 0), inSync(metav1.ConditionTrue)),
				agentWith(online(metav1.ConditionTrue, 0), inSync(metav1.ConditionFalse)),
			),
			"yes", "False", "yes, for 0s",
		},
		{
			"a copy of the agent runs", presenceOf(agentWith(online(metav1.ConditionTrue, 0), state(api.ConditionDuplicate, metav1.ConditionTrue, 0))),
			"yes", "Unknown", "yes, for 0s; two agents answer for it, stop one of them",
		},
	} {
		got := []string{tc.presence.cell(now), string(tc.presence.inSync()), tc.presence.sentence(now)}
		if diff := cmp.Diff([]string{tc.cell, tc.inSync, tc.said}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
		}
	}
}

// TestChoose never guesses which work is meant.
func TestChoose(t *testing.T) {
	work := func(id, name string) unclaimedWork {
		return unclaimedWork{UnclaimedWork: v1alpha1.UnclaimedWork{ID: id, Name: name}, Cluster: "paris"}
	}
	works := []unclaimedWork{work("1", "web"), work("2", "web"), work("3", "db"), work("4", "3")}
	for _, tc := range []struct {
		reason    string
		arguments []string
		want      []string
		code      int
	}{
		{"by name", []string{"db"}, []string{"3"}, 0},
		{"by ID", []string{"2", "1"}, []string{"2", "1"}, 0},
		{"twice is once", []string{"1", "1"}, []string{"1"}, 0},
		{"two of one name", []string{"web"}, nil, exitUsage},
		{"one's ID is another's name", []string{"3"}, nil, exitUsage},
		{"none", []string{"db", "none"}, nil, exitNotFound},
	} {
		chosen, err := choose(works, len(works), "paris", tc.arguments)
		var got []string
		for _, w := range chosen {
			got = append(got, w.ID)
		}
		code := 0
		if c, ok := err.(*codedError); ok { //nolint:errorlint // It is not wrapped.
			code = c.code
		}
		if diff := cmp.Diff(tc.want, got); diff != "" || code != tc.code {
			t.Errorf("%s: %v ends with code %d (%v), want %d (-want +got):\n%s", tc.reason, tc.arguments, code, err, tc.code, diff)
		}
	}
}

// TestStageOf follows a deletion from the request to the cluster's word. What the
// record does not say is not known.
func TestStageOf(t *testing.T) {
	now := metav1.Now()
	status := func(change func(*v1alpha1.AgentStatus)) v1alpha1.Agent {
		a := v1alpha1.Agent{Status: v1alpha1.AgentStatus{
			Conditions: []metav1.Condition{{Type: api.ConditionInSync, Status: metav1.ConditionTrue}},
		}}
		change(&a.Status)
		return a
	}
	list := func(works ...v1alpha1.UnclaimedWork) func(*v1alpha1.AgentStatus) {
		return func(s *v1alpha1.AgentStatus) { s.Unclaimed, s.UnclaimedCount = works, int32(len(works)) }
	}
	held := list(v1alpha1.UnclaimedWork{ID: "1"})
	asked := v1alpha1.AgentSpec{Delete: []string{"1"}}
	buried := func(s *v1alpha1.AgentStatus) { s.Tombstones = []v1alpha1.Tombstone{{ID: "1"}} }
	for _, tc := range []struct {
		reason string
		agent  v1alpha1.Agent
		want   string
	}{
		{"asked", v1alpha1.Agent{Spec: asked, Status: status(held).Status}, requested},
		{"granted, and the spec not cleared", v1alpha1.Agent{Spec: asked, Status: status(buried).Status}, deleting},
		{"sent", status(buried), deleting},
		{"confirmed", status(func(s *v1alpha1.AgentStatus) {
			s.Tombstones = []v1alpha1.Tombstone{{ID: "1", ConfirmedAt: &now}}
		}), forgotten},
		{"confirmed before a digest with others was", status(func(s *v1alpha1.AgentStatus) {
			s.Tombstones, s.Conditions = []v1alpha1.Tombstone{{ID: "1", ConfirmedAt: &now}, {ID: "2"}}, nil
		}), forgotten},
		{"taken off the spec without a deletion", status(held), refused},
		{"refused, and the cluster deletes it all the same", status(list(v1alpha1.UnclaimedWork{ID: "1", Deleting: true})), deleting},
		{"in no list, all of which are complete, and the last digest was right", status(list(v1alpha1.UnclaimedWork{ID: "2"})), unlisted},
		{"the list ends before it", status(func(s *v1alpha1.AgentStatus) { s.UnclaimedCount = 1500 }), unknown},
		{"a deletion that is not confirmed may be left out", status(func(s *v1alpha1.AgentStatus) {
			s.Tombstones = []v1alpha1.Tombstone{{ID: "2"}}
		}), unknown},
		{"no digest since", status(func(s *v1alpha1.AgentStatus) { s.Conditions[0].Status = metav1.ConditionFalse }), unknown},
		{"an agent of OCM took the place of the one that told", status(func(s *v1alpha1.AgentStatus) {
			s.Conditions[0].Status = metav1.ConditionUnknown
		}), unknown},
		{"a record with nothing in it", v1alpha1.Agent{}, unknown},
	} {
		if got := stageOf("1", &tc.agent); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.reason, got, tc.want)
		}
	}
}
