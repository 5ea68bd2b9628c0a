package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/printers"
)

// eventLimit bounds the events that are read for a description.
const eventLimit = 500

// A page is a description under way: sections of rows whose cells line up.
type page struct {
	tabs interface {
		io.Writer
		Flush() error
	}
	now time.Time
}

func newPage(out io.Writer, now time.Time) *page {
	return &page{tabs: printers.GetNewTabWriter(out), now: now}
}

func (p *page) row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(p.tabs, "\t")
		}
		fmt.Fprint(p.tabs, printers.EscapeTerminal(oneLine(fmt.Sprint(c))))
	}
	fmt.Fprintln(p.tabs)
}

func (p *page) section(title string, columns ...any) {
	// Columns line up within a section, not across them.
	_ = p.tabs.Flush()
	fmt.Fprintf(p.tabs, "\n%s:\n", title)
	if len(columns) > 0 {
		p.row(columns...)
	}
}

// advicef ends a section with what can be done.
func (p *page) advicef(format string, args ...any) {
	_ = p.tabs.Flush()
	fmt.Fprintf(p.tabs, "  "+format+"\n", args...)
}

func (p *page) conditions(conditions []metav1.Condition) {
	p.section("Conditions")
	if len(conditions) == 0 {
		p.row("<none>")
		return
	}
	p.row("TYPE", "STATUS", "GENERATION", "AGE", "REASON", "MESSAGE")
	for _, c := range conditions {
		p.row(c.Type, c.Status, c.ObservedGeneration, age(c.LastTransitionTime, p.now), c.Reason, c.Message)
	}
}

func (p *page) events(events []corev1.Event) {
	p.section("Events")
	if len(events) == 0 {
		p.row("<none>")
		return
	}
	p.row("TYPE", "REASON", "AGE", "FROM", "MESSAGE")
	for _, e := range events {
		when := e.LastTimestamp
		if when.IsZero() {
			when = metav1.Time{Time: e.EventTime.Time}
		}
		p.row(e.Type, e.Reason, age(when, p.now), cmp.Or(e.Source.Component, e.ReportingController), e.Message)
	}
}

// eventsOf reads the events about the objects of a kind in a cluster's
// namespace, or about one of a name. They are an extra that this user may not be
// allowed to read: without them, it says so and returns none.
func (h *hub) eventsOf(ctx context.Context, cluster, kind, name string) []corev1.Event {
	about := []fields.Selector{fields.OneTermEqualSelector("involvedObject.kind", kind)}
	if name != "" {
		about = append(about, fields.OneTermEqualSelector("involvedObject.name", name))
	}
	list, err := h.client.Resource(eventResource).Namespace(cluster).List(ctx, metav1.ListOptions{
		Limit:         eventLimit,
		FieldSelector: fields.AndSelectors(about...).String(),
	})
	if err != nil {
		fmt.Fprintf(h.ErrOut, "Warning: %v\n", h.explain(err, "list events of cluster %q", cluster))
		return nil
	}
	events, err := typedEvents(list.Items)
	if err != nil {
		fmt.Fprintf(h.ErrOut, "Warning: cannot read events of cluster %q: %v\n", cluster, err)
	}
	return events
}

func typedEvents(items []unstructured.Unstructured) ([]corev1.Event, error) {
	events := make([]corev1.Event, 0, len(items))
	for _, u := range items {
		var e corev1.Event
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &e); err != nil {
			return events, err
		}
		events = append(events, e)
	}
	return events, nil
}
