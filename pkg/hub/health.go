package hub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/healthz"
)

// health answers /livez, which is the process alone, and /readyz, which is what
// the hub depends on. Nothing should restart a hub that is not ready: it waits
// for something that a restart does not bring.
type health struct {
	mu     sync.Mutex
	checks map[string]healthz.Checker
}

// Names of checks that there are from the start.
const (
	checkCRDs  = "crds"
	checkWorks = "works"
)

// checkPolicies is there if the hub installs policies.
const checkPolicies = "policies"

func newHealth() *health {
	h := &health{checks: map[string]healthz.Checker{}}
	h.set(checkCRDs, errors.New("the API server was not asked yet"))
	h.set(checkWorks, errors.New("waiting for the CRDs"))
	return h
}

// add adds a check to /readyz, or replaces the one of that name.
func (h *health) add(name string, check healthz.Checker) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks[name] = check
}

// set gives the check of that name a fixed result.
func (h *health) set(name string, result error) {
	h.add(name, func(*http.Request) error { return result })
}

func (h *health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	checks := maps.Clone(h.checks)
	h.mu.Unlock()
	http.StripPrefix("/readyz", &healthz.Handler{Checks: checks}).ServeHTTP(w, r)
}

// serve answers until ctx ends.
func (h *health) serve(ctx context.Context, address string) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen on --health-probe-bind-address %s: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.Handle("GET /readyz", h)
	mux.Handle("GET /readyz/", h)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := ignoreClosed(server.Serve(listener)); err != nil {
		return fmt.Errorf("serve %s: %w", address, err)
	}
	return nil
}
