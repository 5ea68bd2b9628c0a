package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/util/retry"
)

// fieldManager signs what this command writes.
const fieldManager = "fleetcast"

// createWork is the command create work.
type createWork struct {
	*hub

	out       *output
	onCluster string
	name      string
	files     []string
	update    bool
	wait      bool
	timeout   time.Duration
	dryRun    string
}

func newCreateWork(h *hub) *cobra.Command {
	c := &createWork{hub: h, out: newOutput("created")}
	cmd := &cobra.Command{
		Use:     "work NAME --cluster CLUSTER -f FILE",
		Aliases: []string{"works", "manifestwork", "manifestworks"},
		Short:   "Create a work: manifests for one cluster to run",
		Long: `Create a work: manifests for one cluster to run.

The manifests are YAML documents or JSON; lists are taken apart. Each needs
apiVersion, kind and metadata.name. Fields that only an API server writes, such
as metadata.uid, are left out, so objects read with kubectl can be used as they
are.`,
		Example: `  # Run what a directory describes on a cluster, and wait until it does
  fleetcast create work web --cluster paris -f deploy/ --wait

  # Change a work to new manifests
  fleetcast create work web --cluster paris -f deploy/ --update

  # Copy a ConfigMap of this cluster to another
  kubectl get configmap settings -o yaml | fleetcast create work settings --cluster lyon -f -`,
		Args: arguments(1, 1, "one work name"),
		// The name is a new one: there is nothing to complete.
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              c.run,
	}
	h.addClusterFlag(cmd, "The cluster to run the work (required)")
	f := cmd.Flags()
	f.StringArrayVarP(&c.files, "filename", "f", nil, "File or directory with manifests, or - for standard input; may be repeated (required)")
	f.BoolVar(&c.update, "update", false, "Replace the manifests of a work that exists")
	f.BoolVar(&c.wait, "wait", false, "Wait until the cluster applied the work and it is available")
	f.DurationVar(&c.timeout, "timeout", defaultTimeout, "How long --wait waits")
	f.StringVar(&c.dryRun, "dry-run", "none", "none, client (print the work and send nothing) or server (have it checked and not stored)")
	c.out.addFlags(cmd, false)
	c.out.addSecretsFlag(cmd)
	_ = cmd.RegisterFlagCompletionFunc("dry-run", cobra.FixedCompletions([]string{"none", "client", "server"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.MarkFlagFilename("filename", "yaml", "yml", "json")
	return cmd
}

func (c *createWork) run(cmd *cobra.Command, args []string) error {
	c.name = args[0]
	if err := c.choose(cmd); err != nil {
		return err
	}
	manifests, err := readManifests(c.files, c.In)
	if err != nil {
		return err
	}
	work := newWork(c.onCluster, c.name, manifests)
	if c.dryRun == "client" {
		return c.print(work, "created (dry run)")
	}
	if err := c.connect(); err != nil {
		return err
	}
	stored, done, err := c.store(cmd.Context(), work)
	if err != nil {
		return err
	}
	if c.dryRun == "server" {
		return c.print(stored, done+" (server dry run)")
	}
	if err := c.print(stored, done); err != nil {
		return err
	}
	if !c.wait {
		fmt.Fprintf(c.ErrOut, "Next: fleetcast get works %s --cluster %s --watch\n", c.name, c.onCluster)
		return nil
	}
	if err := c.waitApplied(cmd.Context(), c.onCluster, c.name, c.timeout); err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOut, "Next: fleetcast describe work %s --cluster %s\n", c.name, c.onCluster)
	return nil
}

// choose checks the flags, before anything is read or sent.
func (c *createWork) choose(cmd *cobra.Command) error {
	var err error
	if c.onCluster, err = c.oneCluster(cmd); err != nil {
		return err
	}
	switch {
	case len(c.files) == 0:
		return usagef("%s needs -f with the manifests to run", cmd.CommandPath())
	case c.dryRun != "none" && c.dryRun != "client" && c.dryRun != "server":
		return usagef("--dry-run %q: use none, client or server", c.dryRun)
	case c.wait && c.dryRun != "none":
		return usagef("--wait and --dry-run contradict each other: a dry run sends nothing")
	case c.timeout <= 0:
		return usagef("--timeout %s: give a time to wait, such as 2m", c.timeout)
	}
	_, err = c.out.printer()
	return err
}

func newWork(cluster, name string, manifests []manifest) *unstructured.Unstructured {
	objects := make([]any, 0, len(manifests))
	for _, m := range manifests {
		objects = append(objects, m.Object)
	}
	work := &unstructured.Unstructured{Object: map[string]any{
		"spec": map[string]any{"workload": map[string]any{"manifests": objects}},
	}}
	work.SetGroupVersionKind(workKind)
	work.SetNamespace(cluster)
	work.SetName(name)
	return work
}

// store creates the work, or updates the one of its name if that was asked for.
// It returns the stored object and what was done.
func (c *createWork) store(ctx context.Context, work *unstructured.Unstructured) (*unstructured.Unstructured, string, error) {
	var dryRun []string
	if c.dryRun == "server" {
		dryRun = []string{metav1.DryRunAll}
	}
	works := c.client.Resource(workResource).Namespace(c.onCluster)
	stored, err := works.Create(ctx, work, metav1.CreateOptions{DryRun: dryRun, FieldManager: fieldManager})
	switch {
	case err == nil:
		return stored, "created", nil
	case isObjectNotFound(err):
		return nil, "", notFoundf("cluster %q is not known to the hub, which has no namespace of that name. See which there are: fleetcast get clusters", c.onCluster)
	case !apierrors.IsAlreadyExists(err):
		return nil, "", c.explain(err, "create work %q for cluster %q", c.name, c.onCluster)
	case !c.update:
		return nil, "", fmt.Errorf("work %q exists on cluster %q. --update replaces its manifests; see it: fleetcast describe work %s --cluster %s",
			c.name, c.onCluster, c.name, c.onCluster)
	}

	done := "unchanged"
	manifests, _, _ := unstructured.NestedFieldNoCopy(work.Object, "spec", "workload", "manifests")
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		done = "unchanged"
		if stored, err = works.Get(ctx, c.name, metav1.GetOptions{}); err != nil {
			return err
		}
		if stored.GetDeletionTimestamp() != nil {
			return fmt.Errorf("it is being deleted; wait until it is gone: fleetcast delete work %s --cluster %s --wait", c.name, c.onCluster)
		}
		if old, _, _ := unstructured.NestedFieldNoCopy(stored.Object, "spec", "workload", "manifests"); equality.Semantic.DeepEqual(old, manifests) {
			return nil
		}
		if err := unstructured.SetNestedField(stored.Object, manifests, "spec", "workload", "manifests"); err != nil {
			return err
		}
		done = "configured"
		stored, err = works.Update(ctx, stored, metav1.UpdateOptions{DryRun: dryRun, FieldManager: fieldManager})
		return err
	})
	if isObjectNotFound(err) {
		err = errors.New("it was deleted meanwhile; try again")
	}
	return stored, done, c.explain(err, "update work %q of cluster %q", c.name, c.onCluster)
}

// print prints the work in the chosen format; without one, its name and what was
// done.
func (c *createWork) print(work *unstructured.Unstructured, done string) error {
	c.out.flags.NamePrintFlags.Operation = done
	p, err := c.out.printer()
	if err != nil {
		return err
	}
	c.out.mask(c.ErrOut, work)
	return p.PrintObj(work, c.Out)
}
