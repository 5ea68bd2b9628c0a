package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
)

// An unclaimedWork is a work that a cluster holds and its hub does not know.
type unclaimedWork struct {
	v1alpha1.UnclaimedWork

	Cluster string
	// Source is the source ID of the hub that the work is of.
	Source string
	// Confirmed is true when somebody asked the hub to delete it.
	Confirmed bool
}

var unclaimedColumns = []metav1.TableColumnDefinition{
	{Name: "Cluster", Type: "string"},
	{Name: "Name", Type: "string"},
	{Name: "ID", Type: "string"},
	{Name: "Generation", Type: "integer"},
	{Name: "State", Type: "string"},
	{Name: "Source", Type: "string", Priority: 1},
}

// listUnclaimed returns the unclaimed works of all clusters in r, by cluster and
// name.
func (r roster) listUnclaimed() []unclaimedWork {
	var works []unclaimedWork
	for cluster, p := range r {
		if p == nil {
			continue
		}
		for _, a := range p.agents {
			for _, w := range a.Status.Unclaimed {
				works = append(works, unclaimedWork{
					UnclaimedWork: w, Cluster: cluster, Source: a.Name, Confirmed: slices.Contains(a.Spec.Delete, w.ID),
				})
			}
		}
	}
	slices.SortFunc(works, func(a, b unclaimedWork) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return works
}

// state says where the work is on its way out, if it is.
func (w unclaimedWork) state() string {
	switch {
	case w.Deleting:
		return "Deleting"
	case w.Confirmed:
		return "Deletion confirmed"
	default:
		return "Kept"
	}
}

func (w unclaimedWork) row() metav1.TableRow {
	return metav1.TableRow{Cells: []any{w.Cluster, oneLine(w.Name), oneLine(w.ID), w.Generation, w.state(), w.Source}}
}

// object is the work for -o json and the like. Its ID is the UID of the
// ManifestWork that there was.
func (w unclaimedWork) object() *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "cli.fleetcast.io/v1alpha1",
		"kind":       "UnclaimedWork",
		"status":     map[string]any{"source": w.Source, "deleting": w.Deleting, "deletionConfirmed": w.Confirmed},
	}}
	u.SetNamespace(w.Cluster)
	u.SetName(w.Name)
	u.SetUID(types.UID(w.ID))
	u.SetGeneration(w.Generation)
	return u
}

// String names the work to a person.
func (w unclaimedWork) String() string {
	return fmt.Sprintf("%s (ID %s, generation %d, of %s)", cmp.Or(oneLine(w.Name), "without a name"), oneLine(w.ID), w.Generation, w.Source)
}

// choose returns the works that arguments name by ID or by name, in the order of
// the arguments. An argument that fits two works is an error. There are all works
// in total, of which the hub may list fewer.
func choose(works []unclaimedWork, all int, cluster string, arguments []string) ([]unclaimedWork, error) {
	var chosen []unclaimedWork
	for _, argument := range arguments {
		var fit []unclaimedWork
		for _, w := range works {
			if w.ID == argument || w.Name == argument {
				fit = append(fit, w)
			}
		}
		switch {
		case len(fit) == 0 && len(works) < all:
			return nil, notFoundf("none of the %d unclaimed works of cluster %q that the hub lists, of %d, has the name or ID %q. See them: fleetcast get works --unclaimed --cluster %s", len(works), cluster, all, argument, cluster)
		case len(fit) == 0:
			return nil, notFoundf("cluster %q holds no unclaimed work with the name or ID %q. See which it does: fleetcast get works --unclaimed --cluster %s", cluster, argument, cluster)
		case len(fit) > 1:
			var ids []string
			for _, w := range fit {
				ids = append(ids, oneLine(w.ID))
			}
			return nil, usagef("%q means %d unclaimed works of cluster %q; say which by ID: %s", argument, len(fit), cluster, strings.Join(ids, ", "))
		case !slices.Contains(chosen, fit[0]):
			chosen = append(chosen, fit[0])
		}
	}
	return chosen, nil
}

