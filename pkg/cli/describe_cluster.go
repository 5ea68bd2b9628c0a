package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	workv1 "open-cluster-management.io/api/work/v1"
)

// mostRows bounds the sections of a cluster's description.
const mostRows = 20

func newDescribeCluster(h *hub) *cobra.Command {
	return &cobra.Command{
		Use:     "cluster NAME",
		Aliases: []string{"clusters", "managedclusters", "managedcluster"},
		Short:   "Show whether a cluster is online and what is open on it",
		Long: `Show whether a cluster is online and in sync, which of its works are not done and
why, which deletions wait for a confirmation, and which works the cluster holds
that the hub does not know, with the commands that settle them.`,
		Example:           `  fleetcast describe cluster paris`,
		Args:              arguments(1, 1, "one cluster name"),
		ValidArgsFunction: h.completeCluster,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := h.connect(); err != nil {
				return err
			}
			d, err := h.describeCluster(cmd.Context(), args[0], time.Now())
			if err != nil {
				return err
			}
			return d.write(newPage(h.Out, d.now))
		},
	}
}

// A clusterDescription is everything known about one cluster.
type clusterDescription struct {
	*fleetCluster

	now    time.Time
	works  []*workv1.ManifestWork
	events []corev1.Event
}

func (h *hub) describeCluster(ctx context.Context, name string, now time.Time) (*clusterDescription, error) {
	var managed []*unstructured.Unstructured
	m, err := h.client.Resource(clusterResource).Get(ctx, name, metav1.GetOptions{})
	switch {
	case err == nil:
		managed = append(managed, m)
	case !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err):
		return nil, h.explain(err, "read cluster %q", name)
	}
	objects, _, err := h.list(ctx, workResource, name, metav1.ListOptions{})
	if err != nil {
		return nil, h.explain(err, "list works of cluster %q", name)
	}
	clusters, err := summarize(managed, objects, h.warnedAgents(ctx, name), now)
	if err != nil {
		return nil, err
	}
	picked, err := pick(clusters, []string{name})
	if err != nil {
		return nil, err
	}
	d := &clusterDescription{fleetCluster: picked[0], now: now}
	for _, u := range objects {
		w, err := typed(u)
		if err != nil {
			return nil, err
		}
		d.works = append(d.works, w)
	}
	d.events = h.eventsOf(ctx, name, "Agent", "")
	return d, nil
}

func (d *clusterDescription) write(p *page) error {
	p.row("Name:", d.Name)
	p.row("Online:", d.Presence.sentence(p.now))
	p.row("In sync:", d.Presence.inSync())
	p.row("Managed:", d.Managed)
	if d.Alive != "" {
		p.row("Alive:", d.Alive)
	}
	p.row("Works:", fmt.Sprintf("%d, of which %d applied and %d available", d.Works, d.Applied, d.Available))
	p.row("Age:", age(d.Created, p.now))
	if d.Presence != nil {
		for _, a := range d.Presence.agents {
			p.section("Agent of source " + a.Name)
			p.row("Name:", cmp.Or(a.Status.Agent, "<unknown>"))
			p.row("Capabilities:", cmp.Or(strings.Join(a.Status.Capabilities, ", "), "<none>"))
			if a.Status.LastSeen != nil {
				p.row("Last seen:", age(*a.Status.LastSeen, p.now)+" ago or later")
			}
			if a.Status.LastSynced != nil {
				p.row("Last in sync:", age(*a.Status.LastSynced, p.now)+" ago or later")
			}
			p.conditions(a.Status.Conditions)
		}
	}
	d.open(p)
	d.withheld(p)
	if works := (roster{d.Name: d.Presence}).listUnclaimed(); len(works) > 0 {
		shown := works[:min(len(works), mostRows)]
		p.unclaimed("Unclaimed works", d.Name, shown)
		if all := max(d.Presence.unclaimed(), len(works)); all > len(shown) {
			p.advicef("These are %d of %d. See more: fleetcast get works --unclaimed --cluster %s", len(shown), all, d.Name)
		}
	}
	p.events(d.events)
	return p.tabs.Flush()
}

// open is the section of the works that are not done.
func (d *clusterDescription) open(p *page) {
	var rows [][]any
	for _, w := range d.works {
		if v := judge(w, d.Presence, p.now); !v.Done && !v.Withheld {
			rows = append(rows, []any{w.Name, v.Applied, v.Available, v.Obstacle})
		}
	}
	if len(rows) == 0 {
		return
	}
	p.section("Works that are not done", "NAME", "APPLIED", "AVAILABLE", "MESSAGE")
	for _, r := range rows[:min(len(rows), mostRows)] {
		p.row(r...)
	}
	if len(rows) > mostRows {
		p.advicef("These are %d of %d. See more: fleetcast get works --cluster %s -o wide", mostRows, len(rows), d.Name)
	}
}

// withheld is the section of the deletions that wait for a confirmation.
func (d *clusterDescription) withheld(p *page) {
	works := slices.DeleteFunc(slices.Clone(d.works), func(w *workv1.ManifestWork) bool { return !withheld(w) })
	if len(works) == 0 {
		return
	}
	p.section("Withheld deletions", "NAME", "DELETED")
	for _, w := range works[:min(len(works), mostRows)] {
		p.row(w.Name, age(*w.DeletionTimestamp, p.now)+" ago")
	}
	if len(works) > mostRows {
		p.advicef("These are %d of %d.", mostRows, len(works))
	}
	p.advicef("The cluster keeps them until the deletion is confirmed.")
	p.advicef("To delete one: %s", confirmCommand(works[0]))
	p.advicef("To delete all: fleetcast confirm works --all --cluster %s", d.Name)
}
