package hub

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/drivers"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
	"github.com/fleetcast-io/fleetcast/pkg/version"
)

// leaseName is the lease that the replicas of one source ID compete for.
func leaseName(sourceID string) string { return "fleetcast-hub-" + sourceID }

// retryInterval is the wait between attempts at what the hub needs to start.
const retryInterval = 2 * time.Second

// Run runs the hub until ctx ends, and returns nil then. Neither broker nor API
// server needs to be there at the start: it tells what it waits for and goes on
// when it comes. An error is one that waiting does not cure, or that another
// replica took over the lead: the process should end.
func Run(ctx context.Context, c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Drivers == nil {
		c.Drivers = drivers.All
	}
	if err := c.checkBroker(ctx); err != nil {
		return err
	}
	cfg, err := c.restConfig()
	if err != nil {
		return err
	}
	// Libraries log through one logger per process; without one they say so.
	ctrl.SetLogger(logr.FromSlogHandler(quiet{c.Log.Handler()}))
	c.Log.Info("hub starts", "version", version.Get().Version, "source", c.SourceID, "api_server", cfg.Host)

	h := newHealth()
	g, ctx := errgroup.WithContext(ctx)
	if serving(c.HealthProbeBindAddress) {
		g.Go(func() error { return h.serve(ctx, c.HealthProbeBindAddress) })
	}
	g.Go(func() error {
		if !waitForCRDs(ctx, cfg, c.InstallCRDs, h, c.Log) {
			return nil // The context ended first.
		}
		g.Go(func() error {
			c.keepPolicies(ctx, cfg, h)
			return nil
		})
		return c.runManager(ctx, cfg, h)
	})
	return g.Wait()
}

// checkBroker finds a wrong URL or configuration at once, and not when this
// replica comes to lead. It opens nothing: a connection with the leader's
// client ID would take the leader's session away.
func (c *Config) checkBroker(ctx context.Context) error {
	return c.Drivers.Check(ctx, c.Broker.URL, c.brokerConfig())
}

func (c *Config) brokerConfig() brokers.Config {
	bc := c.Broker.Config
	bc.Role, bc.Name, bc.Log = brokers.RoleSource, c.SourceID, c.Log
	return bc
}

func (c *Config) openBroker(ctx context.Context) (brokers.Transport, error) {
	return c.Drivers.Open(ctx, c.Broker.URL, c.brokerConfig())
}

func (c *Config) runManager(ctx context.Context, cfg *rest.Config, h *health) error {
	namespace, err := c.namespace()
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(cfg, manager.Options{
		Scheme:                        api.NewScheme(),
		Logger:                        logr.FromSlogHandler(quiet{c.Log.Handler()}),
		LeaderElection:                c.LeaderElect,
		LeaderElectionID:              leaseName(c.SourceID),
		LeaderElectionNamespace:       namespace,
		LeaderElectionReleaseOnCancel: true,
		Cache:                         c.cache(),
		Metrics:                       metricsserver.Options{BindAddress: orNone(c.MetricsBindAddress)},
		HealthProbeBindAddress:        "0", // The hub's own outlives the manager.
	})
	if err != nil {
		return fmt.Errorf("prepare the hub's controllers: %w", err)
	}
	for _, p := range c.parts() {
		if err := p.add(ctx, mgr, h); err != nil {
			return fmt.Errorf("add %s: %w", p.name, err)
		}
	}
	if err := mgr.Start(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("run the hub's controllers: %w", err)
	}
	return nil
}

// cache leaves out the Agents of other hubs, and what only the API server needs.
func (c *Config) cache() cache.Options {
	return cache.Options{ByObject: map[client.Object]cache.ByObject{
		&v1alpha1.Agent{}: {
			Field:     fields.OneTermEqualSelector("metadata.name", c.SourceID),
			Transform: cache.TransformStripManagedFields(),
		},
	}}
}

// namespace is where the replicas compete for the lease, and where the source
// keeps its lifetime. Outside a pod there is no namespace to be in, so it is one
// that every API server has.
func (c *Config) namespace() (string, error) {
	if c.LeaderElectionNamespace != "" {
		return c.LeaderElectionNamespace, nil
	}
	const inPod = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
	name, err := os.ReadFile(inPod)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return metav1.NamespaceDefault, nil
	case err != nil:
		return "", fmt.Errorf("find the pod's namespace; --leader-election-namespace says it, too: %w", err)
	}
	return strings.TrimSpace(string(name)), nil
}

// A part is one of the hub's jobs, added to the manager before it starts.
type part struct {
	name string
	add  func(ctx context.Context, mgr manager.Manager, h *health) error
}

// parts lists all that a hub does.
func (c *Config) parts() []part {
	return []part{
		{"the dispatcher of works and the expiry of finished ones", c.addDispatcher},
	}
}

func serving(address string) bool { return address != "" && address != "0" }

func orNone(address string) string {
	if !serving(address) {
		return "0"
	}
	return address
}

// ignoreClosed turns the end of a closed server into no error.
func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
