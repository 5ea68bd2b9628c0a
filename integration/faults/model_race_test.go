package faults_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
	"github.com/fleetcast-io/fleetcast/sources"
)

// TestDeleteRacesStatus has the deletion of a work meet the writes of its
// status at both ends, in FLEETCAST_SCHEDULES different orders. Whatever the
// order, the work is gone in the end and stays gone, or, if it was made again
// under its name, the new one is there: nothing is resurrected, nothing is
// stuck.
//
// Both ends are real. They stop wherever the other end, the network, the store
// or the cluster could do something meanwhile, and go on in an order that is
// drawn from a number; FLEETCAST_SCHEDULE repeats one.
func TestDeleteRacesStatus(t *testing.T) {
	first, schedules := uint64(1), uint64(1000)
	if s := os.Getenv("FLEETCAST_SCHEDULES"); s != "" {
		schedules = number(t, s)
	}
	if s := os.Getenv("FLEETCAST_SCHEDULE"); s != "" {
		first, schedules = number(t, s), 1
	}
	orders := map[uint64]bool{}
	for n := first; n < first+schedules; n++ {
		var s *stage
		synctest.Test(t, func(t *testing.T) {
			s = newStage(t, n)
			s.play()
		})
		orders[s.order()] = true
		if len(s.wrong) > 0 {
			t.Fatalf("schedule %d:\n\t%s\n%s", n, strings.Join(s.wrong, "\n\t"), strings.Join(s.trace, "\n"))
		}
	}
	t.Logf("%d schedules, %d different ones", schedules, len(orders))
}

func number(t *testing.T, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A stage is one hub and one agent with one work, whose every move waits for
// its turn.
type stage struct {
	t   *testing.T
	rng *rand.Rand

	desk    *desk
	cluster *cluster
	agent   *agents.Agent
	plot    []string // What users do, in this order.
	trace   []string
	wants   string // The content that the work shall have; "" if it is deleted.
	status  int    // Changes whenever the cluster's status does.

	mu     sync.Mutex
	open   bool // Nobody waits any more.
	parked []*move
	mail   []*letter
	handle map[string]func(context.Context, brokers.Delivery) // Of "hub" and "agent".
	wrong  []string
}

// A move is somebody who waits for a turn.
type move struct {
	label string
	turn  chan struct{}
}

// A letter is an event on its way.
type letter struct {
	to    string
	topic brokers.Topic
	event event.Event
}

const (
	stageSource  = "hub1"
	stageCluster = "c1"
	stageWork    = "web"
)

func newStage(t *testing.T, n uint64) *stage {
	t.Helper()
	rng := rand.New(rand.NewPCG(n, 3))
	s := &stage{
		t: t, rng: rng, handle: map[string]func(context.Context, brokers.Delivery){},
		desk:    newDesk(stageSource, n%2 == 0, rng),
		cluster: newCluster(stageCluster, rng),
	}
	s.cluster.slow = 0
	s.cluster.mayDelete = func(k agents.Key, generation int64) bool { return s.desk.mayDelete(k.ID, generation) }
	s.cluster.broken = s.brokenf
	s.desk.gone = func(k sources.Key) {
		if _, has := s.cluster.has(agents.Key{Source: stageSource, ID: k.ID}); has {
			s.brokenf("the hub believes that the work is gone, and the cluster has it")
		}
	}
	s.plot = []string{"put", "status"}
	for range rng.IntN(3) {
		s.plot = append(s.plot, []string{"put", "status"}[rng.IntN(2)])
	}
	s.plot = append(s.plot, "remove", "status")
	switch rng.IntN(4) {
	case 0:
		s.plot = append(s.plot, "put", "status")
	case 1:
		s.plot = append(s.plot, "put", "remove", "status")
	}
	return s
}

func (s *stage) brokenf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = append(s.wrong, fmt.Sprintf(format, args...))
}

// wait parks the caller until it is its turn.
func (s *stage) wait(ctx context.Context, label string) {
	s.mu.Lock()
	if s.open {
		s.mu.Unlock()
		return
	}
	m := &move{label, make(chan struct{})}
	// In the order of their labels: that in which goroutines come differs from
	// run to run.
	at, _ := slices.BinarySearchFunc(s.parked, label, func(m *move, label string) int { return strings.Compare(m.label, label) })
	s.parked = slices.Insert(s.parked, at, m)
	s.mu.Unlock()
	select {
	case <-m.turn:
	case <-ctx.Done():
	}
}

