package sources

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetcast-io/fleetcast/codec"
)

// A guard is a source whose panics are errors: a panic costs the key that was
// asked for its turn, and no other key anything.
type guard struct {
	source  Source
	refuser Refuser // Nil if source is none.
	log     *slog.Logger
	panics  prometheus.Counter
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

// Held implements Source.
func (g *guard) Held(ctx context.Context, cluster string) (held []Held, err error) {
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
