package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
	"github.com/fleetcast-io/fleetcast/sources"
)

// settings say what kind of world a model is.
type settings struct {
	seed      uint64
	broker    mem.Options
	sources   []string
	clusters  []string
	recurring bool // IDs of works are made of their names.
	slow      time.Duration
}

// A world is everything there is between two or more desks and their clusters.
// It lives in a bubble of testing/synctest, and its steps are made from one
// goroutine.
type world struct {
	t        testing.TB
	settings settings
	rng      *rand.Rand
	net      *network
	log      *slog.Logger
	told     bytes.Buffer // What programs log, if that is wanted.

	desks    map[string]*desk
	clusters map[string]*cluster
	stores   map[string]*agents.Volatile
	clocks   map[string]*clock // Of agents by cluster, and of hubs by source.
	programs map[string]*program
	damaged  map[string]bool // Clusters whose agent lost what it knew.

	mu       sync.Mutex
	breaches []string
}

// A program is a hub or an agent that runs.
type program struct {
	crash *crash
	link  *link
	stop  func()
	start func() // Starts another one in its place.
	ready func() error
}

// A clock is wrong by what it was set to.
type clock struct {
	mu     sync.Mutex
	offset time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(era + c.offset)
}

// era is how far the clocks of hubs and agents are ahead of a bubble's, which
// begins in the year 2000: sequences count time from 2010 on, and no clock of
// theirs shall go behind that.
const era = 30 * 365 * 24 * time.Hour

func (c *clock) set(offset time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset = offset
}

func newWorld(t testing.TB, s settings) *world {
	s.broker.Seed = s.seed
	w := &world{
		t: t, settings: s, rng: rand.New(rand.NewPCG(s.seed, 1)),
		desks: map[string]*desk{}, clusters: map[string]*cluster{}, stores: map[string]*agents.Volatile{},
		clocks: map[string]*clock{}, programs: map[string]*program{}, damaged: map[string]bool{},
		log: slog.New(slog.DiscardHandler),
	}
	if os.Getenv("FLEETCAST_LOG") != "" {
		w.log = slog.New(slog.NewTextHandler(&w.told, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	w.net = newNetwork(mem.NewBroker(s.broker), s.seed)
	for i, id := range s.sources {
		d := newDesk(id, s.recurring, rand.New(rand.NewPCG(s.seed, 100+uint64(i))))
		d.gone = func(k sources.Key) { w.confirmed(id, k) }
		w.desks[id], w.clocks[id] = d, &clock{}
	}
	w.net.stamp = w.stamp
	for i, name := range s.clusters {
		c := newCluster(name, rand.New(rand.NewPCG(s.seed, 200+uint64(i))))
		c.broken = w.brokenf
		c.mayDelete = func(k agents.Key, generation int64) bool { return w.desks[k.Source].mayDelete(k.ID, generation) }
		c.mayEvict = func(k agents.Key) bool { return w.desks[k.Source].mayEvict(k.ID) }
		if s.slow > 0 {
			c.slow = s.slow
		}
		w.clusters[name], w.stores[name], w.clocks[name] = c, &agents.Volatile{}, &clock{}
	}
	return w
}

// begin starts every hub and agent.
func (w *world) begin() {
	for _, id := range w.settings.sources {
		w.startHub(id, id, w.desks[id])
	}
	for _, name := range w.settings.clusters {
		w.startAgent(name, agentOf(name), w.stores[name])
	}
}

// end stops everything and says what was wrong.
func (w *world) end() []string {
	for name := range w.programs {
		w.stop(name)
	}
	w.net.close()
	w.mu.Lock()
	defer w.mu.Unlock()
	if dir := os.Getenv("FLEETCAST_LOG"); dir != "" && len(w.breaches) > 0 {
		name := filepath.Join(dir, fmt.Sprintf("%x.log", w.settings.seed))
		text := fmt.Appendf(w.told.Bytes(), "%s\n", strings.Join(w.breaches, "\n"))
		if err := os.WriteFile(name, text, 0o600); err != nil {
			w.breaches = append(w.breaches, err.Error())
		}
	}
	return w.breaches
}

// broken notes that a promise was broken.
func (w *world) brokenf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.breaches = append(w.breaches, fmt.Sprintf(format, args...))
}

func (w *world) intact() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.breaches) == 0
}

