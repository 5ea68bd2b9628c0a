package cli

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api"
)

func newConfirmWorks(h *hub) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "works --cluster CLUSTER [NAME... | --all]",
		Aliases: []string{"work", "manifestworks", "manifestwork"},
		Short:   "Confirm deletions that the hub withholds",
		Long: `Confirm deletions that the hub withholds.

When many works of one cluster are deleted within a short time, the hub tells
the cluster of the first only and withholds the rest, which may be a mistake:
nothing of them is removed from the cluster until somebody confirms it here.
How many are too many is set with the hub's flags --max-deletions and
--max-deletion-share. A deletion that is confirmed before the hub has looked at it
is not withheld. A work that is marked for deletion cannot be kept under
its name; to keep what it made, see "A deletion that was a mistake" in the
operator's guide.`,
		Example: `  # See which deletions of a cluster wait
  fleetcast describe cluster paris

  fleetcast confirm works web db --cluster paris
  fleetcast confirm works --all --cluster paris`,
		Args:              arguments(0, -1, "work names"),
		ValidArgsFunction: h.completeWithheld,
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, err := h.oneCluster(cmd)
			switch {
			case err != nil:
				return err
			case all && len(args) > 0:
				return usagef("work names and --all cannot be combined")
			case !all && len(args) == 0:
				return usagef("%s needs the names of works, or --all", cmd.CommandPath())
			}
			if err := h.connect(); err != nil {
				return err
			}
			if all {
				return h.confirmAll(cmd.Context(), cluster)
			}
			// All names are looked up before any is confirmed.
			works := make([]*workv1.ManifestWork, 0, len(args))
			for _, name := range args {
				u, err := h.deletedWork(cmd.Context(), cluster, name)
				if err != nil {
					return err
				}
				w, err := typed(u)
				if err != nil {
					return err
				}
				if w.DeletionTimestamp.IsZero() {
					return fmt.Errorf("work %q of cluster %q is not being deleted, so there is nothing to confirm. To delete it: fleetcast delete work %s --cluster %s", name, cluster, name, cluster)
				}
				works = append(works, w)
			}
			for _, w := range works {
				if err := h.confirm(cmd.Context(), w); err != nil {
					return err
				}
			}
			return nil
		},
	}
	h.addClusterFlag(cmd, "The cluster that runs the works (required)")
	cmd.Flags().BoolVar(&all, "all", false, "Confirm every deletion that is withheld for the cluster now")
	return cmd
}

// confirmAll confirms all withheld deletions of a cluster.
func (h *hub) confirmAll(ctx context.Context, cluster string) error {
	works, err := h.withheldOn(ctx, cluster)
	if err != nil {
		return err
	}
	if len(works) == 0 {
		fmt.Fprintf(h.ErrOut, "No deletion is withheld for cluster %s.\n", cluster)
	}
	for _, w := range works {
		if err := h.confirm(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// withheldOn returns the works of a cluster whose deletion is withheld.
func (h *hub) withheldOn(ctx context.Context, cluster string) ([]*workv1.ManifestWork, error) {
	objects, _, err := h.list(ctx, workResource, cluster, metav1.ListOptions{})
	if err != nil {
		return nil, h.explain(err, "list works of cluster %q", cluster)
	}
	return withheldOf(objects)
}

func withheldOf(objects []*unstructured.Unstructured) ([]*workv1.ManifestWork, error) {
	var works []*workv1.ManifestWork
	for _, u := range objects {
		w, err := typed(u)
		if err != nil {
			return nil, err
		}
		if withheld(w) {
			works = append(works, w)
		}
	}
	return works, nil
}

// deletedWork reads a work whose deletion shall be confirmed.
func (h *hub) deletedWork(ctx context.Context, cluster, name string) (*unstructured.Unstructured, error) {
	u, err := h.work(ctx, cluster, name)
	if isNotFound(err) {
		err = notFoundf("the hub has no work %q of cluster %q, so there is nothing to confirm: its deletion is done, or there never was one. See what is withheld: fleetcast describe cluster %s", name, cluster, cluster)
		return nil, h.mentionUnclaimed(ctx, err, cluster, name)
	}
	return u, err
}

// confirm confirms the deletion of this very work. If nothing says yet that the
// deletion is withheld or that the cluster was told, the hub may still withhold
// it.
func (h *hub) confirm(ctx context.Context, w *workv1.ManifestWork) error {
	told := func(what string) error {
		fmt.Fprintf(h.Out, "manifestwork.%s/%s %s\n", workKind.Group, w.Name, what)
		return nil
	}
	switch {
	case w.Annotations[api.ConfirmDeletionAnnotation] == "true":
		return told("deletion was confirmed before")
	case !withheld(w) && (meta.FindStatusCondition(w.Status.Conditions, api.ConditionDeleting) != nil ||
		meta.IsStatusConditionTrue(w.Status.Conditions, api.ConditionDeleted)):
		return told("is being deleted already")
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		// Another work of the name has another UID, which the API server refuses to
		// change.
		"uid":         w.UID,
		"annotations": map[string]string{api.ConfirmDeletionAnnotation: "true"},
	}})
	if err != nil {
		return fmt.Errorf("encode the confirmation: %w", err)
	}
	_, err = h.client.Resource(workResource).Namespace(w.Namespace).Patch(ctx, w.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	switch {
	case isObjectNotFound(err):
		return told("is gone already")
	case err != nil:
		return h.explain(err, "confirm the deletion of work %q of cluster %q", w.Name, w.Namespace)
	}
	return told("deletion confirmed")
}

func (h *hub) completeWithheld(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return h.complete(cmd, func(ctx context.Context) []string {
		cluster, err := h.cluster(cmd)
		if err != nil || cluster == "" {
			return nil
		}
		works, err := h.withheldOn(ctx, cluster)
		if err != nil {
			return nil
		}
		var names []string
		for _, w := range works {
			names = append(names, w.Name)
		}
		return without(names, args)
	})
}
