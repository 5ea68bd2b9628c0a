package faults_test

import (
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// TestModelConverges runs real dispatchers and real agents through schedules of
// everything that may go wrong between them and in them: events are lost,
// repeated, reordered, late by hours, damaged and replayed, links are cut in one
// direction or both, processes die at any moment, the hub, an agent or the
// broker goes on from an older copy, another hub serves the same ID, clocks are
// wrong. Promises are checked at every step. When it ends, every cluster has
// what its sources want and they know it.
//
// A schedule that fails is made as small as possible and printed; -rapid.seed
// or -rapid.failfile repeats it, as far as goroutines repeat their order, and
// -rapid.checks says how many there are. FLEETCAST_LOG names a folder for the
// logs of those that fail.
func TestModelConverges(t *testing.T) {
	atMost(t, 20)
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				s := drawSettings(rt, kind)
				schedule := rapid.SliceOfN(drawStep(s), 20, 100).Draw(rt, "schedule")
				// The bubble has a test of its own: what fails in it is told to
				// rapid outside, which then looks for a smaller schedule.
				var failures []string
				synctest.Test(t, func(t *testing.T) { failures = runSchedule(t, s, schedule) })
				if len(failures) > 0 {
					rt.Fatalf("%s", strings.Join(failures, "\n"))
				}
			})
		})
	}
}

// atMost is how many examples rapid tries where nobody says otherwise.
func atMost(t *testing.T, n int) {
	t.Helper()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "rapid.checks" })
	if asked {
		return
	}
	before := flag.Lookup("rapid.checks").Value.String()
	set := func(value string) {
		if err := flag.Lookup("rapid.checks").Value.Set(value); err != nil {
			t.Fatal(err)
		}
	}
	set(strconv.Itoa(n))
	t.Cleanup(func() { set(before) })
}

// A kind is one of the two kinds of broker there are.
type kind struct {
	name string
	log  bool
}

var kinds = []kind{{name: "sessions"}, {name: "log", log: true}}

func drawSettings(rt *rapid.T, k kind) settings {
	share := func(label string, most float64) float64 {
		return rapid.SampledFrom([]float64{0, 0, most / 10, most}).Draw(rt, label)
	}
	return settings{
		seed: rapid.Uint64().Draw(rt, "seed"),
		broker: mem.Options{
			Log:       k.log,
			Delay:     rapid.SampledFrom([]time.Duration{0, time.Second, 30 * time.Second}).Draw(rt, "delay"),
			Reconnect: rapid.SampledFrom([]time.Duration{time.Millisecond, 5 * time.Second}).Draw(rt, "reconnect"),
			Duplicate: share("duplicate", 0.3),
			Drop:      share("drop", 0.3),
			Cut:       share("cut", 0.05),
			Queue:     rapid.SampledFrom([]int{3, 10000}).Draw(rt, "queue"),
		},
		sources:   []string{"hub1", "hub2"},
		clusters:  []string{"c1", "c2"},
		recurring: rapid.Bool().Draw(rt, "recurring"),
	}
}

// A step is one thing that happens. What it does not need is ignored.
type step struct {
	what            string
	source, cluster string
	name, content   string
	moment          string
	trouble         trouble
	out, in         bool
	after           time.Duration // Time that passes then.
	offset          time.Duration
}

// GoString is for the schedule that a failing test prints.
func (s step) GoString() string { return "\n\t" + s.String() }

func (s step) String() string {
	text := fmt.Sprintf("%s %s %s %s", s.what, s.source, s.cluster, s.name)
	switch s.what {
	case "put":
		text += " " + s.content
	case "crash hub", "crash agent":
		text += " " + s.moment
	case "trouble":
		text += fmt.Sprintf(" %+v", s.trouble)
	case "cut hub", "cut agent":
		text += fmt.Sprintf(" out=%t in=%t", s.out, s.in)
	case "agent's clock", "hub's clock":
		text += " " + s.offset.String()
	}
	return text + ", then " + s.after.String()
}

// everywhere are steps for every kind of source.
var everywhere = []string{
	"put", "put", "put", "put", "put", "put", "remove", "remove", "recreate", "force",
	"crash hub", "crash agent", "stop agent", "restart hub", "fail",
	"cut hub", "cut agent", "heal", "trouble", "disconnect", "broker stops", "broker starts",
	"wipe broker", "copy broker", "restore broker", "copy agent", "restore agent", "lose agent",
	"replay", "garbage", "agent's clock", "empty twin", "end twin",
}

