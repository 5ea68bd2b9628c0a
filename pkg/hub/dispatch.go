package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/fleetcast-io/fleetcast/pkg/work"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/kube"
)

// closeTimeout bounds the wait for unconfirmed events at the end.
const closeTimeout = 5 * time.Second

// addDispatcher has the works of the API server dispatched. Every replica keeps
// the cache; the one that leads connects to the broker.
func (c *Config) addDispatcher(ctx context.Context, mgr manager.Manager, h *health) error {
	namespace, err := c.namespace()
	if err != nil {
		return err
	}
	source, err := kube.New(ctx, mgr, c.SourceID, kube.Options{
		Log: c.Log, Namespace: namespace, Breaker: c.Breaker,
		Check: work.Limits{Manifests: c.ManifestLimit}.Check,
	})
	if err != nil {
		return err
	}
	lead := &dispatching{config: c, source: source, elected: mgr.Elected()}
	h.add(checkWorks, func(*http.Request) error {
		if !source.Loaded() {
			return errors.New("the caches of ManifestWorks and Agents are filling; may the hub list and watch both?")
		}
		return nil
	})
	h.add("broker", lead.ready)
	if err := mgr.Add(guard{source}); err != nil {
		return err
	}
	if err := mgr.Add(lead); err != nil {
		return err
	}
	return work.AddExpiry(mgr, lead.agrees, c.Log)
}

// guard ends the manager when the API server was restored from a backup. Every
// replica has one: the caches of those that wait for the lead are as old.
type guard struct{ source *kube.Source }

// Start implements manager.Runnable.
func (g guard) Start(ctx context.Context) error {
	if err := g.source.Guard(ctx); err != nil {
		return fmt.Errorf("%w; this process does not hear of what that changed and has to be started again", err)
	}
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (guard) NeedLeaderElection() bool { return false }

// dispatching is what the leader does. As a runnable without NeedLeaderElection
// it waits for the lead.
type dispatching struct {
	config  *Config
	source  *kube.Source
	elected <-chan struct{} // Closed when this replica leads.
	running atomic.Pointer[sources.Dispatcher]
}

// Start implements manager.Runnable.
func (l *dispatching) Start(ctx context.Context) (err error) {
	c := l.config
	transport, err := c.openBroker(ctx)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if err := transport.Close(closing); err != nil {
			c.Log.Info("broker connection did not close in order", "err", err)
		}
	}()
	d := sources.NewDispatcher(c.SourceID, l.source, transport, sources.Options{Log: c.Log})
	unregister, err := register(metrics.Registry, slices.Concat(d.Collectors(), l.source.Collectors(), driverCollectors()))
	if err != nil {
		return err
	}
	defer unregister()
	l.source.Notify(d.Changed)
	defer l.source.Notify(nil)
	l.running.Store(d)
	defer l.running.Store(nil)
	c.Log.Info("dispatching works", "source", c.SourceID)

	// Ends after the dispatcher, to save what that left.
	saving, end := context.WithCancel(context.WithoutCancel(ctx))
	var g errgroup.Group
	g.Go(func() error { return l.source.Run(saving) })
	g.Go(func() error {
		defer end()
		return d.Run(ctx)
	})
	return g.Wait()
}

// agrees is a work.Agreement of the present lead.
func (l *dispatching) agrees(cluster, id string) bool {
	d := l.running.Load()
	return d != nil && d.Agrees(sources.Key{Cluster: cluster, ID: id})
}

// ready is nil for a replica that waits for the lead: it needs no broker.
func (l *dispatching) ready(*http.Request) error {
	if d := l.running.Load(); d != nil {
		err := d.Ready()
		if errors.Is(err, sources.ErrFenced) {
			return fmt.Errorf("this hub sends nothing any more (Fenced): %w; "+
				"if both hubs are meant to run, give each its own --source-id", err)
		}
		return err
	}
	select {
	case <-l.elected:
		return errors.New("the dispatcher starts or stops")
	default:
		return nil
	}
}

// register adds metrics to the registry that the manager serves, for as long as
// what they measure lives. Of several hubs in one process the first has its
// metrics served.
func register(r prometheus.Registerer, all []prometheus.Collector) (unregister func(), err error) {
	var done []prometheus.Collector
	unregister = func() {
		for _, c := range done {
			r.Unregister(c)
		}
	}
	for _, c := range all {
		err := r.Register(c)
		if already := (prometheus.AlreadyRegisteredError{}); errors.As(err, &already) {
			continue
		}
		if err != nil {
			unregister()
			return nil, fmt.Errorf("register metrics: %w", err)
		}
		done = append(done, c)
	}
	return unregister, nil
}