// play goes through one order of everything, and then lets everything go.
func (s *stage) play() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("FLEETCAST_SCHEDULE") != "" {
		log = slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	dispatcher := sources.NewDispatcher(stageSource, stagedSource{newClerk(s.desk, &crash{}), s}, stagedTransport{s, "hub", "agent"},
		sources.Options{Workers: 2, ReportWorkers: 2, Log: log})
	s.desk.notify = dispatcher.Changed
	var err error
	s.agent, err = agents.New(stageCluster, stagedStore{&agents.Volatile{}, s}, stagedApplier{s.cluster, s}, stagedTransport{s, "agent", "hub"},
		agents.Options{Sources: []string{stageSource}, Workers: 2, Log: log})
	if err != nil {
		s.t.Fatal(err)
	}
	running.Go(func() { _ = dispatcher.Run(ctx) })
	running.Go(func() { _ = s.agent.Run(ctx) })

	for range 150 {
		synctest.Wait()
		if len(s.wrong) > 0 || !s.step() {
			break
		}
	}
	s.finish()
	cancel()
	running.Wait()
}

// step lets one thing happen. It says false when the plot is over and nothing
// waits.
func (s *stage) step() bool {
	s.mu.Lock()
	plot := min(len(s.plot), 1)
	n := len(s.parked) + len(s.mail) + plot
	if n == 0 {
		s.mu.Unlock()
		return false
	}
	at := s.rng.IntN(n)
	switch {
	case at < len(s.parked):
		m := s.parked[at]
		s.parked = slices.Delete(s.parked, at, at+1)
		s.trace = append(s.trace, m.label)
		s.mu.Unlock()
		close(m.turn)
	case at < len(s.parked)+len(s.mail):
		at -= len(s.parked)
		l := s.mail[at]
		again := s.rng.IntN(8) == 0
		if !again {
			s.mail = slices.Delete(s.mail, at, at+1)
		}
		s.trace = append(s.trace, fmt.Sprintf("%s gets %s", l.to, kindOf(l.event)))
		s.mu.Unlock()
		s.deliver(l)
	default:
		what := s.plot[0]
		s.plot = s.plot[1:]
		s.trace = append(s.trace, what)
		s.mu.Unlock()
		s.act(what)
	}
	return true
}

func (s *stage) deliver(l *letter) {
	s.mu.Lock()
	handle := s.handle[l.to]
	s.mu.Unlock()
	handle(context.Background(), brokers.NewDelivery(l.topic, l.event.Clone(), "", func(error) {}))
}

