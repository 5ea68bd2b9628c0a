package agents

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
	"github.com/fleetcast-io/fleetcast/pkg/queue"
)

// Options tune an Agent. The zero value works but for Sources.
type Options struct {
	// Sources are the IDs of the sources whose works this agent takes. At least
	// one is required; an event of any other is dropped and counted.
	Sources []string

	// ID is how the agent signs its reports (CloudEvents source). Default: the
	// cluster's name with "-work-agent".
	ID string

	// Workers is how many works are applied at the same time. Default 10.
	Workers int

	// StatusInterval is how often works are looked at when nothing tells that
	// they changed (OCM: status-sync-interval). Default one minute; jittered up
	// to twice that.
	StatusInterval time.Duration

	// ApplyInterval is how often works are applied again although nothing
	// changed, in case a watch missed something. Default ten minutes; jittered
	// up to twice that.
	ApplyInterval time.Duration

	// ResyncInterval is how often this agent compares with its sources what it
	// has of their works, beside each time the broker is reached. Default ten
	// minutes; jittered up to twice that.
	ResyncInterval time.Duration

	// Quiet is how long changes must have paused until the digest of what came
	// of them is sent, to sources that know digests. Changes that do not pause
	// put it off up to six times that. Default ten seconds.
	Quiet time.Duration

	// HeartbeatInterval is after how long without another event the agent shows
	// those sources that it is there. They take an agent for offline after 150
	// seconds. Default one minute.
	HeartbeatInterval time.Duration

	// Instance names this start of the agent, and keys its digests. It must be
	// random and used once: see NewInstance. Default: drawn by New.
	Instance digest.Key

	// TombstoneAge is how long the agent remembers that a work was deleted, to
	// withstand late copies of it. Default 30 days.
	TombstoneAge time.Duration

	// Log is where the agent tells what it does. Default: nowhere.
	Log *slog.Logger

	// Now is the clock, for tests. Default time.Now.
	Now func() time.Time
}

