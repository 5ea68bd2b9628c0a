package cli

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api"
)

func condition(kind string, status metav1.ConditionStatus, reason, message string, generation int64) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: generation}
}

func TestWorkRow(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	deleted := metav1.NewTime(now.Add(-time.Minute))
	offline := presenceOf(agentWith(condition(api.ConditionOnline, metav1.ConditionFalse, api.ReasonSilent, "", 0)))
	offline.agents[0].Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(-3 * time.Minute))
	ok := func(g int64) []metav1.Condition {
		return []metav1.Condition{
			condition(workv1.WorkApplied, metav1.ConditionTrue, api.ReasonWorkApplied, "", g),
			condition(workv1.WorkAvailable, metav1.ConditionTrue, api.ReasonResourcesAvailable, "", g),
		}
	}
	for name, tc := range map[string]struct {
		reason  string
		work    workv1.ManifestWork
		cluster *presence
		applied string
		avail   string
		gen     string
		message string
	}{
		"new": {
			reason:  "no report yet is not a failure",
			applied: "Pending", avail: "Pending", gen: "0/3",
			message: "the cluster has not reported on it yet",
		},
		"done": {
			reason:  "both conditions are about the wanted generation",
			work:    workv1.ManifestWork{Status: workv1.ManifestWorkStatus{Conditions: ok(3)}},
			applied: "True", avail: "True", gen: "3/3",
		},
		"done and in progress": {
			reason: "what is applied and there may still be on its way, which is no failure",
			work: workv1.ManifestWork{Status: workv1.ManifestWorkStatus{Conditions: append(ok(3),
				condition(workv1.WorkProgressing, metav1.ConditionTrue, "Applying", "1 of 2 resources are not there yet", 3),
				condition(workv1.WorkDegraded, metav1.ConditionFalse, "NoResourceFailed", "", 3))}},
			applied: "True", avail: "True", gen: "3/3",
			message: "Progressing: 1 of 2 resources are not there yet",
		},
		"done and degraded": {
			reason: "a failure matters more than progress, unless it is of an earlier generation",
			work: workv1.ManifestWork{Status: workv1.ManifestWorkStatus{Conditions: append(ok(3),
				condition(workv1.WorkProgressing, metav1.ConditionTrue, "Failed", "earlier", 2),
				condition(workv1.WorkDegraded, metav1.ConditionTrue, "ResourcesFailed", "1 of 2 resources have failed", 3))}},
			applied: "True", avail: "True", gen: "3/3",
			message: "Degraded: 1 of 2 resources have failed",
		},
		"stale": {
			reason:  "a good report about an earlier generation says nothing of this one",
			work:    workv1.ManifestWork{Status: workv1.ManifestWorkStatus{Conditions: ok(2)}},
			applied: "Pending", avail: "Pending", gen: "2/3",
			message: "the cluster reported on generation 2 only",
		},
		"available lags": {
			reason: "Applied is current and Available still speaks of the generation before",
			work: workv1.ManifestWork{Status: workv1.ManifestWorkStatus{Conditions: []metav1.Condition{
				ok(3)[0], ok(2)[1],
			}}},
			applied: "True", avail: "Pending", gen: "3/3",
		},
		"available without a generation": {
			reason: "OCM's agents need not say which generation Available is about",
			work: workv1.ManifestWork{Status: workv1.ManifestWorkStatus{Conditions: []metav1.Condition{
				ok(3)[0], ok(0)[1],
			}}},
			applied: "True", avail: "True", gen: "3/3",
		},
		"failed manifest": {
			reason: "the first manifest that failed is worth more than the sum",
			work: workv1.ManifestWork{Status: workv1.ManifestWorkStatus{
				Conditions: []metav1.Condition{
					condition(workv1.WorkApplied, metav1.ConditionFalse, api.ReasonWorkFailed, "1 of 2 failed", 3),
					condition(workv1.WorkAvailable, metav1.ConditionUnknown, api.ReasonResourcesUnknown, "", 3),
				},
				ResourceStatus: workv1.ManifestResourceStatus{Manifests: []workv1.ManifestCondition{
					{ResourceMeta: workv1.ManifestResourceMeta{Kind: "Namespace", Name: "a"}, Conditions: ok(3)[:1]},
					{ResourceMeta: workv1.ManifestResourceMeta{Kind: "ConfigMap", Name: "b", Namespace: "a"}, Conditions: []metav1.Condition{
						condition(workv1.ManifestApplied, metav1.ConditionFalse, api.ReasonManifestFailed, "denied\nby policy", 3),
					}},
				}},
			}},
			applied: "False: " + api.ReasonWorkFailed, avail: "Unknown: " + api.ReasonResourcesUnknown, gen: "3/3",
			message: "ConfigMap a/b: AppliedManifestFailed: denied by policy",
		},
		"failed without manifests": {
			reason: "an agent that fails early reports conditions only",
			work: workv1.ManifestWork{Status: workv1.ManifestWorkStatus{Conditions: []metav1.Condition{
				condition(workv1.WorkApplied, metav1.ConditionFalse, "Denied", "no executor", 3),
			}}},
			applied: "False: Denied", avail: "Pending", gen: "3/3",
			message: "Denied: no executor",
		},
		"too large": {
			reason: "the hub says that the work never left, which explains the silence",
			work: workv1.ManifestWork{Status: workv1.ManifestWorkStatus{Conditions: append(ok(2),
				condition(api.ConditionDispatched, metav1.ConditionFalse, api.ReasonTooLarge, "2 MiB", 3))}},
			applied: "Not sent: TooLarge", avail: "Pending", gen: "2/3",
			message: "the hub cannot send it: TooLarge: 2 MiB",
		},
		"was too large": {
			reason: "what the hub said of an earlier generation is over",
			work: workv1.ManifestWork{Status: workv1.ManifestWorkStatus{Conditions: append(ok(3),
				condition(api.ConditionDispatched, metav1.ConditionFalse, api.ReasonTooLarge, "2 MiB", 2))}},
			applied: "True", avail: "True", gen: "3/3",
		},
		"deleting": {
			reason: "the agent names what is left",
			work: workv1.ManifestWork{
				ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &deleted, Finalizers: []string{api.WorkFinalizer}},
				Status: workv1.ManifestWorkStatus{Conditions: append(ok(3),
					condition(api.ConditionDeleting, metav1.ConditionTrue, api.ReasonDeleting, "waiting for Namespace a", 3))},
			},
			applied: "Deleting: waiting for Namespace a", avail: "True", gen: "3/3", message: "waiting for Namespace a",
		},
		"deleting in silence": {
			reason:  "nothing is known but that the cluster has to confirm",
			work:    workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &deleted, Finalizers: []string{api.WorkFinalizer}}},
			applied: "Deleting: waiting for the cluster", avail: "Pending", gen: "0/3", message: "waiting for the cluster",
		},
		"deleting, another's finalizer": {
			reason:  "it is not the cluster that keeps it",
			work:    workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &deleted, Finalizers: []string{"example.io/hold"}}},
			applied: "Deleting: waiting for finalizer example.io/hold", avail: "Pending", gen: "0/3", message: "waiting for finalizer example.io/hold",
		},
		"pending, offline": {
			reason:  "that nothing is heard of it is the reason for the silence",
			cluster: offline,
			applied: "Pending: offline", avail: "Pending", gen: "0/3",
			message: "the cluster has been offline for 3m and gets this when it is back",
		},
		"done, offline": {
			reason:  "what it said last stands, with its age",
			work:    workv1.ManifestWork{Status: workv1.ManifestWorkStatus{Conditions: ok(3)}},
			cluster: offline,
			applied: "True", avail: "True", gen: "3/3",
			message: "the cluster has been offline for 3m; this is what it said before",
		},
		"failed, offline": {
			reason: "the failure is not the cluster's being offline",
			work: workv1.ManifestWork{Status: workv1.ManifestWorkStatus{Conditions: []metav1.Condition{
				condition(workv1.WorkApplied, metav1.ConditionFalse, "Denied", "no executor", 3),
			}}},
			cluster: offline,
			applied: "False: Denied", avail: "Pending", gen: "3/3",
			message: "Denied: no executor; the cluster has been offline for 3m",
		},
		"deleting, offline": {
			reason:  "the cluster cannot confirm what it has not heard of",
			work:    workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &deleted, Finalizers: []string{api.WorkFinalizer}}},
			cluster: offline,
			applied: "Deleting: offline", avail: "Pending", gen: "0/3",
			message: "the cluster has been offline for 3m and deletes this when it is back",
		},
		"deletion withheld": {
			reason: "it waits for a person, who needs the command",
			work: workv1.ManifestWork{
				ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &deleted, Finalizers: []string{api.WorkFinalizer}},
				Status: workv1.ManifestWorkStatus{Conditions: append(ok(2),
					condition(api.ConditionDispatched, metav1.ConditionFalse, api.ReasonDeletionWithheld, "many", 3))},
			},
			applied: "Deleting: withheld", avail: "Pending", gen: "2/3",
			message: "the deletion is not sent before it is confirmed: fleetcast confirm works web --cluster paris",
		},
		"deletion withheld, offline": {
			reason:  "it is not deleted when the cluster is back, either",
			cluster: offline,
			work: workv1.ManifestWork{
				ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &deleted, Finalizers: []string{api.WorkFinalizer}},
				Status: workv1.ManifestWorkStatus{Conditions: []metav1.Condition{
					condition(api.ConditionDispatched, metav1.ConditionFalse, api.ReasonDeletionWithheld, "many", 3),
				}},
			},
			applied: "Deleting: withheld", avail: "Pending", gen: "0/3",
			message: "the deletion is not sent before it is confirmed: fleetcast confirm works web --cluster paris; the cluster has been offline for 3m",
		},
		"sent to no cluster": {
			reason: "the cluster deleted what this hub, restored from a backup, has again",
			work: workv1.ManifestWork{Status: workv1.ManifestWorkStatus{Conditions: append(ok(2),
				condition(api.ConditionDispatched, metav1.ConditionFalse, "ClusterDeleted", "It was deleted.", 3))}},
			applied: "Not sent: ClusterDeleted", avail: "Pending", gen: "2/3",
			message: "the hub cannot send it: ClusterDeleted: It was deleted.",
		},
		"deletion confirmed": {
			reason: "the hub takes its condition back a moment later",
			work: workv1.ManifestWork{
				ObjectMeta: metav1.ObjectMeta{
					DeletionTimestamp: &deleted, Finalizers: []string{api.WorkFinalizer},
					Annotations: map[string]string{api.ConfirmDeletionAnnotation: "true"},
				},
				Status: workv1.ManifestWorkStatus{Conditions: append(ok(2),
					condition(api.ConditionDispatched, metav1.ConditionFalse, api.ReasonDeletionWithheld, "many", 3))},
			},
			applied: "Deleting: waiting for the cluster", avail: "Pending", gen: "2/3", message: "waiting for the cluster",
		},
		"deleted": {
			reason: "the cluster confirmed, the hub is about to let go",
			work: workv1.ManifestWork{
				ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &deleted, Finalizers: []string{api.WorkFinalizer}},
				Status: workv1.ManifestWorkStatus{Conditions: []metav1.Condition{
					condition(api.ConditionDeleted, metav1.ConditionTrue, api.ReasonDeleted, "", 3),
				}},
			},
			applied: "Deleting: cluster confirmed", avail: "Pending", gen: "0/3", message: "cluster confirmed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := tc.work.DeepCopy()
			w.Name, w.Namespace, w.Generation = "web", "paris", 3
			w.CreationTimestamp = metav1.NewTime(now.Add(-90 * time.Second))
			cells := workRow(w, tc.cluster, now).Cells
			want := []any{"paris", "web", tc.gen, tc.applied, tc.avail, "90s"}
			if diff := cmp.Diff(want, cells[:6]); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			if got := cells[7]; got != tc.message {
				t.Errorf("%s: message %q, want %q", tc.reason, got, tc.message)
			}
		})
	}
}

// TestDoneOnlyWithoutObstacle: whoever waits must see either success or a reason
// to go on waiting.
func TestDoneOnlyWithoutObstacle(t *testing.T) {
	for _, applied := range []metav1.ConditionStatus{metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionUnknown} {
		for _, available := range []metav1.ConditionStatus{metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionUnknown} {
			w := &workv1.ManifestWork{Status: workv1.ManifestWorkStatus{Conditions: []metav1.Condition{
				condition(workv1.WorkApplied, applied, "A", "", 0),
				condition(workv1.WorkAvailable, available, "B", "", 0),
			}}}
			v := judge(w, nil, time.Time{})
			if want := applied == metav1.ConditionTrue && available == metav1.ConditionTrue; v.Done != want {
				t.Errorf("applied %s, available %s: done %v, want %v", applied, available, v.Done, want)
			}
			if v.Done == (v.Obstacle != "") {
				t.Errorf("applied %s, available %s: done %v with obstacle %q", applied, available, v.Done, v.Obstacle)
			}
		}
	}
}
