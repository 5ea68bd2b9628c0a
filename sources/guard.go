package sources

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetcast-io/fleetcast/codec"
)

// A guard is a source whose panics are errors: a panic costs the key that was
// asked for its turn, and no other key anything.
type guard struct {
	source Source
	// What else source is; nil if it is not.
	refuser  Refuser
	lifetime Lifetime
	roster   Roster
	noter    Noter

	log    *slog.Logger
	panics prometheus.Counter
}

// guarded returns the guard of a source.
func guarded(s Source, log *slog.Logger, panics prometheus.Counter) *guard {
	g := &guard{source: s, log: log, panics: panics}
	g.refuser, _ = s.(Refuser)
	g.lifetime, _ = s.(Lifetime)
	g.roster, _ = s.(Roster)
	g.noter, _ = s.(Noter)
	return g
}

// recovered is deferred. It makes an error of a panic.
func (g *guard) recovered(what string, k Key, err *error) {
	p := recover()
	if p == nil {
		return
	}
	g.panics.Inc()
	g.log.Error("source panicked", "call", what, "cluster", k.Cluster, "id", k.ID, "panic", p, "stack", string(debug.Stack()))
	*err = fmt.Errorf("%s: panic: %v", what, p)
}

// Bundle implements Source.
func (g *guard) Bundle(ctx context.Context, k Key) (b codec.Bundle, held bool, err error) {
	defer g.recovered("read work", k, &err)
	return g.source.Bundle(ctx, k)
}

// heldTimeout bounds how long one cluster may take a worker that others wait for.
const heldTimeout = 30 * time.Second

// Held implements Source. It gives up after a while.
func (g *guard) Held(ctx context.Context, cluster string) (held []Held, err error) {
	ctx, cancel := context.WithTimeout(ctx, heldTimeout)
	defer cancel()
	defer g.recovered("list works", Key{Cluster: cluster}, &err)
	return g.source.Held(ctx, cluster)
}

// Clusters implements Source.
func (g *guard) Clusters(ctx context.Context) (clusters []string, err error) {
	defer g.recovered("list clusters", Key{}, &err)
	return g.source.Clusters(ctx)
}

// Report implements Source.
func (g *guard) Report(ctx context.Context, r codec.Report) (verdict Verdict, err error) {
	defer g.recovered("save report", Key{Cluster: r.Cluster, ID: r.ID}, &err)
	return g.source.Report(ctx, r)
}

// Refused implements Refuser.
func (g *guard) Refused(ctx context.Context, k Key, generation int64, reason error) (err error) {
	defer g.recovered("note outcome", k, &err)
	return g.refuser.Refused(ctx, k, generation, reason)
}

// Begin implements Lifetime.
func (g *guard) Begin(ctx context.Context, above int64) (epoch string, term int64, err error) {
	defer g.recovered("begin", Key{}, &err)
	return g.lifetime.Begin(ctx, above)
}

// Agents implements Roster.
func (g *guard) Agents(ctx context.Context) (agents []AgentState, err error) {
	defer g.recovered("list agents", Key{}, &err)
	return g.roster.Agents(ctx)
}

// SaveAgent implements Roster.
func (g *guard) SaveAgent(ctx context.Context, s AgentState) (err error) {
	defer g.recovered("save agent", Key{Cluster: s.Cluster}, &err)
	return g.roster.SaveAgent(ctx, s)
}

// Dropped implements Noter.
func (g *guard) Dropped(ctx context.Context, k Key, reason string, why error) (err error) {
	defer g.recovered("note drop", k, &err)
	return g.noter.Dropped(ctx, k, reason, why)
}
