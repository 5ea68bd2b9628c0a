package sources

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/queue"
)

// Options tune a Dispatcher. The zero value works.
type Options struct {
	// Workers is how many works are read and published at a time, and so the
	// most events that wait for the broker's confirmation. More than the
	// broker's own window only waits there. Default 128.
	Workers int

	// ReportWorkers is how many calls of Source.Report run at a time.
	// Default 32.
	ReportWorkers int

	// CompareInterval is about how often every cluster is compared with the
	// source while nothing else gives a reason to. Each pass costs one question
	// per cluster that lists the status hashes of its works. Default 10 minutes.
	CompareInterval time.Duration

	// ComparePause is the shortest time between two comparisons with the same
	// cluster that it did not ask for. Default 2 seconds.
	ComparePause time.Duration

	// AnswerPause is the shortest time between two answers to questions of the
	// same cluster, so that one that asks in a loop costs little. A cluster that
	// was not answered for so long is answered at once. Default 15 seconds.
	AnswerPause time.Duration

	// Log is where the dispatcher tells what an operator acts on. Default:
	// nowhere.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Workers <= 0 {
		o.Workers = 128
	}
	if o.ReportWorkers <= 0 {
		o.ReportWorkers = 32
	}
	if o.CompareInterval <= 0 {
		o.CompareInterval = 10 * time.Minute
	}
	if o.ComparePause <= 0 {
		o.ComparePause = 2 * time.Second
	}
	if o.AnswerPause <= 0 {
		o.AnswerPause = 15 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// A Dispatcher moves the works of one Source to their clusters and hands the
// clusters' reports to it. Make one with NewDispatcher and call Run once. Only
// one dispatcher may run for a source ID at any time.
type Dispatcher struct {
	id        string
	source    *guard
	transport brokers.Transport
	options   Options
	log       *slog.Logger
	once      notes
	metrics   *metrics

	gate     gate
	works    *queue.Queue[string, Key]
	reports  *queue.Queue[string, Key]
	clusters *queue.Queue[string, struct{}]
	outcomes *queue.Queue[string, Key]
	ready    chan struct{} // Holds one value while a pass over all clusters is due.

	mu       sync.Mutex
	down     error                     // Why no session is established; nil if one is.
	sessions int                       // How many were established.
	answers  map[string]*answer        // Under way, by cluster.
	refused  map[Key]refusal           // Works that cannot be sent.
	untold   map[Key]outcome           // What a Refuser shall hear.
	pending  map[Key]*pendingReport    // Reports not taken by a worker yet.
	owed     map[string]*owedToCluster // Comparisons that clusters wait for.
}

var errNoSession = errors.New("no session with the broker yet")

// NewDispatcher returns a dispatcher for the works of src, published as
// sourceID over t. It does nothing before Run.
func NewDispatcher(sourceID string, src Source, t brokers.Transport, o Options) *Dispatcher {
	o = o.withDefaults()
	d := &Dispatcher{
		id:        sourceID,
		source:    &guard{source: src},
		transport: t,
		options:   o,
		log:       o.Log.With("source", sourceID),
		works:     queue.New[string, Key](queue.Options{}),
		reports:   queue.New[string, Key](queue.Options{}),
		clusters:  queue.New[string, struct{}](queue.Options{}),
		outcomes:  queue.New[string, Key](queue.Options{}),
		ready:     make(chan struct{}, 1),
		down:      errNoSession,
		answers:   map[string]*answer{},
		refused:   map[Key]refusal{},
		untold:    map[Key]outcome{},
		pending:   map[Key]*pendingReport{},
		owed:      map[string]*owedToCluster{},
	}
	d.once.log = d.log
	d.metrics = newMetrics(d)
	d.source.refuser, _ = src.(Refuser)
	d.source.log, d.source.panics = d.log, d.metrics.panics
	return d
}

// Changed says that a work of the source is new, changed or deleted. It
// returns at once, and may be called before Run and from any goroutine.
func (d *Dispatcher) Changed(k Key) { d.works.Add(k.Cluster, k) }

// Ready returns nil while the subscription to reports is established, and
// otherwise why it is not.
func (d *Dispatcher) Ready() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.down
}

// Run dispatches until ctx ends, and then returns nil. It returns an error only
// if the transport is closed or cannot take the source ID. What was not settled
// by then stays with the broker.
func (d *Dispatcher) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	d.gate.shut(d.gate.epoch()) // Opens with the first session.
	defer d.gate.stop()

	group.Go(func() error { return d.subscribe(ctx) })
	workers := func(n int, work func(context.Context)) {
		for range n {
			group.Go(func() error { work(ctx); return nil })
		}
	}
	workers(d.options.Workers, d.publishWorks)
	workers(d.options.ReportWorkers, d.takeReports)
	workers(min(d.options.Workers, compareWorkers), d.compareClusters)
	workers(1, d.scheduleComparisons)
	if d.source.refuser != nil {
		workers(outcomeWorkers, d.tellOutcomes)
	}
	return group.Wait()
}

func (d *Dispatcher) subscribe(ctx context.Context) error {
	err := d.transport.Subscribe(ctx, brokers.Subscription{
		Filters: []brokers.Filter{
			{Lane: brokers.ToSource, Source: d.id, Cluster: brokers.Any},
			{Lane: brokers.ToAllSources, Cluster: brokers.Any},
		},
		Handle: d.handle,
		Ready:  d.established,
		Down:   d.lost,
	})
	if err != nil {
		return fmt.Errorf("subscribe to the reports for source %s: %w", d.id, err)
	}
	return nil
}

// established opens the way for publishing and has every cluster compared, even
// when the broker resumed the session: queues overflow, and a comparison costs
// little.
func (d *Dispatcher) established(s brokers.Session) {
	d.mu.Lock()
	d.down = nil
	d.sessions++
	d.mu.Unlock()
	d.log.Debug("session with the broker established", "resumed", s.Resumed)
	d.gate.open()
	select {
	case d.ready <- struct{}{}:
	default:
	}
}

func (d *Dispatcher) lost(reason error) {
	d.mu.Lock()
	d.down = fmt.Errorf("session with the broker lost: %w", reason)
	d.mu.Unlock()
}

// action is what the type of a bundle's event says. Nobody branches on it.
func action(b codec.Bundle, answer bool) codec.Action {
	switch {
	case answer:
		return codec.ResyncResponse
	case b.Deleting():
		return codec.Delete
	case b.Generation == 1:
		return codec.Create
	default:
		return codec.Update
	}
}