// mentionUnclaimed adds to the error that a work does not exist on the hub that
// the cluster holds one of this name.
func (h *hub) mentionUnclaimed(ctx context.Context, err error, cluster, name string) error {
	if !isNotFound(err) {
		return err
	}
	for _, w := range h.knownAgents(ctx, cluster).listUnclaimed() {
		if w.Name == name || w.ID == name {
			return notFoundf("work %q does not exist on the hub, but cluster %q holds one of that name unclaimed. See it: fleetcast describe cluster %s", name, cluster, cluster)
		}
	}
	return err
}

// unclaimed is the section about unclaimed works of a cluster.
func (p *page) unclaimed(title, cluster string, works []unclaimedWork) {
	p.section(title, "NAME", "ID", "GENERATION", "STATE", "SOURCE")
	for _, w := range works {
		p.row(cmp.Or(w.Name, "<none>"), w.ID, w.Generation, w.state(), w.Source)
	}
	p.advicef("They stay on the cluster as they are.")
	if len(works) == 1 {
		p.advicef("To delete it: fleetcast delete works --unclaimed --cluster %s %s", cluster, oneLine(works[0].ID))
		return
	}
	p.advicef("To delete one: fleetcast delete works --unclaimed --cluster %s ID", cluster)
	p.advicef("To delete all: fleetcast delete works --unclaimed --cluster %s", cluster)
}

// runUnclaimed lists unclaimed works.
func (g *getWorks) runUnclaimed(ctx context.Context, args []string) error {
	var p printers.ResourcePrinter
	var err error
	if !g.out.table() {
		if p, err = g.out.printer(); err != nil {
			return err
		}
	}
	if err := g.connect(); err != nil {
		return err
	}
	clusters, err := g.recorded(ctx, g.onCluster)
	if err != nil {
		return err
	}
	works := clusters.listUnclaimed()
	if len(args) == 1 {
		works = slices.DeleteFunc(works, func(w unclaimedWork) bool { return w.ID != args[0] && w.Name != args[0] })
		if len(works) == 0 {
			return notFoundf("no unclaimed work has the name or ID %q. See which there are: fleetcast get works --unclaimed", args[0])
		}
	}
	if !g.out.table() {
		objects := make([]*unstructured.Unstructured, 0, len(works))
		for _, w := range works {
			objects = append(objects, w.object())
		}
		return p.PrintObj(listOf(objects), g.Out)
	}
	if len(works) == 0 {
		fmt.Fprintln(g.ErrOut, "No unclaimed works found.")
		return nil
	}
	table := &metav1.Table{ColumnDefinitions: unclaimedColumns}
	for _, w := range works {
		table.Rows = append(table.Rows, w.row())
	}
	if err := g.out.tables().PrintObj(table, g.Out); err != nil {
		return err
	}
	for _, cluster := range slices.Compact(clustersOf(works)) {
		if all, listed := clusters[cluster].unclaimed(), clusters[cluster].listed(); all > listed {
			fmt.Fprintf(g.ErrOut, "Cluster %s holds %d unclaimed works, of which the hub lists %d.\n", cluster, all, listed)
		}
	}
	return nil
}

func clustersOf(works []unclaimedWork) []string {
	clusters := make([]string, 0, len(works))
	for _, w := range works {
		clusters = append(clusters, w.Cluster)
	}
	return clusters
}

// completeUnclaimed completes names and IDs of a cluster's unclaimed works.
func (h *hub) completeUnclaimed(cmd *cobra.Command, args []string) ([]string, cobra.ShellCompDirective) {
	return h.complete(cmd, func(ctx context.Context) []string {
		cluster, err := h.cluster(cmd)
		if err != nil {
			return nil
		}
		clusters, err := h.agents(ctx, cluster)
		if err != nil {
			return nil
		}
		works := clusters.listUnclaimed()
		var names []string
		for _, w := range works {
			if slices.Contains(args, w.ID) || slices.Contains(args, w.Name) {
				continue
			}
			name := w.Name
			if name == "" || slices.ContainsFunc(works, func(o unclaimedWork) bool { return o.Name == w.Name && o.ID != w.ID }) {
				name = w.ID
			}
			names = append(names, name)
		}
		return names
	})
}
