package faults

import (
	"time"
)

// What may happen to a broker.
var brokerCases = []faultCase{
	{
		id: "1", title: "the broker is stopped and started", promises: "P1 P2 P3", bound: time.Minute,
		run: func(w *world) {
			all := works("c1", 20)
			w.putAll(all)
			w.converge()
			w.broker.stop()
			w.putAll(all[:10])
			w.removeAll(all[15:])
			w.broker.start()
		},
	},
	{
		id: "2", title: "the broker is killed in the middle of updates", promises: "P1 P2 P3 P11", bound: 90 * time.Second,
		run: func(w *world) {
			all := works("c1", 30)
			w.putAll(all)
			w.converge()
			stop := w.publishing(all)
			for range 3 {
				w.lasts(time.Duration(1+w.rng.IntN(3)) * time.Second)
				w.broker.kill()
				w.lasts(time.Second)
				w.broker.start()
			}
			stop()
			w.removeAll(all[25:])
			w.broker.kill()
			w.broker.start()
		},
	},
	{
		id: "3", title: "the broker loses all its data", promises: "P1 P2 P3 P4 P8", bound: 2 * time.Minute, smoke: true,
		run: func(w *world) {
			all := works("c1", 20)
			w.putAll(all)
			w.converge()
			w.broker.kill()
			w.putAll(all[:5])
			w.removeAll(all[15:])
			w.broker.wipe()
			w.broker.start()
		},
	},
	{
		id: "4", title: "the broker is put back to an older copy of its data", promises: "P2 P3 P4", bound: 2 * time.Minute,
		run: func(w *world) {
			all := works("c1", 20)
			w.putAll(all)
			w.converge()
			// The copy has versions that are old and works that are gone by then.
			w.broker.stop()
			copied := w.broker.save()
			w.broker.start()
			w.putAll(all[:10])
			w.removeAll(all[15:])
			w.converge()
			w.broker.stop()
			w.broker.restore(copied)
			w.broker.start()
		},
	},
	{
		id: "5", title: "the broker loses power, and with it what its default settings had not synced", promises: "P1 P2 P3 P4", bound: 2 * time.Minute,
		world: settings{broker: brokerSettings{lazy: true}},
		run: func(w *world) {
			all := works("c1", 20)
			w.putAll(all)
			w.converge()
			copied := w.broker.save()
			stop := w.publishing(all)
			w.lasts(5 * time.Second)
			stop()
			w.removeAll(all[15:])
			w.broker.kill()
			w.broker.restore(copied)
			w.broker.start()
		},
	},
	{
		id: "6", title: "of three nodes one is killed, misses updates, and comes back with a damaged block", promises: "P1 P2 P3 P4", bound: 2 * time.Minute,
		only: []string{"nats"}, world: settings{broker: brokerSettings{nodes: 3}},
		run: func(w *world) {
			all := works("c1", 20)
			w.putAll(all)
			w.converge()
			n := w.broker.nodes[w.rng.IntN(3)]
			w.stepf("node %s is killed", n.name)
			n.kill()
			w.putAll(all[:10])
			w.removeAll(all[15:])
			w.converge()
			damage(w, n)
			n.up(w.t)
			w.putAll(all[:10])
			// The others go one after the other, so that what was damaged leads.
			for _, other := range w.broker.nodes {
				if other != n {
					other.kill()
					other.up(w.t)
					await(w.t, other.name+" answers", other.answers)
				}
			}
		},
	},
	{
		id: "32", title: "the broker's disk is full for a while", promises: "P1 P11", bound: 2 * time.Minute,
		world: settings{broker: brokerSettings{disk: 64 << 20}},
		run: func(w *world) {
			all := works("c1", 20)
			w.putAll(all)
			w.converge()
			n := w.broker.nodes[0]
			free := n.fill(w.t)
			for i, k := range all {
				if i < 15 {
					w.putSized(k, 20_000)
				} else {
					w.remove(k)
				}
			}
			w.lasts(5 * time.Second)
			free()
			if !w.broker.kind.mqtt {
				// It takes nothing any more until an operator restarts it.
				w.broker.stop()
				w.broker.start()
			}
		},
	},
}
