package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api"
)

func newDescribeWork(h *hub) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "work NAME --cluster CLUSTER",
		Aliases: []string{"works", "manifestwork", "manifestworks"},
		Short:   "Show everything known about a work",
		Long: `Show everything known about a work: its conditions, each of its manifests with
what the cluster says of it, the values fed back, and events; whether its
cluster is online, and whether its deletion waits for a confirmation.`,
		Example:           `  fleetcast describe work web --cluster paris`,
		Args:              arguments(1, 1, "one work name"),
		ValidArgsFunction: h.completeWorks,
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, err := h.oneCluster(cmd)
			if err != nil {
				return err
			}
			if err := h.connect(); err != nil {
				return err
			}
			u, err := h.work(cmd.Context(), cluster, args[0])
			if err != nil {
				return h.mentionUnclaimed(cmd.Context(), err, cluster, args[0])
			}
			w, err := typed(u)
			if err != nil {
				return err
			}
			d := workDescription{
				work:     w,
				presence: h.warnedAgents(cmd.Context(), cluster)[cluster],
				events:   h.eventsOf(cmd.Context(), cluster, workKind.Kind, w.Name),
			}
			return d.write(newPage(h.Out, time.Now()))
		},
	}
	h.addClusterFlag(cmd, "The cluster that runs the work (required)")
	return cmd
}

// A workDescription is everything known about one work. It shows no data of
// manifests.
type workDescription struct {
	work     *workv1.ManifestWork
	presence *presence
	events   []corev1.Event
}

func (d workDescription) write(p *page) error {
	w := d.work
	v := judge(w, d.presence, p.now)
	p.row("Name:", w.Name)
	p.row("Cluster:", w.Namespace)
	p.row("Online:", d.presence.cell(p.now))
	p.row("Generation:", fmt.Sprintf("%d reported, %d wanted", v.Observed, v.Desired))
	p.row("Applied:", v.Applied)
	p.row("Available:", v.Available)
	if v.Obstacle != "" {
		p.row("Obstacle:", v.Obstacle)
	}
	p.row("Labels:", cmp.Or(pairs(w.Labels), "<none>"))
	p.row("Created:", age(w.CreationTimestamp, p.now)+" ago")
	if w.DeletionTimestamp != nil {
		p.row("Deleted:", age(*w.DeletionTimestamp, p.now)+" ago")
		p.row("Finalizers:", strings.Join(w.Finalizers, ", "))
	}
	if e := w.Spec.Executor; e != nil && e.Subject.ServiceAccount != nil {
		p.row("Executor:", e.Subject.ServiceAccount.Namespace+"/"+e.Subject.ServiceAccount.Name)
	}

	p.conditions(w.Status.Conditions)
	p.section("Manifests", "#", "KIND", "NAMESPACE", "NAME", "APPLIED", "AVAILABLE", "MESSAGE")
	for _, m := range manifestRows(w) {
		p.row(m...)
	}
	if values := feedback(w); len(values) > 0 {
		p.section("Feedback", "#", "KIND", "NAME", "VALUE")
		for _, value := range values {
			p.row(value...)
		}
	}
	d.namesakes(p)
	p.events(d.events)
	return p.tabs.Flush()
}

// namesakes tells of works of the same name that the cluster holds unclaimed,
// which have other IDs: those that there were before the hub lost its data.
func (d workDescription) namesakes(p *page) {
	works := roster{d.work.Namespace: d.presence}.listUnclaimed()
	works = slices.DeleteFunc(works, func(w unclaimedWork) bool { return w.Name != d.work.Name })
	if len(works) > 0 {
		p.unclaimed("Unclaimed works of this name", d.work.Namespace, works)
	}
}

// manifestRows renders what the work asks for, in its order, with what the
// cluster says of it. What the cluster reports beyond that, from an earlier
// generation, comes last.
func manifestRows(w *workv1.ManifestWork) [][]any {
	reported := map[int]workv1.ManifestCondition{}
	for _, m := range w.Status.ResourceStatus.Manifests {
		reported[int(m.ResourceMeta.Ordinal)] = m
	}
	var rows [][]any
	for i, m := range w.Spec.Workload.Manifests {
		kind, namespace, name := identify(m)
		r, ok := reported[i]
		// Ordinals of an earlier generation may mean other manifests.
		if !ok || (r.ResourceMeta.Name != "" && (r.ResourceMeta.Name != name || r.ResourceMeta.Kind != kind)) {
			rows = append(rows, []any{i, kind, namespace, name, pending, pending, ""})
			continue
		}
		rows = append(rows, manifestRow(i, kind, namespace, name, r.Conditions))
		delete(reported, i)
	}
	for _, i := range slices.Sorted(maps.Keys(reported)) {
		m := reported[i].ResourceMeta
		rows = append(rows, manifestRow(i, m.Kind, m.Namespace, m.Name, reported[i].Conditions))
	}
	return rows
}

func manifestRow(i int, kind, namespace, name string, conditions []metav1.Condition) []any {
	applied := meta.FindStatusCondition(conditions, workv1.ManifestApplied)
	available := meta.FindStatusCondition(conditions, workv1.ManifestAvailable)
	a, b := pending, pending
	if applied != nil {
		a = cell(applied)
	}
	if available != nil {
		b = cell(available)
	}
	message := ""
	for _, c := range []*metav1.Condition{applied, available, meta.FindStatusCondition(conditions, api.ConditionReady)} {
		if c != nil && c.Status != metav1.ConditionTrue && message == "" {
			message = c.Message
		}
	}
	return []any{i, kind, namespace, name, a, b, message}
}

// identify reads only what names a manifest.
func identify(m workv1.Manifest) (kind, namespace, name string) {
	var u unstructured.Unstructured
	if err := u.UnmarshalJSON(m.Raw); err != nil {
		return "<unreadable>", "", ""
	}
	return u.GetKind(), u.GetNamespace(), u.GetName()
}

// feedback renders the values that the cluster fed back, except those from
// Secrets.
func feedback(w *workv1.ManifestWork) [][]any {
	var rows [][]any
	for _, m := range w.Status.ResourceStatus.Manifests {
		for _, value := range m.StatusFeedbacks.Values {
			shown := fieldValue(value.Value)
			if m.ResourceMeta.Kind == "Secret" {
				shown = masked
			}
			rows = append(rows, []any{m.ResourceMeta.Ordinal, m.ResourceMeta.Kind, m.ResourceMeta.Name, value.Name + "=" + shown})
		}
	}
	return rows
}

func fieldValue(v workv1.FieldValue) string {
	switch {
	case v.Integer != nil:
		return fmt.Sprint(*v.Integer)
	case v.Boolean != nil:
		return fmt.Sprint(*v.Boolean)
	case v.String != nil:
		return *v.String
	case v.JsonRaw != nil:
		return *v.JsonRaw
	default:
		return ""
	}
}

func pairs(labels map[string]string) string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		list = append(list, k+"="+labels[k])
	}
	return strings.Join(list, ", ")
}
