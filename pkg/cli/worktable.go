package cli

import (
	"fmt"
	"io"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/cli-runtime/pkg/printers"
	workv1 "open-cluster-management.io/api/work/v1"
)

var workColumns = []metav1.TableColumnDefinition{
	{Name: "Cluster", Type: "string"},
	{Name: "Name", Type: "string"},
	{Name: "Generation", Type: "string"},
	{Name: "Applied", Type: "string"},
	{Name: "Available", Type: "string"},
	{Name: "Age", Type: "string"},
	{Name: "Ready", Type: "string", Priority: 1},
	{Name: "Message", Type: "string", Priority: 1},
}

// workRow renders a work for workColumns.
func workRow(w *workv1.ManifestWork, p *presence, now time.Time) metav1.TableRow {
	v := judge(w, p, now)
	return metav1.TableRow{Cells: []any{
		w.Namespace,
		w.Name,
		fmt.Sprintf("%d/%d", v.Observed, v.Desired),
		v.Applied,
		v.Available,
		age(w.CreationTimestamp, now),
		fmt.Sprintf("%d/%d", v.Ready, v.Manifests),
		v.message(),
	}}
}

func age(created metav1.Time, now time.Time) string {
	if created.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(created.Time))
}

// A workPrinter prints works in the format of an output.
type workPrinter struct {
	out     *output
	streams genericiooptions.IOStreams
	printer printers.ResourcePrinter
	// roster, if set, is asked for what tables say of the clusters.
	roster func() roster
	// tabs remembers column widths, so that the rows of a watch line up.
	tabs interface {
		io.Writer
		Flush() error
	}
}

func newWorkPrinter(out *output, streams genericiooptions.IOStreams) (*workPrinter, error) {
	p := &workPrinter{out: out, streams: streams}
	if out.table() {
		p.printer, p.tabs = out.tables(), printers.GetNewTabWriter(streams.Out)
		return p, nil
	}
	var err error
	p.printer, err = out.printer()
	return p, err
}

// one prints a work that was asked for by name and cluster.
func (p *workPrinter) one(w *unstructured.Unstructured) error {
	if p.out.table() {
		return p.rows([]*unstructured.Unstructured{w})
	}
	p.out.mask(p.streams.ErrOut, w)
	return p.print(w)
}

// all prints works as one table or one List.
func (p *workPrinter) all(works []*unstructured.Unstructured) error {
	if p.out.table() {
		return p.rows(works)
	}
	p.out.mask(p.streams.ErrOut, works...)
	return p.print(listOf(works))
}

// each prints works one after the other.
func (p *workPrinter) each(works []*unstructured.Unstructured) error {
	if p.out.table() {
		return p.rows(works)
	}
	for _, w := range works {
		if err := p.one(w); err != nil {
			return err
		}
	}
	return nil
}

// gone prints that a work was deleted, where the format has a way to say so.
func (p *workPrinter) gone(u *unstructured.Unstructured) error {
	if !p.out.table() {
		return nil
	}
	w, err := typed(u)
	if err != nil {
		return err
	}
	row := workRow(w, nil, time.Now())
	row.Cells[3], row.Cells[4], row.Cells[6], row.Cells[7] = "Gone", "", "", ""
	return p.print(&metav1.Table{ColumnDefinitions: workColumns, Rows: []metav1.TableRow{row}})
}

func (p *workPrinter) rows(works []*unstructured.Unstructured) error {
	table := &metav1.Table{ColumnDefinitions: workColumns}
	now := time.Now()
	var clusters roster
	if p.roster != nil {
		clusters = p.roster()
	}
	for _, u := range works {
		w, err := typed(u)
		if err != nil {
			return err
		}
		table.Rows = append(table.Rows, workRow(w, clusters[w.Namespace], now))
	}
	return p.print(table)
}

func (p *workPrinter) print(o runtime.Object) error {
	if p.tabs == nil {
		return p.printer.PrintObj(o, p.streams.Out)
	}
	if err := p.printer.PrintObj(o, p.tabs); err != nil {
		return err
	}
	return p.tabs.Flush()
}

// listOf is what kubectl prints for several objects.
func listOf(objects []*unstructured.Unstructured) *unstructured.UnstructuredList {
	list := &unstructured.UnstructuredList{Object: map[string]any{
		"apiVersion": "v1",
		"kind":       "List",
		"metadata":   map[string]any{"resourceVersion": ""},
	}}
	for _, o := range objects {
		list.Items = append(list.Items, *o)
	}
	return list
}
