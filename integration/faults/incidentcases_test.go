package faults

import (
	"fmt"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// deadClusters is how many clusters of the first incident have no agent any
// more; each has 20 works that are being deleted.
const deadClusters = 50

// deleteAll keeps the hub from waiting for a word on many deletions at once.
var deleteAll = []string{"--max-deletion-share=1"}

// What happened to others who distribute work, done again here.
var incidentCases = []faultCase{
	{
		id: "pending-deletions", title: "1,000 deletions wait for clusters that are gone, and a live one gets new work", promises: "P1 P3 P9", bound: 30 * time.Second,
		world:      settings{dead: numbered("gone", deadClusters), hubFlags: deleteAll},
		run:        pendingDeletions,
		afterwards: deletionsStillPending,
	},
	{
		id: "late-creation", title: "a copy of a work's first version arrives after its deletion was done, and again after a restart of the agent", promises: "P2 P3", bound: time.Minute,
		run: lateCreation,
	},
	{
		id: "update-races-deletion", title: "100 works are updated and deleted at the same time, and their last versions are sent again afterwards", promises: "P2 P3", bound: time.Minute,
		world: settings{hubFlags: deleteAll}, run: updateRacesDeletion,
	},
	{
		id: "crash-before-publish", title: "the hub dies after works were committed and before it published any", promises: "P1 P3", bound: time.Minute,
		run: func(w *world) {
			all := works("c1", 20)
			w.putAll(all)
			w.converge()
			// First it saw them and could not send, then it did not even see them.
			w.hub.link.cut()
			w.putAll(all[:5])
			await(w.t, "the hub has seen the works", func() error { return w.hub.logged("broker") })
			w.hub.kill()
			w.run(w.hub.process)
			w.must(w.hub.freeze())
			w.putAll(all[5:10])
			w.removeAll(all[15:])
			w.hub.kill()
			w.hub.link.heal()
			w.run(w.hub.process)
		},
	},
	{
		id: "slow-dependencies", title: "API servers and broker do not answer for 30 s: probes stay green, nothing restarts", promises: "P1 P8", bound: 90 * time.Second,
		run: slowDependencies,
	},
	{
		id: "list-over-limit", title: "one cluster has 2,000 works, the list of which does not fit the broker's packets, and the broker is wiped", promises: "P1 P10", bound: 2 * time.Minute,
		world: settings{clusters: []string{}, imagined: []string{"s1"}, broker: brokerSettings{maxPacket: 128 << 10}},
		run: func(w *world) {
			all := works("s1", 2000)
			w.putAll(all)
			w.converge()
			w.broker.kill()
			w.putAll(all[:10])
			w.removeAll(all[1990:])
			w.broker.wipe()
			w.broker.start()
		},
	},
	{
		id: "deletion-lost", title: "the agent loses a deletion that it had acknowledged, and the broker has it no more", promises: "P3", bound: time.Minute,
		run: deletionLost,
	},
	{
		id: "oversize", title: "a work is over the broker's limit, through two restarts of the broker, until it is cut down", promises: "P1 P10 P11", bound: time.Minute,
		world: settings{broker: brokerSettings{maxPacket: 512 << 10}},
		run:   oversize,
	},
}

func numbered(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%s-%03d", prefix, i)
	}
	return all
}

func pendingDeletions(w *world) {
	w.putAll(works("c1", 10))
	w.converge()
	var gone []key
	for _, cluster := range numbered("gone", deadClusters) {
		gone = append(gone, works(cluster, 20)...)
	}
	w.putAll(gone)
	// Else they would be gone before the hub has seen them.
	await(w.t, "the hub has seen the works", func() error {
		for _, k := range gone {
			if err := w.hub.guards(k); err != nil {
				return err
			}
		}
		return nil
	})
	w.removeAll(gone)
	w.putAll(works("c1", 20))
}

// deletionsStillPending: nobody claims what no cluster has confirmed.
func deletionsStillPending(w *world) {
	w.t.Helper()
	pending := 0
	for _, object := range w.hub.works.List() {
		if u, ok := object.(*unstructured.Unstructured); ok && w.clusters[u.GetNamespace()].dead && u.GetDeletionTimestamp() != nil {
			pending++
		}
	}
	if want := deadClusters * 20; pending != want {
		w.t.Errorf("P3: %d deletions of clusters that are gone are pending, want %d", pending, want)
	}
}

