package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// Exit codes, which scripts rely on.
const (
	exitFailure = 1
	exitUsage   = 2
)

// usageError is a command line that cannot be run as it stands.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usageErrorf(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// execute runs one command line and returns the process's exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "Error: %v\n", err)
	if errors.As(err, &usageError{}) {
		fmt.Fprintf(stderr, "Run '%s --help' for usage.\n", command.CommandPath())
		return exitUsage
	}
	return exitFailure
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "fleetcast-standalone",
		Short: "Run a fleet, or parts of one, on this machine",
		Long: `Run what a fleet consists of on one machine: Kubernetes API servers with their
etcd, a broker, the hub and managed clusters. It needs no containers and no
other programs, and keeps all state in the directory it is told to use.

It is for trying things out, for tests and for small hubs. It runs no pods:
nothing schedules or starts containers.`,
		Args:          noArguments,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newAPIServerCommand(), newBrokerCommand(), newUpCommand(), newDemoCommand(), newClusterCommand(), newVersionCommand())
	return root
}

// noArguments refuses arguments that are not flags. It is the Args of every
// command here.
func noArguments(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.HasSubCommands():
		return usageErrorf("unknown command %q", args[0])
	default:
		return usageErrorf("unexpected argument %q", args[0])
	}
}

// addDataDirFlag adds the flag that every command with state has.
func addDataDirFlag(cmd *cobra.Command, into *string) {
	cmd.Flags().StringVar(into, "data-dir", "", "directory of all state; made if it does not exist (required)")
}

func requireDataDir(dir string) error {
	if dir == "" {
		return usageErrorf("--data-dir is required")
	}
	return nil
}

func addVerboseFlag(cmd *cobra.Command, into *bool) {
	cmd.Flags().BoolVarP(into, "verbose", "v", false, "log everything, not only what is wrong")
}

// addNoFsyncFlag adds the flag with which tests do not wait for the disk.
func addNoFsyncFlag(cmd *cobra.Command, into *bool) {
	cmd.Flags().BoolVar(into, "unsafe-no-fsync", false, "do not wait for the disk; a crash of the machine may lose data")
	_ = cmd.Flags().MarkHidden("unsafe-no-fsync")
}

// addStopWithStdinFlag adds the flag with which a program that starts this one
// makes sure that it does not outlive it, however that program ends: the kernel
// closes its end of the pipe.
func addStopWithStdinFlag(cmd *cobra.Command, into *bool) {
	cmd.Flags().BoolVar(into, "stop-with-stdin", false, "end when standard input does")
	_ = cmd.Flags().MarkHidden("stop-with-stdin")
}

// untilEOF returns a context that ends when in does.
func untilEOF(ctx context.Context, in io.Reader) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	return ctx
}