// act does what a user or the cluster does.
func (s *stage) act(what string) {
	var err error
	switch what {
	case "put":
		content := fmt.Sprintf("%s:%d", stageCluster, s.rng.IntN(1000))
		if err = s.desk.put(stageCluster, stageWork, content); err == nil {
			s.wants = s.desk.content(stageCluster, stageWork)
		}
	case "remove":
		err, s.wants = s.desk.remove(stageCluster, stageWork), ""
	case "status":
		s.mu.Lock()
		s.status++
		s.mu.Unlock()
		for _, id := range s.desk.known(stageCluster) {
			s.agent.Changed(stageSource, id)
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// finish lets everything go, in the order in which it waits, and looks at what
// came of it, then and later.
func (s *stage) finish() {
	for len(s.plot) > 0 {
		s.act(s.plot[0])
		s.plot = s.plot[1:]
	}
	s.mu.Lock()
	s.open = true
	for _, m := range s.parked {
		close(m.turn)
	}
	s.mu.Unlock()
	settle := func(until time.Duration, done func() bool) {
		for range until / time.Second {
			s.mu.Lock()
			mail := s.mail
			s.mail = nil
			s.mu.Unlock()
			for _, l := range mail {
				s.deliver(l)
			}
			synctest.Wait()
			if done() {
				return
			}
			<-time.After(time.Second)
		}
	}
	settle(30*time.Minute, func() bool { return s.problem() == "" && len(s.mail) == 0 })
	if problem := s.problem(); problem != "" {
		s.brokenf("stuck: %s", problem)
	}
	settle(time.Minute, func() bool { return false })
	if problem := s.problem(); problem != "" {
		s.brokenf("did not stay: %s", problem)
	}
}

// problem says what is not as it shall be, "" if all is.
func (s *stage) problem() string {
	all := s.cluster.all()
	s.desk.mu.Lock()
	defer s.desk.mu.Unlock()
	if s.wants == "" {
		switch {
		case len(s.desk.data.works) > 0:
			return "the deletion was not confirmed"
		case len(all) > 0:
			return "the work is there"
		}
		return ""
	}
	if len(all) != 1 || len(s.desk.data.works) != 1 {
		return fmt.Sprintf("the cluster has %d works, the hub %d, want 1", len(all), len(s.desk.data.works))
	}
	for _, o := range all {
		for _, w := range s.desk.data.works {
			if w.bundle.Deleting() || o.content != s.wants || w.report.Generation != w.bundle.Generation || !strings.HasPrefix(said(w.report), s.wants) {
				return fmt.Sprintf("the cluster has %q, the hub was told %q of generation %d, want %q of %d",
					o.content, said(w.report), w.report.Generation, s.wants, w.bundle.Generation)
			}
		}
	}
	return ""
}

// order tells schedules apart.
func (s *stage) order() uint64 {
	h := fnv.New64a()
	for _, label := range s.trace {
		_, _ = h.Write([]byte(label + "\n")) // A hash never fails.
	}
	return h.Sum64()
}

// known are the IDs of a cluster's works.
func (d *desk) known(cluster string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var ids []string
	for k := range d.data.works {
		if k.Cluster == cluster {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// content is what a work shall have, "" if there is none or it is deleted.
func (d *desk) content(cluster, name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.data.works[sources.Key{Cluster: cluster, ID: d.data.ids[cluster+"/"+name]}]
	if w.bundle.Deleting() {
		return ""
	}
	return w.content
}

// A stagedTransport hands events to the other end when it is their turn.
type stagedTransport struct {
	s        *stage
	from, to string
}

// Publish implements brokers.Transport.
func (t stagedTransport) Publish(ctx context.Context, to brokers.Topic, e event.Event) error {
	what := kindOf(e)
	t.s.wait(ctx, t.from+" sends "+what)
	t.s.mu.Lock()
	t.s.mail = append(t.s.mail, &letter{t.to, to, e.Clone()})
	t.s.mu.Unlock()
	if what == "Bundle" || what == "Report" {
		t.s.wait(ctx, t.from+" sent "+what)
	}
	return ctx.Err()
}

// Subscribe implements brokers.Transport.
func (t stagedTransport) Subscribe(ctx context.Context, sub brokers.Subscription) error {
	t.s.mu.Lock()
	t.s.handle[t.from] = sub.Handle
	t.s.mu.Unlock()
	sub.Ready(brokers.Session{})
	<-ctx.Done()
	return nil
}

// Close implements brokers.Transport.
func (stagedTransport) Close(context.Context) error { return nil }

// A stagedStore commits when it is its turn.
type stagedStore struct {
	*agents.Volatile
	s *stage
}

// Commit implements agents.Store.
func (v stagedStore) Commit(c agents.Changes) error {
	v.s.wait(context.Background(), "agent commits")
	return v.Volatile.Commit(c)
}

// A stagedApplier acts on its cluster when it is its turn, and reports later.
type stagedApplier struct {
	*cluster
	s *stage
}

// Apply implements agents.Applier.
func (a stagedApplier) Apply(ctx context.Context, b codec.Bundle, last codec.Report) (codec.Report, error) {
	a.s.wait(ctx, "cluster applies")
	r, err := a.cluster.Apply(ctx, b, last)
	if err != nil {
		return r, err
	}
	a.s.mu.Lock()
	status := a.s.status
	a.s.mu.Unlock()
	r, err = saying(b, "Applied", fmt.Sprintf("%s, status %d", said(r), status))
	a.s.wait(ctx, "cluster applied")
	return r, err
}

// Delete implements agents.Applier.
func (a stagedApplier) Delete(ctx context.Context, b codec.Bundle, last codec.Report) (codec.Report, error) {
	a.s.wait(ctx, "cluster deletes")
	r, err := a.cluster.Delete(ctx, b, last)
	a.s.wait(ctx, "cluster deleted")
	return r, err
}

// A stagedSource reads and writes the desk when it is its turn.
type stagedSource struct {
	*clerk
	s *stage
}

// Bundle implements sources.Source. What it read may be old when it is used.
func (c stagedSource) Bundle(ctx context.Context, k sources.Key) (codec.Bundle, bool, error) {
	b, ok, err := c.clerk.Bundle(ctx, k)
	c.s.wait(ctx, "hub read")
	return b, ok, err
}

// Held implements sources.Source.
func (c stagedSource) Held(ctx context.Context, cluster string) ([]sources.Held, error) {
	held, err := c.clerk.Held(ctx, cluster)
	c.s.wait(ctx, "hub listed")
	return held, err
}

// Report implements sources.Source.
func (c stagedSource) Report(ctx context.Context, r codec.Report) (sources.Verdict, error) {
	c.s.wait(ctx, "hub saves")
	verdict, err := c.clerk.Report(ctx, r)
	c.s.wait(ctx, "hub saved")
	return verdict, err
}