// confirmed is called when a desk believes that a work is gone.
func (w *world) confirmed(source string, k sources.Key) {
	c, ok := w.clusters[k.Cluster]
	if !ok || w.damaged[k.Cluster] {
		return // An agent that was set back may have applied it again meanwhile.
	}
	if _, has := c.has(agents.Key{Source: source, ID: k.ID}); has {
		w.brokenf("V4: source %s believes that work %s is gone from cluster %s, which has it", source, k.ID, k.Cluster)
	}
}

// stamp has events of a hub carry the time of its clock.
func (w *world) stamp(client string, e event.Event) event.Event {
	c, ok := w.clocks[client]
	if !ok || e.Get(event.Time) == "" {
		return e
	}
	e = e.Clone()
	e.Set(event.Time, event.FormatTime(c.now()))
	return e
}

// agentOf is the client ID of a cluster's agent.
func agentOf(cluster string) string { return cluster + "-client" }

// startHub starts a process that serves a desk under a client ID of its own.
func (w *world) startHub(client, id string, d *desk) {
	dies := &crash{}
	l := w.net.open(brokers.Config{Role: brokers.RoleSource, Name: id, ClientID: client}, dies)
	dispatcher := sources.NewDispatcher(id, newClerk(d, dies), l, sources.Options{Log: w.log.With("program", client)})
	d.mu.Lock()
	d.notify = dispatcher.Changed
	d.mu.Unlock()
	w.run(client, dies, l, dispatcher.Run, dispatcher.Ready, func() { w.startHub(client, id, d) })
}

// startAgent starts a process that serves a cluster from a store.
func (w *world) startAgent(name, client string, store *agents.Volatile) {
	dies := &crash{}
	l := w.net.open(brokers.Config{Role: brokers.RoleAgent, Name: name, ClientID: client}, dies)
	h := &hands{cluster: w.clusters[name], crash: dies}
	a, err := agents.New(name, disk{store, dies}, h, l, agents.Options{
		Sources: w.settings.sources, Workers: 2, Now: w.clocks[name].now, Log: w.log.With("program", client),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	runs := func(ctx context.Context) error { return h.run(ctx, a) }
	w.run(client, dies, l, runs, func() error { return nil }, func() { w.startAgent(name, client, w.stores[name]) })
}

func (w *world) run(client string, dies *crash, l *link, run func(context.Context) error, ready func() error, again func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := run(ctx); err != nil && !dies.dead() {
			w.brokenf("%s ended: %v", client, err)
		}
	})
	w.programs[client] = &program{crash: dies, link: l, ready: ready, start: again, stop: func() {
		cancel()
		running.Wait()
		_ = l.Close(context.Background())
	}}
}

func (w *world) running(client string) bool { return w.programs[client] != nil }

// stop ends a program in order.
func (w *world) stop(client string) {
	if p := w.programs[client]; p != nil {
		p.stop()
		delete(w.programs, client)
	}
}

// kill ends a program: what it does from now on has no effect.
func (w *world) kill(client string) {
	if p := w.programs[client]; p != nil {
		p.crash.now()
		w.stop(client)
	}
}

// bury ends the programs that died, and starts others in their place.
func (w *world) bury() {
	for _, client := range w.clients() {
		if p := w.programs[client]; p.crash.dead() {
			w.stop(client)
			p.start()
		}
	}
}

// clients are those of the programs that run, in order.
func (w *world) clients() []string {
	all := make([]string, 0, len(w.programs))
	for client := range w.programs {
		all = append(all, client)
	}
	slices.Sort(all)
	return all
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
	synctest.Wait()
	w.bury()
}

// restart ends a program and starts it again, killing it if crash is set.
func (w *world) restart(client string, crash bool) {
	p := w.programs[client]
	if p == nil {
		return
	}
	if crash {
		w.kill(client)
	} else {
		w.stop(client)
	}
	p.start()
}

// setBack has a cluster's agent go on with an older copy of its store.
func (w *world) setBack(name string, older *agents.Volatile) {
	w.kill(agentOf(name))
	w.damaged[name] = true
	w.clusters[name].forget()
	w.stores[name] = older
	w.startAgent(name, agentOf(name), older)
}

// restoreHub puts an older copy in place of a desk's data.
func (w *world) restoreHub(id string, older deskData) {
	w.kill(id)
	w.desks[id].restore(older)
	w.startHub(id, id, w.desks[id])
}

