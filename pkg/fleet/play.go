package fleet

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// A Broker is one that the simulation may stop and start. Its address stays.
type Broker interface {
	// Stop ends it in an orderly way, Kill at once; Start starts it again on
	// what it kept, which Wipe deletes while it is down.
	Stop() error
	Kill() error
	Wipe() error
	Start(ctx context.Context) error
	// PID is its process's, 0 while it is down.
	PID() int
}

var errNoBroker = errors.New("this step needs a broker that the simulation started, not one given by its URL")

// Play has the fleet go through one step, and says what it came to. broker is
// nil if it is somebody else's. One step is played at a time.
func (f *Fleet) Play(ctx context.Context, s Step, number int, broker Broker) (Result, error) {
	if s.needsBroker() && broker == nil {
		return Result{}, fmt.Errorf("%s: %w", s.Do, errNoBroker)
	}
	before := f.measure(broker)
	f.ledger.reset()
	works, err := f.play(ctx, s, strconv.Itoa(number), broker)
	if err == nil {
		err = f.Await(ctx)
	}
	var proof Proof
	if err == nil {
		proof, err = f.prove(ctx)
	}
	r := f.result(s, works, before, f.measure(broker))
	r.Proof = proof
	if err != nil {
		return r, fmt.Errorf("%s: %w", s.Do, err)
	}
	return r, nil
}

// prove waits until both ends are equal: a cluster may lose something just when
// it is summed up.
func (f *Fleet) prove(ctx context.Context) (Proof, error) {
	var p Proof
	err := poll(ctx, "both ends are equal", func() error {
		var err error
		if p, err = f.Prove(ctx); err != nil {
			return err
		}
		if p.Different > 0 {
			return fmt.Errorf("%d clusters are not: %v", p.Different, p.Examples)
		}
		return nil
	})
	return p, err
}

// play does what the step says, and returns how many works it made.
func (f *Fleet) play(ctx context.Context, s Step, version string, broker Broker) (int, error) {
	switch s.Do {
	case Load:
		return f.Put(ctx, version, All)
	case Change:
		if s.Share == 0 || s.Share == 1 {
			return f.Put(ctx, version, All)
		}
		return f.Put(ctx, version, Share(s.Share, f.o.Seed))
	case Roll:
		return f.roll(ctx, s, version)
	case RestartBroker:
		if err := broker.Stop(); err != nil {
			return 0, err
		}
		return 0, f.broughtBack(ctx, s, broker.Start)
	case WipeBroker:
		if err := errors.Join(broker.Kill(), broker.Wipe()); err != nil {
			return 0, err
		}
		return 0, f.broughtBack(ctx, s, broker.Start)
	case RestartHub:
		if err := f.StopHub(); err != nil {
			return 0, err
		}
		return 0, f.broughtBack(ctx, s, f.StartHub)
	case Away:
		return f.away(ctx, s, version)
	case Idle:
		return 0, sleep(ctx, s.For.Duration)
	}
	return 0, fmt.Errorf("there is no action %q", s.Do)
}

// broughtBack starts again what is away, and waits until the hub knows of every
// cluster that it has what it shall.
func (f *Fleet) broughtBack(ctx context.Context, s Step, start func(context.Context) error) error {
	if err := sleep(ctx, s.For.Duration); err != nil {
		return err
	}
	since := time.Now()
	if err := start(ctx); err != nil {
		return err
	}
	return f.awaitSync(ctx, since)
}

// roll makes a new version of all works, wave by wave.
func (f *Fleet) roll(ctx context.Context, s Step, version string) (int, error) {
	waves := s.Waves
	if waves == 0 {
		waves = 10
	}
	total := 0
	for wave := range waves {
		n, err := f.Put(ctx, version, func(cluster, _ int) bool { return cluster%waves == wave })
		total += n
		if err != nil {
			return total, err
		}
		if err := f.Await(ctx); err != nil {
			return total, err
		}
	}
	return total, nil
}

// away stops agents, changes their works, and starts all of them at once.
func (f *Fleet) away(ctx context.Context, s Step, version string) (int, error) {
	goes := func(int) bool { return true }
	if s.Share > 0 && s.Share < 1 {
		chosen := Share(s.Share, f.o.Seed)
		goes = func(cluster int) bool { return chosen(cluster, 0) }
	}
	var group errgroup.Group
	for i, m := range f.members {
		if goes(i) {
			group.Go(m.stop)
		}
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	n, err := f.Put(ctx, version, func(cluster, _ int) bool { return goes(cluster) })
	if err != nil {
		return n, err
	}
	if err := sleep(ctx, s.For.Duration); err != nil {
		return n, err
	}
	back, joining := errgroup.WithContext(ctx)
	for i, m := range f.members {
		if goes(i) {
			back.Go(func() error { return m.start(joining) })
		}
	}
	return n, back.Wait()
}

// awaitSync waits until the hub has told every cluster, since then, that it
// holds what the hub holds.
func (f *Fleet) awaitSync(ctx context.Context, since time.Time) error {
	return poll(ctx, "the hub has confirmed every cluster's digest", func() error {
		if n := f.tally.matchedSince(since); n < len(f.members) {
			return fmt.Errorf("%d of %d are confirmed", n, len(f.members))
		}
		return nil
	})
}

// measure reads what the processes took so far.
func (f *Fleet) measure(broker Broker) usage {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u := usage{
		at: time.Now(), self: processUsage("self"), mallocs: m.Mallocs, heap: m.HeapAlloc,
		toClusters: f.tally.toClusters.now(), toHub: f.tally.toHub.now(),
	}
	if broker != nil && broker.PID() > 0 {
		u.broker = processUsage(strconv.Itoa(broker.PID()))
	}
	return u
}