func (o Options) withDefaults(cluster string) Options {
	orDuration := func(d *time.Duration, otherwise time.Duration) {
		if *d <= 0 {
			*d = otherwise
		}
	}
	orDuration(&o.StatusInterval, time.Minute)
	orDuration(&o.ApplyInterval, 10*time.Minute)
	orDuration(&o.ResyncInterval, 10*time.Minute)
	orDuration(&o.Quiet, 10*time.Second)
	orDuration(&o.HeartbeatInterval, time.Minute)
	orDuration(&o.TombstoneAge, 30*24*time.Hour)
	if o.ID == "" {
		o.ID = cluster + "-work-agent"
	}
	if o.Instance == (digest.Key{}) {
		o.Instance = NewInstance()
	}
	if o.Workers <= 0 {
		o.Workers = 10
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// An Agent runs the works of one cluster. Make one with New.
type Agent struct {
	cluster    string
	o          Options
	log        *slog.Logger
	applier    Applier
	transport  brokers.Transport
	compressor *codec.Compressor
	unpacked   *semaphore.Weighted // Bytes, see maxUnpacked.

	state     *state
	work      *queue.Queue[string, string]   // Works to apply, by source and ID.
	outbox    *queue.Queue[string, outgoing] // What is to be sent, by source.
	dialogues map[string]*dialogue           // By source. The map does not change.

	listening atomic.Bool

	// overAge says since when tombstones are over age. Only the state's mutations
	// touch it.
	overAge map[Key]time.Time

	mu   sync.Mutex
	seen map[string]bool // Drop reasons that were told already.
	full map[Key]bool    // Queued works that are to be applied, not only looked at.
	// arrived says when the version of a work came that is not applied yet.
	arrived map[Key]arrival
	// greetings are the sources reached anew and not asked since.
	greetings map[string]bool
	// answered are the questions of sources that were answered last, the latest
	// at the end.
	answered []question
	// plainUntil says until when sources are not told that compressed works are
	// read.
	plainUntil map[string]time.Time
	// compressed are the reports that went out so and were not confirmed.
	compressed map[Key]codec.Sequence
}

// New returns the agent of one cluster. It reads the store, which it then owns
// until Run returns.
func New(cluster string, store Store, applier Applier, t brokers.Transport, o Options) (*Agent, error) {
	if cluster == "" {
		return nil, errors.New("new agent: the cluster has no name")
	}
	if len(o.Sources) == 0 || slices.Contains(o.Sources, "") || slices.Contains(o.Sources, brokers.Any) {
		return nil, fmt.Errorf("new agent of cluster %s: name the sources to take works from", cluster)
	}
	o = o.withDefaults(cluster)
	s, err := newState(store, o.Instance, o.Now)
	if err != nil {
		return nil, fmt.Errorf("new agent of cluster %s: %w", cluster, err)
	}
	a := &Agent{
		cluster: cluster, o: o, log: o.Log, applier: applier, transport: t,
		compressor: codec.NewCompressor(),
		unpacked:   semaphore.NewWeighted(maxUnpacked),
		state:      s,
		work:       queue.New[string, string](queue.Options{}),
		outbox:     queue.New[string, outgoing](queue.Options{}),
		dialogues:  map[string]*dialogue{},
		overAge:    map[Key]time.Time{},
		seen:       map[string]bool{},
		full:       map[Key]bool{},
		arrived:    map[Key]arrival{},
		greetings:  map[string]bool{},
		plainUntil: map[string]time.Time{},
		compressed: map[Key]codec.Sequence{},
	}
	for _, source := range o.Sources {
		a.dialogues[source] = newDialogue(source, s.peer(source).digests(), o)
	}
	s.changed = func(source string) {
		if d, ok := a.dialogues[source]; ok {
			d.change(time.Now())
		}
	}
	return a, nil
}

// Changed says that something of a work changed on the cluster, so that it is
// applied again soon. It does not block, and may be called before Run.
func (a *Agent) Changed(source, id string) { a.apply(Key{source, id}) }

// Listening says whether the agent's subscription is established right now. An
// agent that is not listening goes on with what it has.
func (a *Agent) Listening() bool { return a.listening.Load() }

// Healthy says what keeps the agent from keeping what it is told: the error of
// the last write to its store, or nil. Until that is over, works stay with the
// broker, and what becomes of those that the agent has is not reported. The
// store is tried again every ten seconds.
func (a *Agent) Healthy() error { return a.state.healthy() }

// Run works until ctx ends, and returns nil then. It starts with what the store
// holds, whether or not the broker can be reached. It ends with a goodbye to the
// sources, which takes two seconds at most. An error is one that waiting does not
// cure.
func (a *Agent) Run(ctx context.Context) error {
	a.prepare()
	// Reports of the last applications are still to be committed when the
	// workers have ended, so the state outlives them.
	stateCtx, stopState := context.WithCancel(context.WithoutCancel(ctx))
	var committing sync.WaitGroup
	committing.Go(func() { a.state.run(stateCtx) })
	defer func() {
		stopState()
		committing.Wait()
	}()

	g, ctx := errgroup.WithContext(ctx)
	for range a.o.Workers {
		g.Go(func() error { a.runWorks(ctx); return nil })
	}
	for range a.o.Workers {
		g.Go(func() error { a.runOutbox(ctx); return nil })
	}
	g.Go(func() error { a.runTicks(ctx); return nil })
	for _, d := range a.dialogues {
		g.Go(func() error { a.converse(ctx, d); return nil })
	}
	g.Go(func() error { return a.subscribe(ctx) })
	err := g.Wait()
	a.leave(ctx)
	if err != nil {
		return fmt.Errorf("agent of cluster %s: %w", a.cluster, err)
	}
	return nil
}

// prepare queues what the store says is to be done.
func (a *Agent) prepare() {
	works, gone, unsent := 0, 0, 0
	unserved := map[string]int{}
	a.state.each(func(k Key, r *Record) {
		if _, served := a.dialogues[k.Source]; !served && !r.Gone() {
			unserved[k.Source]++
		}
		if r.Gone() {
			gone++
		} else {
			works++
			a.apply(k)
		}
	})
	a.state.unsent(func(k Key) {
		unsent++
		a.queueReport(k)
	})
	a.log.Info("agent starts with what it holds", "works", works, "unsent_reports", unsent, "tombstones", gone)
	for source, n := range unserved {
		a.log.Warn("agent holds works of a source that it is not told to serve: they stay, and their reports wait until it is",
			"source", source, "works", n)
	}
}

// runTicks looks at works, asks for resyncs and forgets old tombstones, each in
// its own time.
func (a *Agent) runTicks(ctx context.Context) {
	jittered := func(d time.Duration) *time.Timer { return time.NewTimer(d + rand.N(d)) }
	status, again := jittered(a.o.StatusInterval), jittered(a.o.ApplyInterval)
	resync, forget := jittered(a.o.ResyncInterval), jittered(time.Hour)
	for _, t := range []*time.Timer{status, again, resync, forget} {
		defer t.Stop()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-status.C:
			a.each(a.look)
			status.Reset(a.o.StatusInterval + rand.N(a.o.StatusInterval))
		case <-again.C:
			a.each(a.apply)
			again.Reset(a.o.ApplyInterval + rand.N(a.o.ApplyInterval))
		case <-resync.C:
			a.askAll()
			resync.Reset(a.o.ResyncInterval + rand.N(a.o.ResyncInterval))
		case <-forget.C:
			a.forgetTombstones(time.Now())
			forget.Reset(time.Hour + rand.N(time.Hour))
		}
	}
}

// each calls f for the works that are not gone.
func (a *Agent) each(f func(Key)) {
	a.state.each(func(k Key, r *Record) {
		if !r.Gone() {
			f(k)
		}
	})
}

// apply queues the work to be applied or deleted.
func (a *Agent) apply(k Key) {
	a.demand(k)
	a.work.Add(k.Source, k.ID)
}

// demand notes that the work's next turn is an application.
func (a *Agent) demand(k Key) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.full[k] = true
}