// whereUnique are steps for sources whose IDs never recur. Others tell works of
// one ID apart by a clock that goes forward and a history that is not undone.
var whereUnique = []string{"copy hub", "restore hub", "older twin", "hub's clock"}

func drawStep(s settings) *rapid.Generator[step] {
	whats := everywhere
	if !s.recurring {
		whats = append(append([]string{}, everywhere...), whereUnique...)
	}
	moments := map[string][]string{
		"crash hub":   {"", beforePublish, afterPublish, beforeReport, afterReport},
		"crash agent": {"", beforePublish, afterPublish, beforeCommit, afterCommit},
	}
	return rapid.Custom(func(rt *rapid.T) step {
		out := step{
			what:    rapid.SampledFrom(whats).Draw(rt, "what"),
			source:  rapid.SampledFrom(s.sources).Draw(rt, "source"),
			cluster: rapid.SampledFrom(s.clusters).Draw(rt, "cluster"),
			name:    rapid.SampledFrom([]string{"w0", "w1", "w2"}).Draw(rt, "name"),
			after: rapid.SampledFrom([]time.Duration{
				0, 0, time.Millisecond, time.Second, 7 * time.Second, time.Minute, time.Hour,
			}).Draw(rt, "after"),
		}
		switch out.what {
		case "put", "recreate":
			out.content = fmt.Sprintf("%s:%d", out.cluster, rapid.IntRange(0, 999).Draw(rt, "content"))
		case "crash hub", "crash agent":
			out.moment = rapid.SampledFrom(moments[out.what]).Draw(rt, "moment")
		case "cut hub", "cut agent":
			out.out = rapid.Bool().Draw(rt, "out")
			out.in = !out.out || rapid.Bool().Draw(rt, "in")
		case "trouble":
			out.trouble = drawTrouble(rt)
		case "agent's clock", "hub's clock":
			// An agent whose clock says that a month has passed may forget what
			// was deleted.
			forward := 20 * 24 * time.Hour
			if out.what == "hub's clock" {
				forward = decade
			}
			out.offset = rapid.SampledFrom([]time.Duration{-decade, -time.Hour, -time.Second, 0, time.Hour, forward}).Draw(rt, "offset")
		}
		return out
	})
}

const decade = 10 * 365 * 24 * time.Hour

func drawTrouble(rt *rapid.T) trouble {
	share := func(label string) float64 {
		return rapid.SampledFrom([]float64{0, 0.05, 0.3, 0.9}).Draw(rt, label)
	}
	return trouble{
		drop: share("drop"), repeat: share("repeat"), copies: rapid.IntRange(1, 10).Draw(rt, "copies"),
		late: share("late"), corrupt: share("corrupt"),
		delay: rapid.SampledFrom([]time.Duration{time.Second, time.Minute, 5 * time.Hour}).Draw(rt, "delay"),
	}
}

// A player makes the steps of a schedule.
type player struct {
	*world
	hubs   map[string]deskData
	stores map[string]*agents.Volatile
	broker int
}

// runSchedule says what went wrong.
func runSchedule(t *testing.T, s settings, schedule []step) []string {
	w := newWorld(t, s)
	p := &player{world: w, hubs: map[string]deskData{}, stores: map[string]*agents.Volatile{}}
	for _, id := range s.sources {
		p.hubs[id] = w.desks[id].backup()
	}
	for _, name := range s.clusters {
		p.stores[name] = &agents.Volatile{}
	}
	w.begin()
	for _, step := range schedule {
		p.make(step)
		w.pass(step.after)
		if !w.intact() {
			break
		}
	}
	p.finish()
	took, problems := w.converge(6 * time.Hour)
	if len(problems) > 0 {
		w.brokenf("not converged after %s:\n\t%s", took, strings.Join(problems, "\n\t"))
	} else {
		// Whatever is still on its way changes nothing any more, and then there
		// is nothing left to say about any work.
		w.pass(6 * time.Hour)
		before := len(w.net.published())
		w.pass(time.Hour)
		if idle := w.traffic(before); idle["Bundle"]+idle["Report"] > 0 && !w.lapsed() {
			w.brokenf("converged after %s, and does not come to rest: in one hour %v", took, idle)
		}
		for _, problem := range w.problems() {
			w.brokenf("converged after %s, then: %s", took, problem)
		}
	}
	return w.end()
}

// finish ends all faults and has everything run that shall. What runs goes on
// as it is: a restart would cure what must cure itself.
func (p *player) finish() {
	p.calm()
	for _, id := range p.settings.sources {
		p.endTwin(id)
	}
	for _, name := range p.settings.clusters {
		if !p.running(agentOf(name)) {
			p.startAgent(name, agentOf(name), p.world.stores[name])
		}
	}
}

