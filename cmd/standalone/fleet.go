package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleetcast-io/fleetcast/cmd/standalone/internal/apiserver"
	"github.com/fleetcast-io/fleetcast/cmd/standalone/internal/broker"
	"github.com/fleetcast-io/fleetcast/cmd/standalone/internal/children"
	"github.com/fleetcast-io/fleetcast/cmd/standalone/internal/datadir"
	"github.com/fleetcast-io/fleetcast/pkg/flags"
	"github.com/fleetcast-io/fleetcast/pkg/hub"
)

// fleetOptions say which fleet to run. The zero value runs what the data
// directory remembers, else a hub with a NATS broker and one cluster.
type fleetOptions struct {
	// clusters is how many there are, or nil.
	clusters *int
	// broker is "nats", "mqtt" or the URL of a broker that runs elsewhere.
	broker string
	// connection is how to reach a broker that runs elsewhere; its URL is not
	// used. connectionArgs are the same as arguments of the cluster command.
	connection     flags.Broker
	connectionArgs []string
	noFsync        bool
	verbose        bool
}

// fleetSettings is what a fleet's directory remembers.
type fleetSettings struct {
	Clusters int    `json:"clusters"`
	Broker   string `json:"broker"`
}

const fleetSettingsName = "fleet"

// A fleet is a hub in this process, and its clusters in child processes.
type fleet struct {
	dir      *datadir.Dir
	settings fleetSettings
	opts     fleetOptions
	progress *progress
	log      *slog.Logger

	server *apiserver.Server
	// broker is nil if it runs elsewhere.
	broker    *broker.Broker
	brokerURL string

	cancel context.CancelFunc
	group  *errgroup.Group
}

// startFleet starts a fleet with all its state in dataDir and returns when its
// hub and clusters are ready. It ends when ctx does.
func startFleet(ctx context.Context, dataDir string, opts fleetOptions, p *progress) (_ *fleet, err error) {
	dir, err := datadir.Open(dataDir)
	if err != nil {
		return nil, err
	}
	f := &fleet{dir: dir, opts: opts, progress: p, log: newLogger(p, opts.verbose)}
	ctx, f.cancel = context.WithCancel(ctx)
	f.group, ctx = errgroup.WithContext(ctx)
	if err := f.start(ctx); err != nil {
		f.cancel()
		// Why the group ended is why the start did.
		if cause := f.wait(); cause != nil {
			return nil, cause
		}
		return nil, err
	}
	return f, nil
}

// wait returns when all of the fleet has ended: nil if it was told to.
func (f *fleet) wait() error {
	err := f.group.Wait()
	f.cancel()
	if f.broker != nil {
		err = errors.Join(err, f.broker.Close())
	}
	if f.server != nil {
		err = errors.Join(err, f.server.Stop())
	}
	f.dir.Close()
	return err
}

// hubKubeconfig is the path of the administrator's kubeconfig of the hub.
func (f *fleet) hubKubeconfig() string { return f.dir.Path("hub.kubeconfig") }

// clusterDir is where a cluster keeps its state, its log and its kubeconfig.
func (f *fleet) clusterDir(name string) string { return f.dir.Path("clusters", name) }

// clusters returns the names of the clusters.
func (f *fleet) clusters() []string {
	names := make([]string, f.settings.Clusters)
	for i := range names {
		names[i] = fmt.Sprintf("cluster%d", i+1)
	}
	return names
}

func (f *fleet) start(ctx context.Context) error {
	if err := f.settle(); err != nil {
		return err
	}
	if err := f.startServer(ctx); err != nil {
		return err
	}
	if err := f.startBroker(); err != nil {
		return err
	}
	f.startHub(ctx)
	if err := f.startClusters(ctx); err != nil {
		return err
	}
	return f.dir.Remember(fleetSettingsName, f.settings)
}

// settle decides between what was asked for and what the last run had.
func (f *fleet) settle() error {
	f.settings = fleetSettings{Clusters: 1, Broker: "nats"}
	if err := f.dir.Recall(fleetSettingsName, &f.settings); err != nil {
		return err
	}
	if f.opts.clusters != nil {
		f.settings.Clusters = *f.opts.clusters
	}
	if f.opts.broker != "" {
		f.settings.Broker = f.opts.broker
	}
	return nil
}

