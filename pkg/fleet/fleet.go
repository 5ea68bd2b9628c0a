package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/drivers"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/memory"
)

// SourceID is the source that all works of a fleet come from.
const SourceID = "hub1"

// Options describe a fleet. Clusters, Works and Broker are required.
type Options struct {
	// Clusters is how many there are, Works how many each of them has.
	Clusters, Works int
	// Size is about how many bytes the payload of a work has. Default 1,500,
	// which makes events of about two kilobytes.
	Size int
	// Broker is the URL of the broker.
	Broker string
	// Behaviour is that of every cluster.
	Behaviour Behaviour
	// Seed decides what is drawn: contents, delays, failures, drift.
	Seed uint64
	// Joining is how many agents connect at the same time at first. Default 64.
	Joining int
	// StateDir holds a file per agent, as real agents have it. Default: agents
	// keep their state in memory, which leaves out their disk.
	StateDir string
	// Log is where both ends tell what an operator acts on. Default: nowhere.
	Log *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	switch {
	case o.Clusters < 1:
		return o, fmt.Errorf("%d clusters: there must be one at least", o.Clusters)
	case o.Works < 0:
		return o, fmt.Errorf("%d works for each cluster: must not be negative", o.Works)
	case o.Size < 0:
		return o, fmt.Errorf("works of %d bytes: must not be negative", o.Size)
	case o.Broker == "":
		return o, errors.New("there is no broker")
	}
	if err := o.Behaviour.validate(); err != nil {
		return o, err
	}
	o.Size = cmp.Or(o.Size, 1500)
	o.Joining = cmp.Or(o.Joining, 64)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	return o, nil
}

// A Fleet is one hub and its clusters. Make one with New; methods may be called
// concurrently unless they say otherwise.
type Fleet struct {
	o       Options
	source  *memory.Source
	ledger  *ledger
	tally   *tally
	members []*member

	ctx     context.Context
	cancel  context.CancelFunc
	started time.Time

	mu  sync.Mutex
	hub *running // Nil while the hub is away.
}

// running is something that can be ended and waited for.
type running struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // After done.
}

func run(ctx context.Context, f func(context.Context) error) *running {
	ctx, cancel := context.WithCancel(ctx)
	r := &running{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = f(ctx)
	}()
	return r
}

func (r *running) stop() error {
	r.cancel()
	<-r.done
	return r.err
}

// New returns a fleet that does nothing yet.
func New(o Options) (*Fleet, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("set up the fleet: %w", err)
	}
	f := &Fleet{o: o, source: memory.New(SourceID), ledger: newLedger(), tally: &tally{matched: map[string]time.Time{}}}
	for i := range o.Clusters {
		f.members = append(f.members, newMember(f, i))
	}
	return f, nil
}

// Start connects the hub and all clusters, and returns when every agent
// listens. progress, if not nil, is told how many do.
func (f *Fleet) Start(ctx context.Context, progress func(listening int)) error {
	f.ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	f.started = time.Now()
	if err := f.StartHub(ctx); err != nil {
		return err
	}
	var joined counter
	group, joining := errgroup.WithContext(ctx)
	group.SetLimit(f.o.Joining)
	for _, m := range f.members {
		group.Go(func() error {
			if err := m.start(joining); err != nil {
				return err
			}
			if n := joined.add(); progress != nil {
				progress(n)
			}
			return nil
		})
	}
	return group.Wait()
}

// StartHub starts the hub's dispatcher and waits until it has a session.
func (f *Fleet) StartHub(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hub != nil {
		return errors.New("start the hub: it runs already")
	}
	transport, err := f.open(brokers.RoleSource, SourceID)
	if err != nil {
		return fmt.Errorf("start the hub: %w", err)
	}
	d := sources.NewDispatcher(SourceID, ledgered{f.source, f.ledger}, transport, sources.Options{Log: f.o.Log})
	f.source.Notify(d.Changed)
	f.hub = run(f.ctx, func(ctx context.Context) error {
		err := d.Run(ctx)
		return errors.Join(err, closeTransport(transport))
	})
	return poll(ctx, "the hub has a session with the broker", d.Ready)
}

// StopHub ends the hub's dispatcher. The works stay.
func (f *Fleet) StopHub() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hub == nil {
		return nil
	}
	f.source.Notify(nil)
	err := f.hub.stop()
	f.hub = nil
	if err != nil {
		return fmt.Errorf("stop the hub: %w", err)
	}
	return nil
}

// Close ends agents and hub, and waits for them.
func (f *Fleet) Close() error {
	if f.cancel == nil {
		return nil
	}
	var errs []error
	var group errgroup.Group
	for _, m := range f.members {
		group.Go(m.stop)
	}
	errs = append(errs, group.Wait(), f.StopHub())
	f.cancel()
	return errors.Join(errs...)
}

func (f *Fleet) open(role brokers.Role, name string) (brokers.Transport, error) {
	t, err := drivers.All.Open(f.ctx, f.o.Broker, brokers.Config{Role: role, Name: name, Log: f.o.Log})
	if err != nil {
		return nil, err
	}
	return counted{t, f.tally, role}, nil
}

// closing bounds a goodbye to the broker.
const closing = 10 * time.Second

func closeTransport(t brokers.Transport) error {
	ctx, cancel := context.WithTimeout(context.Background(), closing)
	defer cancel()
	if err := t.Close(ctx); err != nil && !errors.Is(err, brokers.ErrClosed) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// poll waits until ready returns nil. What it last said is in the error.
func poll(ctx context.Context, what string, ready func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w; %w", what, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// A member is one cluster with its agent.
type member struct {
	f       *Fleet
	name    string
	cluster *cluster

	mu     sync.Mutex
	agent  *running         // Nil while the agent is away.
	memory *agents.Volatile // Nil if the agent's state is on disk.
}

func newMember(f *Fleet, i int) *member {
	m := &member{f: f, name: fmt.Sprintf("cluster-%06d", i)}
	m.cluster = newCluster(f.o.Behaviour, f.o.Seed, uint64(i)) //nolint:gosec // Not negative.
	return m
}

var errNotListening = errors.New("its subscription is not established")

// start starts the agent and waits until it listens.
func (m *member) start(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.agent != nil {
		return nil
	}
	store, err := m.store()
	if err != nil {
		return fmt.Errorf("start the agent of %s: %w", m.name, err)
	}
	transport, err := m.f.open(brokers.RoleAgent, m.name)
	if err != nil {
		return fmt.Errorf("start the agent of %s: %w", m.name, err)
	}
	a, err := agents.New(m.name, store, m.cluster, transport, agents.Options{
		Sources: []string{SourceID}, Workers: 2, Log: m.f.o.Log.With("cluster", m.name),
	})
	if err != nil {
		return errors.Join(err, closeTransport(transport), store.Close())
	}
	m.agent = run(m.f.ctx, func(ctx context.Context) error {
		stop := m.cluster.live(ctx, a.Changed)
		defer stop()
		return errors.Join(a.Run(ctx), closeTransport(transport), store.Close())
	})
	return poll(ctx, "the agent of "+m.name+" listens", func() error {
		if !a.Listening() {
			return errNotListening
		}
		return nil
	})
}

// stop ends the agent as SIGTERM does. Its state stays.
func (m *member) stop() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.agent == nil {
		return nil
	}
	err := m.agent.stop()
	m.agent = nil
	if err != nil {
		return fmt.Errorf("stop the agent of %s: %w", m.name, err)
	}
	return nil
}
