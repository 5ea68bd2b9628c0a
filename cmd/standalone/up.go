package main

import (
	"fmt"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fleetcast-io/fleetcast/cmd/standalone/internal/apiserver"
	"github.com/fleetcast-io/fleetcast/pkg/flags"
	"github.com/fleetcast-io/fleetcast/pkg/hub"
)

// maxClusters is more than the memory of any one machine takes.
const maxClusters = 200

type upFlags struct {
	dataDir    string
	clusters   int
	broker     string
	connection flags.Broker
	noFsync    bool
	verbose    bool
	withStdin  bool
}

func newUpCommand() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up --data-dir DIR",
		Short: "Run a hub, a broker and managed clusters",
		Long: `Run a whole fleet: a hub with its API server and a broker in this process, and
managed clusters, each an API server and an agent in a process of its own.

It prints "ready" when all are. Then there are

  DIR/hub.kubeconfig                 administrator of the hub
  DIR/clusters/cluster1/kubeconfig   administrator of a cluster, and so on
  DIR/clusters/cluster1/log          what that cluster logs

SIGTERM and SIGINT end all of it; started again on the same directory it goes
on where it was. A cluster that dies is started again. Fewer clusters than in
the last run are the first of them; the others keep their state. The hub knows each
cluster by a ManagedCluster and a namespace of its name: a ManifestWork in that
namespace goes to that cluster.

No pods run anywhere: see "apiserver --help" for what these API servers are.
Each cluster takes about 300 MB of memory.`,
		Example: `  fleetcast-standalone up --data-dir /tmp/fleet --clusters 3
  kubectl --kubeconfig /tmp/fleet/hub.kubeconfig get managedclusters`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runUp(cmd, f) },
	}
	addDataDirFlag(cmd, &f.dataDir)
	cmd.Flags().IntVar(&f.clusters, "clusters", 1, "number of managed clusters (default: that of the last run, else 1)")
	cmd.Flags().Lookup("clusters").DefValue = "0" // So that the help does not add a default of its own.
	cmd.Flags().StringVar(&f.broker, "broker", "", `"nats" or "mqtt" for a broker in this process, or the URL of one elsewhere (default: that of the last run, else nats)`)
	cmd.Flags().AddFlagSet(connectionFlags(&f.connection))
	addVerboseFlag(cmd, &f.verbose)
	addNoFsyncFlag(cmd, &f.noFsync)
	addStopWithStdinFlag(cmd, &f.withStdin)
	return cmd
}

// connectionFlags are the flags about reaching a broker that hold for the hub
// and the clusters alike.
func connectionFlags(into *flags.Broker) *pflag.FlagSet {
	all, shared := pflag.NewFlagSet("", pflag.ContinueOnError), pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.AddBroker(all, into)
	own := []string{"broker", "broker-client-id"}
	all.VisitAll(func(flag *pflag.Flag) {
		if !slices.Contains(own, flag.Name) {
			shared.AddFlag(flag)
		}
	})
	return shared
}

func runUp(cmd *cobra.Command, f upFlags) error {
	opts, err := f.options(cmd.Flags())
	if err != nil {
		return err
	}
	if err := apiserver.ConfigureLogging(f.verbose); err != nil {
		return err
	}
	ctx := cmd.Context()
	if f.withStdin {
		ctx = untilEOF(ctx, cmd.InOrStdin())
	}
	p := newProgress(cmd.ErrOrStderr())
	fleet, err := startFleet(ctx, f.dataDir, opts, p)
	if err != nil {
		p.end()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // It was told to end while it started.
		}
		return err
	}
	_, printErr := fmt.Fprintln(cmd.OutOrStdout(), "ready")
	if printErr != nil {
		fleet.cancel()
	}
	debug.FreeOSMemory()
	if err := fleet.wait(); err != nil {
		return err
	}
	return printErr
}

func (f upFlags) options(set *pflag.FlagSet) (fleetOptions, error) {
	opts := fleetOptions{broker: f.broker, connection: f.connection, noFsync: f.noFsync, verbose: f.verbose}
	if err := requireDataDir(f.dataDir); err != nil {
		return opts, err
	}
	if f.clusters < 0 || f.clusters > maxClusters {
		return opts, usageErrorf("--clusters %d is not between 0 and %d", f.clusters, maxClusters)
	}
	if set.Changed("clusters") {
		opts.clusters = &f.clusters
	}
	connectionFlags(&flags.Broker{}).VisitAll(func(flag *pflag.Flag) {
		if flag := set.Lookup(flag.Name); flag.Changed {
			opts.connectionArgs = append(opts.connectionArgs, "--"+flag.Name+"="+flag.Value.String())
		}
	})
	switch f.broker {
	case "", "nats", "mqtt":
		if len(opts.connectionArgs) > 0 && f.broker != "" {
			return opts, usageErrorf("%s is for a broker that runs elsewhere: give its URL with --broker", strings.SplitN(opts.connectionArgs[0], "=", 2)[0])
		}
		return opts, nil
	}
	u, err := url.Parse(f.broker)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return opts, usageErrorf(`--broker: use "nats", "mqtt" or a URL like mqtts://broker.example.com:8883`)
	}
	if u.User != nil {
		// It would show in the list of processes, and in the data directory.
		return opts, usageErrorf("--broker: take the user out of the URL and use --broker-username and --broker-password-file")
	}
	check := hub.Default()
	check.Broker = f.connection
	check.Broker.URL = f.broker
	if err := check.Validate(); err != nil {
		return opts, usageErrorf("--broker: %w", err)
	}
	return opts, nil
}