func (f *fleet) startServer(ctx context.Context) error {
	done := f.progress.begin("the hub's API server")
	var err error
	f.server, err = apiserver.Start(ctx, f.dir.Path("hub"), apiserver.Options{
		Profile: apiserver.Hub, UnsafeNoFsync: f.opts.noFsync, Logs: f.progress,
	})
	if err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	kubeconfig, err := os.ReadFile(f.server.Kubeconfig())
	if err != nil {
		return fmt.Errorf("read the hub's kubeconfig: %w", err)
	}
	if err := datadir.WriteFile(f.hubKubeconfig(), kubeconfig); err != nil {
		return err
	}
	f.group.Go(func() error { return untilEnd(ctx, f.server) })
	done(f.hubKubeconfig())
	return nil
}

func (f *fleet) startBroker() error {
	switch f.settings.Broker {
	case "nats", "mqtt":
	default:
		f.brokerURL = f.settings.Broker
		return nil
	}
	done := f.progress.begin("the broker")
	address, err := broker.ParseAddress(f.settings.Broker + "://127.0.0.1:0")
	if err != nil {
		return err
	}
	if f.broker, err = broker.Start(f.dir.Path("broker"), address, f.log); err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	f.brokerURL = f.broker.URL()
	done(f.brokerURL)
	return nil
}

func (f *fleet) startHub(ctx context.Context) {
	config := hub.Default()
	config.RESTConfig = f.server.RESTConfig()
	config.Broker = f.opts.connection
	config.Broker.URL = f.brokerURL
	config.InstallCRDs = true
	config.InstallPolicies = true
	config.LeaderElect = false
	config.Log = f.log
	f.group.Go(func() error {
		if err := hub.Run(ctx, config); err != nil {
			return fmt.Errorf("hub: %w", err)
		}
		return nil
	})
}

// startClusters returns when all clusters are ready and the hub knows them.
func (f *fleet) startClusters(ctx context.Context) error {
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	starting, startCtx := errgroup.WithContext(ctx)
	// More at once than there are processors only make each of them late.
	starting.SetLimit(runtime.GOMAXPROCS(0))
	for _, name := range f.clusters() {
		starting.Go(func() error {
			done := f.progress.begin(name)
			ready := make(chan struct{})
			if err := f.keepCluster(ctx, executable, name, ready); err != nil {
				return err
			}
			select {
			case <-ready:
			case <-startCtx.Done():
				return context.Cause(startCtx)
			}
			if err := registerCluster(startCtx, f.server.RESTConfig(), name); err != nil {
				return err
			}
			done(filepath.Join(f.clusterDir(name), "kubeconfig"))
			return nil
		})
	}
	return starting.Wait()
}

// keepCluster runs a cluster until ctx ends. It closes the channel when the
// cluster is ready for the first time.
func (f *fleet) keepCluster(ctx context.Context, executable, name string, ready chan<- struct{}) error {
	dir := f.clusterDir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of %s: %w", name, err)
	}
	args := []string{
		"cluster", "--name", name, "--data-dir", dir, "--source-id", hub.DefaultSourceID,
		"--broker", f.brokerURL, "--stop-with-stdin",
	}
	args = append(args, f.opts.connectionArgs...)
	if f.opts.noFsync {
		args = append(args, "--unsafe-no-fsync")
	}
	if f.opts.verbose {
		args = append(args, "--verbose")
	}
	var first sync.Once
	f.group.Go(func() error {
		err := children.Keep(ctx, children.Child{
			Path:    executable,
			Args:    args,
			LogFile: filepath.Join(dir, "log"),
			Ready: func() {
				again := true
				first.Do(func() {
					again = false
					close(ready)
				})
				if again {
					f.progress.printf("%s is ready again", name)
				}
			},
			Ended: func(err error, pause time.Duration) {
				f.progress.printf("%s ended: %v; starting it again in %v", name, err, pause.Round(100*time.Millisecond))
			},
		})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	return nil
}