func (p *player) make(s step) {
	p.log.Info("step", "is", s.String())
	switch s.what {
	case "put":
		p.must(p.desks[s.source].put(s.cluster, s.name, s.content))
	case "remove":
		p.must(p.desks[s.source].remove(s.cluster, s.name))
	case "recreate":
		p.must(p.desks[s.source].remove(s.cluster, s.name))
		p.must(p.desks[s.source].put(s.cluster, s.name, s.content))
	case "force":
		p.must(p.desks[s.source].force(s.cluster, s.name))
	case "empty twin", "older twin", "end twin", "copy hub", "restore hub", "restart hub", "crash hub":
		p.toHub(s)
	case "crash agent", "stop agent", "copy agent", "restore agent", "lose agent", "fail":
		p.toAgent(s)
	case "agent's clock":
		p.clocks[s.cluster].set(s.offset)
	case "hub's clock":
		p.clocks[s.source].set(s.offset)
	default:
		p.toNetwork(s)
	}
}

func (p *player) toHub(s step) {
	switch s.what {
	case "crash hub":
		p.crashAt(s.source, s.moment)
	case "restart hub":
		p.restart(s.source, false)
	case "copy hub":
		p.hubs[s.source] = p.desks[s.source].backup()
	case "restore hub":
		p.restoreHub(s.source, p.hubs[s.source])
	case "empty twin":
		p.startTwin(s.source, newDesk(s.source, p.settings.recurring, p.rng))
	case "older twin":
		d := newDesk(s.source, p.settings.recurring, p.rng)
		d.restore(p.hubs[s.source])
		p.startTwin(s.source, d)
	case "end twin":
		p.endTwin(s.source)
	}
}

func (p *player) startTwin(id string, d *desk) {
	if !p.running(twinOf(id)) {
		p.startHub(twinOf(id), id, d)
	}
}

func (p *player) endTwin(id string) { p.stop(twinOf(id)) }

// twinOf is the client ID of a second hub with the same source ID.
func twinOf(source string) string { return source + "-twin" }

func (p *player) toAgent(s step) {
	client := agentOf(s.cluster)
	switch s.what {
	case "crash agent":
		if !p.running(client) {
			p.startAgent(s.cluster, client, p.world.stores[s.cluster])
		}
		p.crashAt(client, s.moment)
	case "stop agent":
		p.stop(client)
	case "copy agent":
		older, err := copyOf(p.world.stores[s.cluster])
		p.must(err)
		p.stores[s.cluster] = older
	case "restore agent":
		older, err := copyOf(p.stores[s.cluster])
		p.must(err)
		p.setBack(s.cluster, older)
	case "lose agent":
		p.setBack(s.cluster, &agents.Volatile{})
	case "fail":
		p.clusters[s.cluster].fail(3)
	}
}

func (p *player) crashAt(client, moment string) {
	if moment == "" {
		p.restart(client, true)
		return
	}
	if program := p.programs[client]; program != nil {
		program.crash.at(moment)
	}
}

func (p *player) toNetwork(s step) {
	switch s.what {
	case "cut hub":
		p.net.cut(s.source, s.out, s.in)
	case "cut agent":
		p.net.cut(agentOf(s.cluster), s.out, s.in)
	case "heal":
		p.net.heal()
	case "trouble":
		p.net.set(s.trouble)
	case "disconnect":
		p.net.broker.Disconnect(agentOf(s.cluster))
		p.net.broker.Disconnect(s.source)
	case "broker stops":
		p.net.broker.Stop()
	case "broker starts":
		p.net.broker.Start()
	case "wipe broker":
		p.net.broker.Wipe()
	case "copy broker":
		p.broker = len(p.net.published())
	case "restore broker":
		p.restoreBroker(p.broker)
	case "replay":
		for i, passed := range p.net.published() {
			p.net.inject(passed, time.Duration(i)*time.Millisecond)
		}
	case "garbage":
		p.garbage()
	default:
		p.t.Fatalf("no such step: %s", s.what)
	}
}

// garbage repeats some of what was said, damaged, and what nobody says.
func (p *player) garbage() {
	history := p.net.published()
	for range min(10, len(history)) {
		said := history[p.rng.IntN(len(history))]
		if bad, ok := damage(p.rng, said.event); ok {
			said.event = bad
			p.net.inject(said, 0)
		}
		said.event = event.New("com.example.unknown", "nobody", time.Now(), 0)
		p.net.inject(said, 0)
	}
}
