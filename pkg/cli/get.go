package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/watch"
)

// getWorks is the command get works.
type getWorks struct {
	*hub

	out       *output
	selector  string
	watching  bool
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
with a reason, or Pending until the cluster reports on it.`,
		Example: `  # What runs where, and how it is doing
  fleetcast get works

  # One cluster's works, and every change to them
  fleetcast get works --cluster paris --watch

  # Names and labels of the works of one application
  fleetcast get works -l app=web -o custom-columns=NAME:.metadata.name,LABELS:.metadata.labels`,
		Args:              arguments(0, 1, "at most one work name"),
		ValidArgsFunction: h.completeWorks,
		RunE:              g.run,
	}
	h.addClusterFlag(cmd, "Only works of this cluster")
	cmd.Flags().BoolP("all-clusters", "A", false, "Works of all clusters, which is the default; wins over FLEETCAST_CLUSTER")
	cmd.Flags().StringVarP(&g.selector, "selector", "l", "", "Only works with these labels, such as app=web,tier!=test")
	cmd.Flags().BoolVarP(&g.watching, "watch", "w", false, "After listing, print every change until interrupted")
	g.out.addFlags(cmd, true)
	g.out.addSecretsFlag(cmd)
	return cmd
}

func (g *getWorks) run(cmd *cobra.Command, args []string) error {
	if err := g.choose(cmd, args); err != nil {
		return err
	}
	p, err := newWorkPrinter(g.out, g.IOStreams)
	if err != nil {
		return err
	}
	if err := g.connect(); err != nil {
		return err
	}
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
	g.options = metav1.ListOptions{LabelSelector: g.selector}
	if len(args) == 1 {
		if g.selector != "" {
			return usagef("a work name and --selector cannot be combined")
		}
		g.options.FieldSelector = fields.OneTermEqualSelector("metadata.name", args[0]).String()
	}
	return nil
}

// watchWorks prints what there is, and then every change, until ctx ends.
func (g *getWorks) watchWorks(ctx context.Context, p *workPrinter) error {
	var listed []*unstructured.Unstructured
	listing := true
	// printed holds the version of each work on the screen, so that an
	// interrupted watch does not repeat them all.
	printed := map[string]string{}
	return g.follow(ctx, g.onCluster, g.options, func(event watch.EventType, w *unstructured.Unstructured) (bool, error) {
		if event == watch.Bookmark {
			listing = false
			err := p.each(listed)
			listed = nil
			return false, err
		}
		key := w.GetNamespace() + "/" + w.GetName()
		if event == watch.Deleted {
			delete(printed, key)
			return false, p.gone(w)
		}
		if printed[key] == w.GetResourceVersion() {
			return false, nil
		}
		printed[key] = w.GetResourceVersion()
		if listing {
			// The first screen is printed at once, with columns that fit it.
			listed = append(listed, w)
			return false, nil
		}
		return false, p.each([]*unstructured.Unstructured{w})
	})
}
