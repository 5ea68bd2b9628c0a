package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/fleetcast-io/fleetcast/cmd/standalone/internal/apiserver"
	"github.com/fleetcast-io/fleetcast/pkg/agent"
	"github.com/fleetcast-io/fleetcast/pkg/flags"
	"github.com/fleetcast-io/fleetcast/pkg/hub"
)

type clusterFlags struct {
	name      string
	dataDir   string
	sourceID  string
	broker    flags.Broker
	noFsync   bool
	verbose   bool
	withStdin bool
}

// newClusterCommand is how "up" runs a managed cluster, each in a process of its
// own: a process has at most one API server.
func newClusterCommand() *cobra.Command {
	var f clusterFlags
	cmd := &cobra.Command{
		Use:    "cluster --name NAME --data-dir DIR --broker URL",
		Short:  "Run a managed cluster: an API server and an agent",
		Hidden: true,
		Args:   noArguments,
		RunE:   func(cmd *cobra.Command, _ []string) error { return runCluster(cmd, f) },
	}
	addDataDirFlag(cmd, &f.dataDir)
	cmd.Flags().StringVar(&f.name, "name", "", "name of the cluster on the hub (required)")
	cmd.Flags().StringVar(&f.sourceID, "source-id", hub.DefaultSourceID, "source whose works are taken")
	flags.AddBroker(cmd.Flags(), &f.broker)
	addVerboseFlag(cmd, &f.verbose)
	addNoFsyncFlag(cmd, &f.noFsync)
	addStopWithStdinFlag(cmd, &f.withStdin)
	return cmd
}

func runCluster(cmd *cobra.Command, f clusterFlags) error {
	if err := requireDataDir(f.dataDir); err != nil {
		return err
	}
	config := agent.Config{
		ClusterName: f.name,
		Broker:      f.broker,
		SourceIDs:   []string{f.sourceID},
		DataDir:     filepath.Join(f.dataDir, "agent"),
		Log:         newLogger(cmd.ErrOrStderr(), f.verbose).With("cluster", f.name),
	}
	if err := config.Validate(); err != nil {
		return usageError{err}
	}
	if err := apiserver.ConfigureLogging(f.verbose); err != nil {
		return err
	}
	ctx := cmd.Context()
	if f.withStdin {
		ctx = untilEOF(ctx, cmd.InOrStdin())
	}
	server, err := apiserver.Start(ctx, f.dataDir, apiserver.Options{
		Profile: apiserver.Full, UnsafeNoFsync: f.noFsync, Logs: cmd.ErrOrStderr(),
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // It was told to end while it started.
		}
		return err
	}
	config.RESTConfig = server.RESTConfig()

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return untilEnd(ctx, server) })
	g.Go(func() error { return agent.Run(ctx, config) })
	if _, err := fmt.Fprintln(cmd.OutOrStdout(), "ready"); err != nil {
		g.Go(func() error { return fmt.Errorf("say that the cluster is ready: %w", err) })
	}
	debug.FreeOSMemory()
	return errors.Join(g.Wait(), server.Stop())
}
