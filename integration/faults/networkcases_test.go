package faults

import "time"

// long is how long a network fault lasts: longer than what either broker's
// connection needs to be found dead with the settings here.
const long = 70 * time.Second

// short is long for MQTT, whose keepalive is 5 seconds here.
const short = 15 * time.Second

func (w *world) noticeable() time.Duration {
	if w.broker.kind.mqtt {
		return short
	}
	return long
}

// change writes and removes works of c1 in the middle of a fault.
func (w *world) change(all []key) {
	w.t.Helper()
	w.putAll(all[:10])
	w.removeAll(all[15:])
}

// heal ends the faults of the links. They are over when that begins: what was
// held back is on its way before all of it is out.
func (w *world) heal(links ...*link) {
	w.t.Helper()
	w.over = time.Now()
	for _, l := range links {
		l.heal()
	}
}

// What may happen to the network.
var networkCases = []faultCase{
	{
		id: "7", title: "nothing passes between agent and broker", promises: "P1 P5 P8", bound: time.Minute,
		run: func(w *world) {
			all := works("c1", 20)
			w.putAll(all)
			w.converge()
			w.clusters["c1"].link.freeze(outward, inward)
			w.change(all)
			w.lasts(w.noticeable())
			w.heal(w.clusters["c1"].link)
		},
	},
	{
		id: "8a", title: "nothing passes from the agent to the broker, the other way is open", promises: "P1 P5 P11", bound: time.Minute,
		run: func(w *world) {
			all := works("c1", 20)
			w.putAll(all)
			w.converge()
			w.clusters["c1"].link.freeze(outward)
			w.change(all)
			w.lasts(w.noticeable())
			w.heal(w.clusters["c1"].link)
		},
	},
	{
		id: "8b", title: "nothing passes from the broker to the agent, the other way is open", promises: "P1 P5 P11", bound: time.Minute,
		run: func(w *world) {
			all := works("c1", 20)
			w.putAll(all)
			w.converge()
			w.clusters["c1"].link.freeze(inward)
			w.change(all)
			w.lasts(w.noticeable())
			w.heal(w.clusters["c1"].link)
		},
	},
	{
		id: "9", title: "nothing passes between hub and broker", promises: "P1 P5", bound: time.Minute,
		run: func(w *world) {
			all := works("c1", 20)
			w.putAll(all)
			w.converge()
			w.hub.link.freeze(outward, inward)
			w.change(all)
			w.lasts(w.noticeable())
			w.heal(w.hub.link)
		},
	},
	{
		id: "10", title: "the links of hub and agent are up for 3 s and down for 7 s, in turn", promises: "P5 P9", bound: time.Minute,
		run: func(w *world) {
			all := works("c1", 20)
			w.putAll(all)
			w.converge()
			stop := w.publishing(all[:15])
			parallel(
				func() { w.clusters["c1"].link.flap(5, 3*time.Second, 7*time.Second) },
				func() { w.hub.link.flap(5, 3*time.Second, 7*time.Second) },
			)
			stop()
			w.removeAll(all[15:])
		},
	},
	{
		id: "11", title: "the agent's link has a round trip of 2 s, give or take one, and 1 kB/s", promises: "P1 P9", bound: 3 * time.Minute,
		run: func(w *world) {
			all := works("c1", 6)
			w.clusters["c1"].link.slow(time.Second, 1000)
			w.putAll(all)
			w.converge()
			w.putAll(all[:3])
			w.remove(all[5])
		},
	},
	{
		id: "12", title: "a middlebox forgets the connections of hub and agent and tells nobody", promises: "P1", bound: 2 * time.Minute,
		run: func(w *world) {
			all := works("c1", 20)
			w.putAll(all)
			w.converge()
			w.clusters["c1"].link.forget()
			w.hub.link.forget()
			w.change(all)
		},
	},
}
