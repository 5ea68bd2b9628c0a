package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

// getWorks is the command get works.
type getWorks struct {
	*hub

	out       *output
	selector  string
	watching  bool
	unclaimed bool
	onCluster string
	options   metav1.ListOptions
}

func newGetWorks(h *hub) *cobra.Command {
	g := &getWorks{hub: h, out: newOutput("")}
	cmd := &cobra.Command{
		Use:     "works [NAME]",
		Aliases: []string{"work", "manifestworks", "manifestwork"},
		Short:   "List works, of one cluster or of all",
		Long: `List works, of one cluster or of all.

GENERATION is what the cluster reported on and what the hub wants, as in 2/3.
APPLIED and AVAILABLE are about the wanted generation: True, False or Unknown
with a reason, or Pending until the cluster reports on it. A cluster that is
offline gets what changed when it is back, and reports then.

With --watch, a row is printed when a work changes, not when its cluster goes
offline or comes back: what the row says of that is up to ten seconds old.

With --unclaimed it lists works that clusters hold and the hub does not know, as
after the hub lost its data. They run on, and nothing is deleted unless somebody
asks for it with "fleetcast delete works --unclaimed".`,
		Example: `  # What runs where, and how it is doing
  fleetcast get works

  # One cluster's works, and every change to them
  fleetcast get works --cluster paris --watch

  # Works that only the clusters know
  fleetcast get works --unclaimed

  # Names and labels of the works of one application
  fleetcast get works -l app=web -o custom-columns=NAME:.metadata.name,LABELS:.metadata.labels`,
		Args: arguments(0, 1, "at most one work name"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			if g.unclaimed && len(args) == 0 {
				return h.completeUnclaimed(cmd, args)
			}
			return h.completeWorks(cmd, args, toComplete)
		},
		RunE: g.run,
	}
	h.addClusterFlag(cmd, "Only works of this cluster")
	cmd.Flags().BoolP("all-clusters", "A", false, "Works of all clusters, which is the default; wins over FLEETCAST_CLUSTER")
	cmd.Flags().StringVarP(&g.selector, "selector", "l", "", "Only works with these labels, such as app=web,tier!=test")
	cmd.Flags().BoolVarP(&g.watching, "watch", "w", false, "After listing, print every change until interrupted")
	cmd.Flags().BoolVar(&g.unclaimed, "unclaimed", false, "Works that clusters hold and the hub does not know")
	g.out.addFlags(cmd, true)
	g.out.addSecretsFlag(cmd)
	return cmd
}

func (g *getWorks) run(cmd *cobra.Command, args []string) error {
	if err := g.choose(cmd, args); err != nil {
		return err
	}
	if g.unclaimed {
		return g.runUnclaimed(cmd.Context(), args)
	}
	p, err := newWorkPrinter(g.out, g.IOStreams)
	if err != nil {
		return err
	}
	if err := g.connect(); err != nil {
		return err
	}
	p.roster = g.recentAgents(cmd.Context(), g.onCluster)
	doing := "list works of all clusters"
	if g.onCluster != "" {
		doing = fmt.Sprintf("list works of cluster %q", g.onCluster)
	}
	switch {
	case g.watching:
		err := g.watchWorks(cmd.Context(), p)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return g.explain(err, "%s", doing)
	case len(args) == 1 && g.onCluster != "":
		w, err := g.work(cmd.Context(), g.onCluster, args[0])
		if err != nil {
			return err
		}
		return p.one(w)
	}
	works, _, err := g.list(cmd.Context(), workResource, g.onCluster, g.options)
	switch {
	case err != nil:
		return g.explain(err, "%s", doing)
	case len(works) == 0 && len(args) == 1:
		return notFoundf("work %q does not exist on any cluster. See what does: fleetcast get works", args[0])
	case len(works) == 0 && g.out.table():
		fmt.Fprintln(g.ErrOut, "No works found.")
		return nil
	default:
		return p.all(works)
	}
}

// choose turns flags and arguments into what to list.
func (g *getWorks) choose(cmd *cobra.Command, args []string) error {
	var err error
	if g.onCluster, err = g.cluster(cmd); err != nil {
		return err
	}
	if all, _ := cmd.Flags().GetBool("all-clusters"); all {
		if cmd.Flag("cluster").Changed || cmd.Flag("namespace").Changed {
			return usagef("--cluster and --all-clusters contradict each other")
		}
		g.onCluster = ""
	}
	if _, err := labels.Parse(g.selector); err != nil {
		return usagef("--selector %q: %w", g.selector, err)
	}
	switch {
	case g.unclaimed && g.selector != "":
		return usagef("--unclaimed and --selector cannot be combined: of such works no labels are known")
	case g.unclaimed && g.watching:
		return usagef("--unclaimed and --watch cannot be combined")
	}
	g.options = metav1.ListOptions{LabelSelector: g.selector}
	if len(args) == 1 {
		if g.selector != "" {
			return usagef("a work name and --selector cannot be combined")
		}
		g.options.FieldSelector = fields.OneTermEqualSelector("metadata.name", args[0]).String()
	}
	return nil
}
