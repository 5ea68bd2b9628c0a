// Command fleetsim runs a simulated fleet against a broker and says what that
// came to.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fleetcast-io/fleetcast/pkg/fleet/process"
	"github.com/fleetcast-io/fleetcast/pkg/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newRoot().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "fleetsim",
		Short: "Run a simulated fleet of clusters against a broker",
		Long: `Run the hub's dispatcher and the agents of many clusters on this machine, over a
real broker, and see how fast works get to the clusters, what that costs, and that
nothing is lost.

The agents are the real ones, each with a connection of its own. What lies behind
them is simulated: clusters take what is applied and run nothing.`,
		SilenceUsage: true, SilenceErrors: true, Version: version.Version,
	}
	root.AddCommand(newRun(), newRaw(), newScenarios(), newBroker())
	return root
}

// newBroker is how a simulation starts a broker as a process of its own.
func newBroker() *cobra.Command {
	return &cobra.Command{
		Use: "broker KIND ADDRESS DIR", Hidden: true, Args: cobra.ExactArgs(3), Short: "Run a built-in broker",
		RunE: func(cmd *cobra.Command, args []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			return process.Serve(cmd.Context(), process.Kind(args[0]), args[1], args[2], log)
		},
	}
}
