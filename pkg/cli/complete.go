package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	// completionDeadline bounds what a shell waits for after the tab key.
	completionDeadline = time.Second
	// completionLimit bounds what one request for names reads.
	completionLimit = 500
)

// addClusterFlag adds --cluster, with completion, to cmd.
func (h *hub) addClusterFlag(cmd *cobra.Command, usage string) {
	cmd.Flags().String("cluster", "", usage)
	_ = cmd.RegisterFlagCompletionFunc("cluster", h.completeClusters)
}

// cluster returns the cluster that cmd's flags name, or "".
func (h *hub) cluster(cmd *cobra.Command) (string, error) {
	cluster := cmd.Flag("cluster").Value.String()
	namespace := *h.config.Namespace
	if cluster != "" && namespace != "" && cluster != namespace {
		return "", usagef("--cluster %s and --namespace %s contradict each other: a cluster's works are in the namespace of its name", cluster, namespace)
	}
	if cluster == "" {
		cluster = namespace
	}
	return cluster, nil
}

// oneCluster is cluster for commands that need one.
func (h *hub) oneCluster(cmd *cobra.Command) (string, error) {
	cluster, err := h.cluster(cmd)
	if err == nil && cluster == "" {
		err = usagef("%s needs --cluster; see which there are: fleetcast get clusters", cmd.CommandPath())
	}
	return cluster, err
}

func (h *hub) completeWorks(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return h.complete(cmd, func(ctx context.Context) []string {
		cluster, err := h.cluster(cmd)
		if err != nil {
			return nil
		}
		list, err := h.client.Resource(workResource).Namespace(cluster).List(ctx, metav1.ListOptions{Limit: completionLimit})
		if err != nil {
			return nil
		}
		var names []string
		for _, w := range list.Items {
			names = append(names, w.GetName())
		}
		return names
	})
}

func (h *hub) completeClusters(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return h.complete(cmd, func(ctx context.Context) []string {
		var names []string
		// A hub may lack one of these APIs, or the user the right to read it.
		if list, err := h.client.Resource(clusterResource).List(ctx, metav1.ListOptions{Limit: completionLimit}); err == nil {
			for _, c := range list.Items {
				names = append(names, c.GetName())
			}
		}
		for _, resource := range []schema.GroupVersionResource{workResource, agentResource} {
			if list, err := h.client.Resource(resource).List(ctx, metav1.ListOptions{Limit: completionLimit}); err == nil {
				for _, o := range list.Items {
					names = append(names, o.GetNamespace())
				}
			}
		}
		return names
	})
}

// completeCluster completes the only argument of a command.
func (h *hub) completeCluster(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return h.completeClusters(cmd, args, toComplete)
}

// complete runs find within the deadline. It says nothing of failures: whoever
// presses the tab key is still writing the command.
func (h *hub) complete(cmd *cobra.Command, find func(context.Context) []string) ([]string, cobra.ShellCompDirective) {
	if fromEnvironment(cmd.Flags()) != nil || h.connect() != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionDeadline)
	defer cancel()
	names := find(ctx)
	slices.Sort(names)
	return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
}
