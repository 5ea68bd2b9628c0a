package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func newDeleteWork(h *hub) *cobra.Command {
	var (
		wait          bool
		ignoreMissing bool
		timeout       time.Duration
	)
	cmd := &cobra.Command{
		Use:     "work NAME --cluster CLUSTER",
		Aliases: []string{"works", "manifestwork", "manifestworks"},
		Short:   "Delete a work, and what it made on its cluster",
		Long: `Delete a work, and what it made on its cluster.

The hub keeps the work until the cluster confirmed that nothing of it is left.
The command waits for that, unless --wait=false, and says what blocks.`,
		Example: `  fleetcast delete work web --cluster paris
  fleetcast delete work web --cluster paris --wait=false`,
		Args:              arguments(1, 1, "one work name"),
		ValidArgsFunction: h.completeWorks,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			cluster, err := h.oneCluster(cmd)
			if err != nil {
				return err
			}
			if timeout <= 0 {
				return usagef("--timeout %s: give a time to wait, such as 2m", timeout)
			}
			if err := h.connect(); err != nil {
				return err
			}
			work, err := h.work(cmd.Context(), cluster, name)
			if err != nil {
				if ignoreMissing && isNotFound(err) {
					return nil
				}
				return err
			}
			uid := work.GetUID()
			err = h.client.Resource(workResource).Namespace(cluster).Delete(cmd.Context(), name, metav1.DeleteOptions{
				Preconditions: &metav1.Preconditions{UID: &uid},
			})
			if err != nil && !isObjectNotFound(err) {
				return h.explain(err, "delete work %q of cluster %q", name, cluster)
			}
			return h.finishDelete(cmd, cluster, name, uid, wait, timeout)
		},
	}
	h.addClusterFlag(cmd, "The cluster that runs the work (required)")
	cmd.Flags().BoolVar(&wait, "wait", true, "Wait until the cluster confirmed that nothing of the work is left")
	cmd.Flags().DurationVar(&timeout, "timeout", defaultTimeout, "How long to wait")
	cmd.Flags().BoolVar(&ignoreMissing, "ignore-not-found", false, "Succeed if there is no such work")
	return cmd
}

// finishDelete says what became of a work whose deletion was accepted.
func (h *hub) finishDelete(cmd *cobra.Command, cluster, name string, uid types.UID, wait bool, timeout time.Duration) error {
	if !wait {
		fmt.Fprintf(h.Out, "manifestwork.%s/%s marked for deletion\n", workKind.Group, name)
		fmt.Fprintf(h.ErrOut, "Next: fleetcast get works %s --cluster %s --watch\n", name, cluster)
		return nil
	}
	if err := h.waitGone(cmd.Context(), cluster, name, uid, timeout); err != nil {
		return err
	}
	fmt.Fprintf(h.Out, "manifestwork.%s/%s deleted\n", workKind.Group, name)
	return nil
}