func lateCreation(w *world) {
	all, c := works("c1", 5), w.clusters["c1"]
	w.putAll(all)
	w.converge()
	copies := w.copies(all)
	w.putAll(all)
	w.removeAll(all[:3])
	w.converge()
	w.sendAgain(copies)
	await(w.t, "the agent has passed over the copies", func() error { return c.passedOver(len(copies)) })
	w.restart(c.agent)
	w.converge()
	w.sendAgain(copies)
	await(w.t, "the restarted agent has passed over the copies", func() error { return c.passedOver(len(copies)) })
}

func updateRacesDeletion(w *world) {
	all := works("c1", 100)
	w.putAll(all)
	w.converge()
	copies := w.copies(all)
	w.each(all, func(k key) error {
		version := w.record.next(k)
		w.record.remove(k)
		updated := make(chan error, 1)
		go func() { updated <- w.hub.update(w.t.Context(), k, version) }()
		if err := w.hub.remove(w.t.Context(), k); err != nil {
			return err
		}
		return <-updated
	})
	w.sendAgain(copies)
	w.converge()
	w.sendAgain(copies)
	await(w.t, "the agent has passed over the copies", func() error { return w.clusters["c1"].passedOver(len(copies)) })
}

func slowDependencies(w *world) {
	all, c := works("c1", 20), w.clusters["c1"]
	w.putAll(all)
	w.converge()
	hub, agent := w.hub.cmd.Process.Pid, c.agent.cmd.Process.Pid
	for _, l := range []*link{w.hub.api, w.hub.link, c.api, c.link} {
		l.freeze(outward, inward)
	}
	w.putAll(all[:10])
	w.removeAll(all[15:])
	green := func(address string) {
		if err := probe(w.t.Context(), address, "/livez"); err != nil {
			w.t.Errorf("the probe of %s fails while what it depends on is slow: %v", address, err)
		}
	}
	for range 30 {
		green(w.hub.health)
		green(c.metrics)
		w.lasts(time.Second)
	}
	w.heal(w.hub.api, w.hub.link, c.api, c.link)
	if !w.hub.running() || !c.agent.running() || w.hub.cmd.Process.Pid != hub || c.agent.cmd.Process.Pid != agent {
		w.t.Error("hub or agent ended while what it depends on was slow")
	}
}

func deletionLost(w *world) {
	all, c := works("c1", 5), w.clusters["c1"]
	w.putAll(all)
	w.converge()
	// The disk as it was before the deletion.
	w.must(c.agent.stop())
	copied := w.t.TempDir()
	copyTree(w.t, c.dir, copied)
	w.run(c.agent)
	await(w.t, "the agent listens", func() error { return probe(w.t.Context(), c.metrics, "/readyz") })
	// It takes the deletion and cannot carry it out.
	c.api.freeze(outward, inward)
	taken := 0.0
	await(w.t, "the agent tells what it counts", func() (err error) {
		taken, err = c.count("")
		return err
	})
	w.removeAll(all[:3])
	await(w.t, "the agent has the deletions on its disk", func() error { return c.counts("", int(taken)+3) })
	c.agent.kill()
	w.must(os.RemoveAll(c.dir))
	copyTree(w.t, copied, c.dir)
	w.broker.kill()
	w.broker.wipe()
	c.api.heal()
	w.broker.start()
	w.run(c.agent)
	// Somebody asks again, which the API server takes for nothing new.
	w.removeAll(all[:3])
}

func oversize(w *world) {
	all := works("c1", 10)
	big := key{"c1", "big"}
	w.record.refuse(big)
	w.putSized(big, 800<<10)
	w.putAll(all)
	w.converge()
	for range 2 {
		w.broker.stop()
		w.broker.start()
		w.putAll(all)
		w.converge()
	}
	all2, err := scrape(w.hub.metrics)
	w.must(err)
	// Once, and once more for each session: not in a loop.
	const most = 6
	if n := sum(all2, "fleetcast_events_total", "direction=sent", "result=too_large"); n > most {
		w.t.Errorf("P10: the work that does not fit was tried %.0f times", n)
	}
	w.record.fits(big)
	w.put(big)
}
