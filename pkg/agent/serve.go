package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers/mqtt"
	"github.com/fleetcast-io/fleetcast/brokers/nats"
)

func serving(address string) bool { return address != "" && address != "0" }

// newRegistry returns a registry with the metrics of everything that an agent
// is made of, but for the applier's, which registers its own.
func newRegistry() (*prometheus.Registry, error) {
	registry := prometheus.NewRegistry()
	all := slices.Concat(
		agents.Collectors(), mqtt.Collectors(), nats.Collectors(),
		[]prometheus.Collector{
			collectors.NewGoCollector(),
			collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
			collectors.NewBuildInfoCollector(),
		},
	)
	if err := register(registry, all...); err != nil {
		return nil, err
	}
	return registry, nil
}

func register(registry *prometheus.Registry, all ...prometheus.Collector) error {
	for _, c := range all {
		if err := registry.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

// A condition is what an agent is ready by.
type condition interface {
	Listening() bool
	Healthy() error
}

// ready says what keeps the agent from taking works, or nil.
func ready(a condition) error {
	if err := a.Healthy(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if !a.Listening() {
		return errors.New("broker: not connected")
	}
	return nil
}

// handler answers /metrics, /livez and /readyz. Live is the process; ready is
// that the broker delivers, and that the store takes what it delivers. An agent
// that is not ready still does its work, so nothing should restart it for that.
func handler(registry *prometheus.Registry, ready func() error) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// serve answers HTTP requests until ctx ends.
func serve(ctx context.Context, address string, h http.Handler) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen on --metrics-bind-address %s: %w", address, err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", address, err)
	}
	return nil
}
