package sources

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	workv1 "open-cluster-management.io/api/work/v1"

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
	// per cluster of OCM's that lists the status hashes of its works. Those that
	// know digests send one by themselves, and are asked only if none came for so
	// long. It is also the longest pause between two questions to a cluster that
	// has not shown that it has what was published to it. Default 10 minutes.
	CompareInterval time.Duration

	// ComparePause is the shortest time between two comparisons with the same
	// cluster that it did not ask for, and, for one that knows digests, between
	// two answers to its digests, two looks at its entries and two questions for
	// its digest after something odd. Default 2 seconds.
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
	id         string
	source     *guard
	transport  brokers.Transport
	options    Options
	compressor *codec.Compressor
	log        *slog.Logger
	once       notes
	metrics    *metrics

	noStatus string // The hash of an empty status.

	gate     gate
	works    *queue.Queue[string, Key]
	reports  *queue.Queue[string, Key]
	outcomes *queue.Queue[string, Key]
	// What is keyed by cluster: comparisons of lists, of digests, vigils, what a
	// Roster and what a Noter shall hear.
	clusters, talks, checks, agents, drops *queue.Queue[string, struct{}]

	ready  chan struct{} // Holds one value while a pass over all clusters is due.
	rivals chan struct{} // Holds one value while a higher term is to be answered.
	stop   func()        // Ends dispatching when this hub is fenced.

	mu        sync.Mutex
	down      error     // Why no session is established; nil if one is.
	sessions  int       // How many were established.
	sessionAt time.Time // When the last one was.
	lostAt    time.Time // When it ended; zero if it did not.
	// presentAt is since when there were sessions with short pauses at most: two
	// hubs of one name take the session from each other all the time.
	presentAt time.Time
	askedAll  time.Time // When all clusters were last asked for their digests,
	answersBy time.Time // and when those that did not answer may be asked again.
	fence     fence
	answers   map[string]*answer           // Under way, by cluster.
	refused   map[Key]refusal              // Works that cannot be sent.
	untold    map[Key]outcome              // What a Refuser shall hear.
	unnoted   map[string][]drop            // What a Noter shall hear.
	pending   map[Key]*pendingReport       // Reports not taken by a worker yet.
	owed      map[string]*owedToCluster    // Comparisons that clusters wait for.
	peers     map[string]*peer             // What is known of clusters.
	said      map[string]*talk             // What clusters said of digests.
	vigils    map[string]*vigil            // Proofs that are waited for.
	flights   map[string]map[string]flight // Works not reported on, by cluster and ID.
}

var errNoSession = errors.New("no session with the broker yet")

// NewDispatcher returns a dispatcher for the works of src, published as
// sourceID over t. It does nothing before Run.
func NewDispatcher(sourceID string, src Source, t brokers.Transport, o Options) *Dispatcher {
	o = o.withDefaults()
	perCluster := func() *queue.Queue[string, struct{}] { return queue.New[string, struct{}](queue.Options{}) }
	d := &Dispatcher{
		id:         sourceID,
		transport:  t,
		options:    o,
		compressor: codec.NewCompressor(),
		log:        o.Log.With("source", sourceID),
		works:      queue.New[string, Key](queue.Options{}),
		reports:    queue.New[string, Key](queue.Options{}),
		outcomes:   queue.New[string, Key](queue.Options{}),
		clusters:   perCluster(),
		talks:      perCluster(),
		checks:     perCluster(),
		agents:     perCluster(),
		drops:      perCluster(),
		ready:      make(chan struct{}, 1),
		rivals:     make(chan struct{}, 1),
		stop:       func() {},
		fence:      fence{led: map[int64]string{}},
		down:       errNoSession,
		answers:    map[string]*answer{},
		refused:    map[Key]refusal{},
		untold:     map[Key]outcome{},
		pending:    map[Key]*pendingReport{},
		owed:       map[string]*owedToCluster{},
		unnoted:    map[string][]drop{},
		peers:      map[string]*peer{},
		said:       map[string]*talk{},
		vigils:     map[string]*vigil{},
		flights:    map[string]map[string]flight{},
	}
	d.once.log = d.log
	d.metrics = newMetrics(d)
	d.source = guarded(src, d.log, d.metrics.panics)
	// It holds nothing that cannot be hashed.
	d.noStatus, _ = codec.HashStatus(workv1.ManifestWorkStatus{})
	return d
}

