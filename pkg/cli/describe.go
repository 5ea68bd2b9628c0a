package cli

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/printers"
	workv1 "open-cluster-management.io/api/work/v1"
)

// eventLimit bounds the events that are read for a description.
const eventLimit = 500

func newDescribeWork(h *hub) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "work NAME --cluster CLUSTER",
		Aliases: []string{"works", "manifestwork", "manifestworks"},
		Short:   "Show everything known about a work",
		Long: `Show everything known about a work: its conditions, each of its manifests with
what the cluster says of it, the values fed back, and events.`,
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
				return err
			}
			w, err := typed(u)
			if err != nil {
				return err
			}
			events, err := h.client.Resource(eventResource).Namespace(cluster).List(cmd.Context(), metav1.ListOptions{
				Limit: eventLimit,
				FieldSelector: fields.AndSelectors(
					fields.OneTermEqualSelector("involvedObject.kind", workKind.Kind),
					fields.OneTermEqualSelector("involvedObject.name", w.Name),
				).String(),
			})
			if err != nil {
				// The work is what was asked for; events are an extra that this
				// user may not be allowed to read.
				fmt.Fprintf(h.ErrOut, "Warning: %v\n", h.explain(err, "list events of cluster %q", cluster))
				events = &unstructured.UnstructuredList{}
			}
			return describe(h.Out, w, events.Items, time.Now())
		},
	}
	h.addClusterFlag(cmd, "The cluster that runs the work (required)")
	return cmd
}

// describe writes everything about w. It shows no data of manifests.
func describe(out io.Writer, w *workv1.ManifestWork, events []unstructured.Unstructured, now time.Time) error {
	tabs := printers.GetNewTabWriter(out)
	row := func(cells ...any) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(tabs, "\t")
			}
			fmt.Fprint(tabs, printers.EscapeTerminal(oneLine(fmt.Sprint(c))))
		}
		fmt.Fprintln(tabs)
	}
	section := func(title string, columns ...any) {
		// Columns line up within a section, not across them.
		_ = tabs.Flush()
		fmt.Fprintf(tabs, "\n%s:\n", title)
		if len(columns) > 0 {
			row(columns...)
		}
	}

	v := judge(w)
	row("Name:", w.Name)
	row("Cluster:", w.Namespace)
	row("Generation:", fmt.Sprintf("%d reported, %d wanted", v.Observed, v.Desired))
	row("Applied:", v.Applied)
	row("Available:", v.Available)
	if v.Obstacle != "" {
		row("Obstacle:", v.Obstacle)
	}
	row("Labels:", cmp.Or(pairs(w.Labels), "<none>"))
	row("Created:", age(w.CreationTimestamp, now)+" ago")
	if w.DeletionTimestamp != nil {
		row("Deleted:", age(*w.DeletionTimestamp, now)+" ago")
		row("Finalizers:", strings.Join(w.Finalizers, ", "))
	}
	if e := w.Spec.Executor; e != nil && e.Subject.ServiceAccount != nil {
		row("Executor:", e.Subject.ServiceAccount.Namespace+"/"+e.Subject.ServiceAccount.Name)
	}

	section("Conditions")
	if len(w.Status.Conditions) == 0 {
		row("<none>")
	} else {
		row("TYPE", "STATUS", "GENERATION", "AGE", "REASON", "MESSAGE")
	}
	for _, c := range w.Status.Conditions {
		row(c.Type, c.Status, c.ObservedGeneration, age(c.LastTransitionTime, now), c.Reason, c.Message)
	}

	section("Manifests", "#", "KIND", "NAMESPACE", "NAME", "APPLIED", "AVAILABLE", "MESSAGE")
	for _, m := range manifestRows(w) {
		row(m...)
	}

	if values := feedback(w); len(values) > 0 {
		section("Feedback", "#", "KIND", "NAME", "VALUE")
		for _, value := range values {
			row(value...)
		}
	}

	section("Events")
	if len(events) == 0 {
		row("<none>")
	} else {
		row("TYPE", "REASON", "AGE", "FROM", "MESSAGE")
	}
	for _, u := range events {
		var e corev1.Event
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &e); err != nil {
			return fmt.Errorf("read event %q of cluster %q: %w", u.GetName(), w.Namespace, err)
		}
		when := e.LastTimestamp
		if when.IsZero() {
			when = metav1.Time{Time: e.EventTime.Time}
		}
		row(e.Type, e.Reason, age(when, now), cmp.Or(e.Source.Component, e.ReportingController), e.Message)
	}
	return tabs.Flush()
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
	for _, c := range []*metav1.Condition{applied, available} {
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
