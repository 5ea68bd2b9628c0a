package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// deleteWork is the command delete work.
type deleteWork struct {
	*hub

	unclaimed     bool
	yes           bool
	wait          bool
	ignoreMissing bool
	timeout       time.Duration
}

func newDeleteWork(h *hub) *cobra.Command {
	d := &deleteWork{hub: h}
	cmd := &cobra.Command{
		Use:     "work NAME --cluster CLUSTER",
		Aliases: []string{"works", "manifestwork", "manifestworks"},
		Short:   "Delete a work, and what it made on its cluster",
		Long: `Delete a work, and what it made on its cluster.

The hub keeps the work until the cluster confirmed that nothing of it is left.
The command waits for that, unless --wait=false, and says what blocks.

With --unclaimed it deletes works that a cluster holds and the hub does not
know, as after the hub lost its data: those that the arguments name, by name or
ID, or all of the cluster. It shows them and asks before it does, unless --yes.`,
		Example: `  fleetcast delete work web --cluster paris
  fleetcast delete work web --cluster paris --wait=false

  # Works that only the cluster knows: all, or one
  fleetcast delete works --unclaimed --cluster paris
  fleetcast delete works --unclaimed --cluster paris web --yes`,
		Args: func(cmd *cobra.Command, args []string) error {
			if d.unclaimed {
				return nil
			}
			return arguments(1, 1, "one work name")(cmd, args)
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			if d.unclaimed {
				return h.completeUnclaimed(cmd, args)
			}
			return h.completeWorks(cmd, args, toComplete)
		},
		RunE: d.run,
	}
	h.addClusterFlag(cmd, "The cluster that runs the work (required)")
	cmd.Flags().BoolVar(&d.unclaimed, "unclaimed", false, "Delete works that the cluster holds and the hub does not know")
	cmd.Flags().BoolVarP(&d.yes, "yes", "y", false, "With --unclaimed, do not ask")
	cmd.Flags().BoolVar(&d.wait, "wait", true, "Wait until the cluster confirmed that nothing of the work is left")
	cmd.Flags().DurationVar(&d.timeout, "timeout", defaultTimeout, "How long to wait")
	cmd.Flags().BoolVar(&d.ignoreMissing, "ignore-not-found", false, "Succeed if there is no such work")
	return cmd
}

func (d *deleteWork) run(cmd *cobra.Command, args []string) error {
	cluster, err := d.oneCluster(cmd)
	switch {
	case err != nil:
		return err
	case d.timeout <= 0:
		return usagef("--timeout %s: give a time to wait, such as 2m", d.timeout)
	case d.yes && !d.unclaimed:
		return usagef("--yes is for --unclaimed: a work that is named is deleted without a question")
	}
	if err := d.connect(); err != nil {
		return err
	}
	if d.unclaimed {
		err = d.deleteUnclaimed(cmd.Context(), cluster, args)
	} else {
		err = d.deleteNamed(cmd.Context(), cluster, args[0])
	}
	if d.ignoreMissing && isNotFound(err) {
		return nil
	}
	return err
}

// deleteNamed deletes one work that the hub knows.
func (d *deleteWork) deleteNamed(ctx context.Context, cluster, name string) error {
	work, err := d.work(ctx, cluster, name)
	if err != nil {
		return d.mentionUnclaimed(ctx, err, cluster, name)
	}
	uid := work.GetUID()
	err = d.client.Resource(workResource).Namespace(cluster).Delete(ctx, name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &uid},
	})
	if err != nil && !isObjectNotFound(err) {
		return d.explain(err, "delete work %q of cluster %q", name, cluster)
	}
	return d.finish(ctx, cluster, name, uid)
}

// finish says what became of a work whose deletion was accepted.
func (d *deleteWork) finish(ctx context.Context, cluster, name string, uid types.UID) error {
	if !d.wait {
		fmt.Fprintf(d.Out, "manifestwork.%s/%s marked for deletion\n", workKind.Group, name)
		fmt.Fprintf(d.ErrOut, "Next: fleetcast get works %s --cluster %s --watch\n", name, cluster)
		return nil
	}
	if err := d.waitGone(ctx, cluster, name, uid, d.timeout); err != nil {
		return err
	}
	fmt.Fprintf(d.Out, "manifestwork.%s/%s deleted\n", workKind.Group, name)
	return nil
}
