package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/agents/apply"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/drivers"
	"github.com/fleetcast-io/fleetcast/pkg/version"
)

// Run runs the agent until ctx ends, and returns nil then. Neither broker nor
// API server needs to be there: it tells what it waits for and goes on when it
// comes. An error is one that waiting does not cure.
func Run(ctx context.Context, c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	hubHash, err := c.hubHash()
	if err != nil {
		return err
	}
	if c.AgentID == "" {
		c.AgentID = hubHash
	}
	cfg, err := c.restConfig()
	if err != nil {
		return err
	}
	c.Log.Info("agent starts", "version", version.Get().Version, "sources", c.SourceIDs, "data_dir", c.DataDir, "api_server", cfg.Host)

	store, err := agents.OpenDisk(c.DataDir, c.ClusterName)
	if err != nil {
		return err
	}
	defer func() {
		if err := store.Close(); err != nil {
			c.Log.Error("cannot close the agent's store", "err", err)
		}
	}()

	registry, err := newRegistry()
	if err != nil {
		return err
	}
	var running atomic.Pointer[agents.Agent]
	applier, err := apply.New(cfg, apply.Options{
		HubHash: hubHash,
		Cluster: c.ClusterName,
		AgentID: c.AgentID,
		Changed: func(source, id string) {
			if a := running.Load(); a != nil {
				a.Changed(source, id)
			}
		},
		Ledger:        ledger{&running},
		EvictionGrace: c.EvictionGracePeriod,
		Executors:     c.Executors,
		Observe:       c.Observe,
		Limits:        apply.Limits{WorkBytes: c.ManifestLimit},
		Registerer:    registry,
		Log:           c.Log,
	})
	if err != nil {
		return fmt.Errorf("prepare to apply: %w", err)
	}

	o := agents.Options{
		Sources:        c.SourceIDs,
		Workers:        c.Workers,
		StatusInterval: c.StatusSyncInterval,
		Instance:       agents.NewInstance(),
		Log:            c.Log,
	}
	bc := c.Broker.Config
	bc.Role, bc.Name, bc.Log = brokers.RoleAgent, c.ClusterName, c.Log
	if bc.Will, err = agents.LastWill(c.ClusterName, o); err != nil {
		return err
	}
	transport, err := drivers.All.Open(ctx, c.Broker.URL, bc)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := transport.Close(closing); err != nil {
			c.Log.Info("broker connection did not close in order", "err", err)
		}
	}()

	a, err := agents.New(c.ClusterName, store, applier, transport, o)
	if err != nil {
		return err
	}
	if err := register(registry, a.Collectors()...); err != nil {
		return err
	}
	running.Store(a)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { thrift(ctx); return nil })
	if serving(c.MetricsBindAddress) {
		g.Go(func() error {
			return serve(ctx, c.MetricsBindAddress, handler(registry, func() error { return ready(a) }))
		})
	}
	prepared := make(chan struct{})
	g.Go(func() error {
		select {
		case <-prepared:
		case <-time.After(apiPatience):
			// It takes works, and is there for its sources, although its own API
			// server is not: what cannot be applied yet is tried again.
		case <-ctx.Done():
			return nil
		}
		return a.Run(ctx)
	})
	g.Go(func() error {
		if err := prepare(ctx, applier, c.Log); err != nil {
			return nil //nolint:nilerr // The context ended while waiting.
		}
		close(prepared)
		return applier.Run(ctx)
	})
	return g.Wait()
}

// A ledger is what the agent knows, which is nothing before there is one.
type ledger struct{ running *atomic.Pointer[agents.Agent] }

// Fate implements apply.Ledger.
func (l ledger) Fate(source, id string) (held, deleted bool) {
	if a := l.running.Load(); a != nil {
		return a.Fate(source, id)
	}
	return false, false
}

// apiPatience is how long an agent that starts waits for its API server before it
// listens to its sources without it.
const apiPatience = 10 * time.Second

// prepare waits until the cluster has what the applier needs.
func prepare(ctx context.Context, applier *apply.Applier, log *slog.Logger) error {
	const pause = 2 * time.Second
	told := ""
	for {
		err := applier.InstallCRD(ctx)
		if err == nil {
			return nil
		}
		if told != err.Error() {
			told = err.Error()
			log.Warn("this cluster's API server is not ready for the agent, trying again", "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}