// restoreBroker gives the broker the events of an older time back, and nothing
// that came after it.
func (w *world) restoreBroker(until int) {
	history := w.net.published()
	w.net.broker.Wipe()
	for i, p := range history[:min(until, len(history))] {
		w.net.inject(p, time.Duration(i)*time.Millisecond)
	}
}

// calm ends every fault. Programs that were ended are started by the caller.
func (w *world) calm() {
	w.net.heal()
	for _, p := range w.programs {
		p.crash.at("")
	}
	for _, c := range w.clusters {
		c.fail(0)
	}
	w.net.broker.Start()
	w.bury()
}

// converge waits until clusters have what desks want, and desks know it. The
// returned problems are those of the last look.
func (w *world) converge(bound time.Duration) (took time.Duration, problems []string) {
	const look = 5 * time.Second
	for {
		problems = w.problems()
		if len(problems) == 0 || took >= bound || !w.intact() {
			return took, problems
		}
		w.restartFenced()
		w.pass(look)
		took += look
	}
}

// restartFenced does what a fenced hub asks of its operator.
func (w *world) restartFenced() {
	for _, client := range w.clients() {
		if errors.Is(w.programs[client].ready(), sources.ErrFenced) {
			w.restart(client, false)
		}
	}
}

// problems says where clusters and desks differ.
func (w *world) problems() []string {
	var out []string
	for _, id := range w.settings.sources {
		for _, name := range w.settings.clusters {
			out = append(out, w.compare(w.desks[id], w.clusters[name])...)
		}
	}
	return out
}

// lapsed says whether some cluster may have something newer than its desk.
func (w *world) lapsed() bool {
	for _, d := range w.desks {
		d.mu.Lock()
		defer d.mu.Unlock()
		for k, work := range d.data.works {
			if d.lapsedLocked(k, work.bundle) {
				return true
			}
		}
	}
	return false
}

// compare says where a desk and a cluster differ.
func (w *world) compare(d *desk, c *cluster) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	note := func(id, format string, args ...any) {
		out = append(out, fmt.Sprintf("work %s of %s on %s: ", id, d.id, c.name)+fmt.Sprintf(format, args...))
	}
	has := c.all()
	for k, work := range d.data.works {
		o, ok := has[agents.Key{Source: d.id, ID: k.ID}]
		switch {
		case k.Cluster != c.name || d.lapsedLocked(k, work.bundle):
		case work.bundle.Deleting():
			note(k.ID, "its deletion was not confirmed")
		case !ok:
			note(k.ID, "it is not there, want generation %d", work.bundle.Generation)
		case o.content != work.content:
			note(k.ID, "it has %q, want %q of generation %d", o.content, work.content, work.bundle.Generation)
		case work.report.Generation != work.bundle.Generation, said(work.report) != work.content:
			note(k.ID, "reported is %q of generation %d, want %q of %d",
				said(work.report), work.report.Generation, work.content, work.bundle.Generation)
		}
	}
	for k, t := range d.data.tombstones {
		_, ok := has[agents.Key{Source: d.id, ID: k.ID}]
		switch {
		case k.Cluster != c.name:
		case !t.confirmed:
			note(k.ID, "its forced deletion was not confirmed")
		case ok && !w.staysLocked(k, d, c):
			note(k.ID, "it is there, and was deleted")
		}
	}
	for k := range has {
		key := sources.Key{Cluster: c.name, ID: k.ID}
		_, known := d.data.works[key]
		_, dead := d.data.tombstones[key]
		if k.Source == d.id && !known && !dead && d.highest[k.ID] == 0 {
			note(k.ID, "it is there, and nobody ever wanted it")
		}
	}
	slices.Sort(out)
	return out
}

// mustConverge ends the test if the ends do not come together in time, or a
// promise was broken.
func (w *world) mustConverge(bound time.Duration) time.Duration {
	w.t.Helper()
	took, problems := w.converge(bound)
	if len(problems) > 0 {
		w.t.Errorf("after %s:\n\t%s", took, strings.Join(problems, "\n\t"))
	}
	return took
}

// must is for steps that cannot fail.
func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// traffic counts events by what they are.
func (w *world) traffic(since int) map[string]int {
	count := map[string]int{}
	for _, p := range w.net.published()[since:] {
		count[kindOf(p.event)]++
	}
	return count
}

// kindOf names what an event carries.
func kindOf(e event.Event) string {
	_, m, err := codec.Decode(e)
	if err != nil {
		return "other"
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", m), "codec.")
}
