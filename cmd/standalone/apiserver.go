package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/fleetcast-io/fleetcast/cmd/standalone/internal/apiserver"
)

type apiServerFlags struct {
	dataDir     string
	bindAddress string
	port        int
	apis        string
	noFsync     bool
	withStdin   bool
	verbose     bool
}

func newAPIServerCommand() *cobra.Command {
	var flags apiServerFlags
	cmd := &cobra.Command{
		Use:   "apiserver --data-dir DIR",
		Short: "Run a Kubernetes API server",
		Long: `Run a Kubernetes API server with its etcd in this process.

It prints "ready" when it is. DIR/kubeconfig then names a cluster
administrator. SIGTERM and SIGINT end it; started again on the same directory
it serves the same objects on the same port to the same clients.

There are two sets of APIs:

  full   everything kube-apiserver serves
  hub    namespaces, secrets, config maps, service accounts, RBAC, certificate
         signing requests, leases, events, custom resources, admission policies
         and webhooks; smaller, and without pods, deployments and the like

What is there: RBAC, tokens of service accounts, admission (namespace lifecycle,
policies, webhooks, quota), deletion of namespaces with all they hold, garbage
collection by owner references, default service accounts.

What is not: nodes, scheduling and the controllers of workloads. A Deployment
is stored and nothing more, and no pod ever runs. Certificate signing requests
are not signed, and expired objects of no owner are not removed.`,
		Example: `  fleetcast-standalone apiserver --data-dir /tmp/hub --apis hub
  kubectl --kubeconfig /tmp/hub/kubeconfig get namespaces`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runAPIServer(cmd, flags) },
	}
	addDataDirFlag(cmd, &flags.dataDir)
	cmd.Flags().StringVar(&flags.bindAddress, "bind-address", "127.0.0.1", "IP address to listen on; others than this machine's loopback expose the server to the network")
	cmd.Flags().IntVar(&flags.port, "port", 0, "port to listen on (default: that of the last run, else a free one)")
	cmd.Flags().StringVar(&flags.apis, "apis", "", `APIs to serve, "hub" or "full" (default: those of the last run, else full)`)
	addVerboseFlag(cmd, &flags.verbose)
	addNoFsyncFlag(cmd, &flags.noFsync)
	addStopWithStdinFlag(cmd, &flags.withStdin)
	return cmd
}

func runAPIServer(cmd *cobra.Command, flags apiServerFlags) error {
	opts, err := flags.options()
	if err != nil {
		return err
	}
	opts.Logs = cmd.ErrOrStderr()
	if err := apiserver.ConfigureLogging(flags.verbose); err != nil {
		return err
	}
	ctx := cmd.Context()
	if flags.withStdin {
		ctx = untilEOF(ctx, cmd.InOrStdin())
	}
	server, err := apiserver.Start(ctx, flags.dataDir, opts)
	if err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // It was told to end while it started.
		}
		return err
	}
	if _, err := fmt.Fprintln(cmd.OutOrStdout(), "ready"); err != nil {
		_ = server.Stop()
		return fmt.Errorf("say that the server is ready: %w", err)
	}
	debug.FreeOSMemory() // Most of what a start allocates is garbage after it.
	return errors.Join(untilEnd(ctx, server), server.Stop())
}

// untilEnd returns nil when ctx ends, and an error if the server does so before.
func untilEnd(ctx context.Context, server *apiserver.Server) error {
	select {
	case <-ctx.Done():
		return nil
	case <-server.Done():
		return errors.New("the API server ended by itself")
	}
}

func (f apiServerFlags) options() (apiserver.Options, error) {
	opts := apiserver.Options{Port: f.port, UnsafeNoFsync: f.noFsync}
	if err := requireDataDir(f.dataDir); err != nil {
		return opts, err
	}
	if f.port < 0 || f.port > 65535 {
		return opts, usageErrorf("--port %d is not a port", f.port)
	}
	if opts.BindAddress = net.ParseIP(f.bindAddress); opts.BindAddress == nil {
		return opts, usageErrorf("--bind-address %q is not an IP address", f.bindAddress)
	}
	if f.apis != "" {
		profile, err := apiserver.ParseProfile(f.apis)
		if err != nil {
			return opts, usageErrorf("--apis: %w", err)
		}
		opts.Profile = profile
	}
	return opts, nil
}
