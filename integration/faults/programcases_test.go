package faults

import "time"

// What may happen to hub and agent.
var programCases = []faultCase{
	{
		id: "13", title: "the hub is killed in the middle of updates and deletions, ten times", promises: "P1 P3", bound: time.Minute, smoke: true,
		run: func(w *world) {
			all := works("c1", 30)
			w.putAll(all)
			w.converge()
			stop := w.publishing(all[:20])
			for i := range 10 {
				w.remove(all[20+i])
				w.lasts(time.Duration(w.rng.IntN(1500)) * time.Millisecond)
				w.restart(w.hub.process)
			}
			stop()
		},
	},
	{
		id: "18", title: "three replicas of the hub, the leader is killed over and over", promises: "P1 P2", bound: time.Minute,
		run: hubReplicas,
	},
	{
		id: "27", title: "hub and broker are away, the agent is killed and started, objects drift and vanish", promises: "P8", bound: time.Minute, smoke: true,
		run: aloneWithDrift,
	},
	{
		id: "53", title: "hub and agent are stopped in their tracks for 20 s, and go on", promises: "P1 P9", bound: time.Minute,
		run: func(w *world) {
			all, c := works("c1", 20), w.clusters["c1"]
			w.putAll(all)
			w.converge()
			stop := w.publishing(all[:15])
			w.must(w.hub.freeze())
			w.lasts(10 * time.Second)
			w.must(c.agent.freeze())
			w.lasts(10 * time.Second)
			w.must(w.hub.thaw())
			w.lasts(10 * time.Second)
			w.must(c.agent.thaw())
			stop()
			w.removeAll(all[15:])
		},
	},
}

func hubReplicas(w *world) {
	w.hub.kill()
	replicas := make([]*process, 3)
	for i := range replicas {
		replicas[i] = w.hub.replica(w, i)
		w.run(replicas[i])
	}
	all := works("c1", 20)
	w.putAll(all)
	await(w.t, "a replica leads and the works are there", w.settled)
	stop := w.publishing(all[:15])
	for range 3 {
		leader := w.leader(replicas)
		w.stepf("kill the leader, %s", leader.name)
		leader.kill()
		await(w.t, "another replica leads", func() error { return w.leads(replicas, leader) })
		w.run(leader)
	}
	stop()
	w.removeAll(all[15:])
}

// aloneWithDrift has everything put back by an agent that nobody speaks to.
func aloneWithDrift(w *world) {
	all, c := works("c1", 20), w.clusters["c1"]
	w.putAll(all)
	w.converge()
	w.must(w.hub.stop())
	w.broker.stop()
	c.agent.kill()
	c.drift(w, all[0])
	c.vanish(w, all[1])
	w.run(c.agent)
	await(w.t, "what drifted before the agent's start is put back", func() error { return c.back(w, all[0], all[1]) })
	c.drift(w, all[2])
	c.vanish(w, all[3])
	await(w.t, "what drifts later is put back", func() error { return c.back(w, all[2], all[3]) })
	w.putAll(all[:5])
	w.removeAll(all[15:])
	w.broker.start()
	w.run(w.hub.process)
}