// Changed says that a work of the source is new, changed or deleted. It
// returns at once, and may be called before Run and from any goroutine.
func (d *Dispatcher) Changed(k Key) {
	d.unexcuse(k)
	d.changed(k)
	d.works.Add(k.Cluster, k)
}

// Ready returns nil while the subscription to reports is established, and
// otherwise why it is not. The error wraps ErrFenced when this hub stopped for
// another one; that stays so until Run is called on a new dispatcher.
func (d *Dispatcher) Ready() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.down
}

// Run dispatches until ctx ends, and then returns nil. It returns an error only
// if the transport is closed or cannot take the source ID. What was not settled
// by then stays with the broker. When another hub leads under the same source
// ID, it stops dispatching, closes the transport, says so in Ready, and waits for
// ctx to end.
func (d *Dispatcher) Run(ctx context.Context) error {
	leading, stop := context.WithCancel(ctx)
	defer stop()
	d.stop = stop
	d.gate.shut(d.gate.epoch()) // Opens with the first session.
	defer d.gate.stop()

	if d.prepare(leading) {
		if err := d.dispatch(leading); err != nil {
			return err
		}
	}
	if errors.Is(d.Ready(), ErrFenced) {
		d.leave(ctx)
	}
	<-ctx.Done()
	return nil
}

// leave has a fenced hub let go of the broker, where its session may be the one
// that the hub that leads needs.
func (d *Dispatcher) leave(ctx context.Context) {
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := d.transport.Close(ctx); err != nil {
		d.log.Info("broker connection of a fenced hub did not close in order", "err", err)
	}
}

func (d *Dispatcher) dispatch(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.subscribe(ctx) })
	workers := func(n int, work func(context.Context)) {
		for range n {
			group.Go(func() error { work(ctx); return nil })
		}
	}
	workers(d.options.Workers, d.publishWorks)
	workers(d.options.ReportWorkers, d.takeReports)
	workers(min(d.options.Workers, compareWorkers), d.compareClusters)
	workers(min(d.options.Workers, compareWorkers), d.answerTalks)
	workers(min(d.options.Workers, compareWorkers), d.keepVigils)
	workers(1, d.scheduleComparisons)
	workers(1, d.watchPeers)
	workers(1, d.answerRivals)
	if d.source.refuser != nil {
		workers(outcomeWorkers, d.tellOutcomes)
	}
	if d.source.roster != nil {
		workers(rosterWorkers, d.saveAgents)
	}
	if d.source.noter != nil {
		workers(dropWorkers, d.tellDrops)
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
		Gone:   d.gone,
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
	if d.fence.fenced != nil {
		d.mu.Unlock()
		return
	}
	d.down = nil
	d.sessions++
	d.sessionAt = time.Now()
	if d.presentAt.IsZero() || !d.lostAt.IsZero() && d.sessionAt.Sub(d.lostAt) > awayAfter {
		d.presentAt = d.sessionAt
	}
	d.lostAt = time.Time{}
	d.mu.Unlock()
	d.metrics.sessions.WithLabelValues(strconv.FormatBool(s.Resumed)).Inc()
	d.log.Debug("session with the broker established", "resumed", s.Resumed)
	d.gate.open()
	select {
	case d.ready <- struct{}{}:
	default:
	}
}

func (d *Dispatcher) lost(reason error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fence.fenced != nil {
		return
	}
	if d.lostAt.IsZero() {
		d.lostAt = time.Now()
	}
	d.down = fmt.Errorf("session with the broker lost: %w", reason)
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
