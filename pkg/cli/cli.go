// Package cli is the fleetcast command: what runs on which cluster of a fleet,
// seen and changed through the hub's API.
//
// It follows kubectl: the same connection flags, the same output formats, data
// on standard output and everything else on standard error. Errors say what
// failed, for which cluster, why, and what to do next. What a Secret holds is
// shown only with --show-secrets.
//
// # Exit codes
//
//	0  success
//	1  failure
//	2  the command line cannot be run as it stands
//	3  the work or cluster asked for does not exist
//	4  what was waited for did not happen in time
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// EnvPrefix begins the environment variables that stand in for flags.
const EnvPrefix = "FLEETCAST_"

// New returns the fleetcast command, for [Execute] or as part of a larger one.
func New(streams genericiooptions.IOStreams) *cobra.Command {
	h := newHub(streams)
	root := &cobra.Command{
		Use:   "fleetcast",
		Short: "Distribute Kubernetes work to a fleet of clusters",
		Long: `Distribute Kubernetes work to a fleet of clusters, and see what became of it.

A work is a list of manifests for one cluster. The hub keeps it, a broker
carries it, and the cluster's agent applies it and reports back.

Every flag may come from the environment: FLEETCAST_CLUSTER stands in for
--cluster, FLEETCAST_TIMEOUT for --timeout, and so on. The kubeconfig is found
as kubectl finds it.

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 not found, 4 timeout.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          subcommandOnly,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return fromEnvironment(cmd.Flags())
		},
	}
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.ErrOut)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return coded(exitUsage, err) })
	h.addFlags(root)

	get := &cobra.Command{Use: "get", Short: "List works or clusters", Args: subcommandOnly, RunE: missingSubcommand}
	get.AddCommand(newGetWorks(h), newGetClusters(h))
	create := &cobra.Command{Use: "create", Short: "Create a work", Args: subcommandOnly, RunE: missingSubcommand}
	create.AddCommand(newCreateWork(h))
	describe := &cobra.Command{Use: "describe", Short: "Show everything known about a work or a cluster", Args: subcommandOnly, RunE: missingSubcommand}
	describe.AddCommand(newDescribeWork(h), newDescribeCluster(h))
	remove := &cobra.Command{Use: "delete", Short: "Delete a work from its cluster", Args: subcommandOnly, RunE: missingSubcommand}
	remove.AddCommand(newDeleteWork(h))
	confirm := &cobra.Command{Use: "confirm", Short: "Confirm deletions that the hub withholds", Args: subcommandOnly, RunE: missingSubcommand}
	confirm.AddCommand(newConfirmWorks(h))
	root.AddCommand(get, create, describe, remove, confirm, newVersion())
	return root
}

// Execute runs root with args and returns the exit code of the process. It
// reports a failure on the command's standard error.
func Execute(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	code := exitFailure
	if c, ok := errors.AsType[*codedError](err); ok {
		code = c.code
	}
	fmt.Fprintf(root.ErrOrStderr(), "Error: %v\n", err)
	if code == exitUsage {
		fmt.Fprintf(root.ErrOrStderr(), "Run '%s --help' for usage.\n", cmd.CommandPath())
	}
	return code
}

// subcommandOnly is the Args of commands that only group others.
func subcommandOnly(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return usagef("unknown command %q for %q; did you mean %s?", args[0], cmd.CommandPath(), strings.Join(near, " or "))
	}
	return usagef("unknown command %q for %q", args[0], cmd.CommandPath())
}

func missingSubcommand(cmd *cobra.Command, _ []string) error {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return usagef("%s what? Use %q", cmd.CommandPath(), cmd.CommandPath()+" "+strings.Join(names, "|"))
}

// arguments returns the Args of a command that takes between least and most
// arguments, described by what.
func arguments(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef("%s needs %s", cmd.CommandPath(), what)
		case most >= 0 && len(args) > most:
			return usagef("%s takes %s; %q is too much", cmd.CommandPath(), what, args[most])
		default:
			return nil
		}
	}
}

// fromEnvironment sets the flags that the command line did not, and that have a
// variable in the environment. The kubeconfig has its own variable already.
func fromEnvironment(flags *pflag.FlagSet) error {
	var err error
	flags.VisitAll(func(f *pflag.Flag) {
		if err != nil || f.Changed || f.Name == "kubeconfig" || f.Name == "help" {
			return
		}
		name := EnvPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if value := os.Getenv(name); value != "" {
			if e := f.Value.Set(value); e != nil {
				err = usagef("%s in the environment: %w", name, e)
			}
		}
	})
	return err
}