// demanded takes that note.
func (a *Agent) demanded(k Key) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	full := a.full[k]
	delete(a.full, k)
	return full
}

// look queues the work to be observed, unless it is to be applied anyway.
func (a *Agent) look(k Key) {
	r := a.state.get(k)
	if r == nil || r.Report.ID == "" || r.Bundle.Deleting() {
		return // Whoever applies or deletes it looks at it, too.
	}
	a.work.Add(k.Source, k.ID)
}

// reprieve is how long a tombstone that is over age is kept. A clock that jumps
// ahead would have all of them forgotten at once, and late copies would bring
// works back until the next comparison. Clocks that jump are set right within a
// day, as a rule.
const reprieve = 24 * time.Hour

// forgetTombstones drops those that have been over age for the reprieve, by the
// time that this process has run.
func (a *Agent) forgetTombstones(now time.Time) {
	a.state.change(mutation{decide: func(d *draft) {
		for _, k := range d.keys() {
			r := d.get(k)
			if !r.Gone() || r.Unsent || a.o.Now().Sub(r.GoneAt) <= a.o.TombstoneAge {
				delete(a.overAge, k)
				continue
			}
			since, known := a.overAge[k]
			switch {
			case !known:
				a.overAge[k] = now
			case now.Sub(since) >= reprieve:
				d.put(k, nil)
			}
		}
	}, done: func(err error) {
		if err != nil {
			return
		}
		for k := range a.overAge {
			if a.state.get(k) == nil {
				delete(a.overAge, k)
			}
		}
	}})
}

// report completes what an applier said.
func (a *Agent) report(r codec.Report, s codec.Sequence) codec.Report {
	r.Agent, r.Sequence = a.o.ID, s
	return r
}
