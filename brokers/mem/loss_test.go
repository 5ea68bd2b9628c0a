package mem_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// TestNothingIsLost holds the promise of a broker that keeps its sessions, for
// any mixture of losses and failures: what it confirmed arrives and is settled
// at last, and the events of a topic come first in their order. With a log,
// that is true of the newest of each topic.
func TestNothingIsLost(t *testing.T) {
	const publishes, publishKeys = 60, 4
	rapid.Check(t, func(rt *rapid.T) {
		o := mem.Options{
			Seed:      rapid.Uint64().Draw(rt, "seed"),
			Delay:     time.Duration(rapid.IntRange(0, 50).Draw(rt, "delay")) * time.Millisecond,
			Duplicate: rapid.SampledFrom([]float64{0, 0.5}).Draw(rt, "duplicate"),
			Cut:       rapid.SampledFrom([]float64{0, 0.1}).Draw(rt, "cut"),
			Window:    rapid.IntRange(1, 8).Draw(rt, "window"),
			Log:       rapid.Bool().Draw(rt, "log"),
		}
		steps := rapid.SliceOfN(rapid.SampledFrom([]string{"publish", "publish", "publish", "disconnect", "restart", "wait"}), publishes, publishes).Draw(rt, "steps")
		fails := rapid.SliceOfN(rapid.SampledFrom([]string{"", "", "error", "forget"}), 2*publishes, 2*publishes).Draw(rt, "settle")
		var problems []string
		synctest.Test(t, func(*testing.T) { problems = lossesOf(o, steps, fails, publishKeys) })
		if len(problems) > 0 {
			rt.Fatal(problems)
		}
	})
}

func lossesOf(o mem.Options, steps, fails []string, keys int) (problems []string) {
	b := mem.NewBroker(o)
	source, agent := b.Open(hub), b.Open(cluster)
	done, deliveries := make(map[string]bool), 0
	in := subscribe(agent, func(d brokers.Delivery) {
		deliveries++
		if deliveries <= len(fails) {
			switch fails[deliveries-1] {
			case "error":
				d.Done(errors.New("disk full"))
				return
			case "forget":
				return
			}
		}
		done[d.Event.Get(event.ID)] = true
		d.Done(nil)
	}, works)
	settled()
	confirmed := make(map[int]bool)
	for n, step := range steps {
		switch step {
		case "publish":
			if source.Publish(context.Background(), work(fmt.Sprint(n%keys)), numbered(n)) == nil {
				confirmed[n] = true
			}
		case "disconnect":
			b.Disconnect(cluster.Identity())
		case "restart":
			b.Stop()
			b.Start()
		case "wait":
			settled()
		}
	}
	// What the handler forgot comes again with a new connection; it forgets at
	// most once per entry.
	for range fails {
		settled()
		b.Disconnect(cluster.Identity())
	}
	settled()

	// superseded says that a newer event of the key is settled, which need not
	// have been confirmed.
	superseded := func(n int) bool {
		for newer := n + keys; newer < len(steps); newer += keys {
			if done[fmt.Sprint(newer)] {
				return true
			}
		}
		return false
	}
	for n := range confirmed {
		if !done[fmt.Sprint(n)] && (!o.Log || !superseded(n)) {
			problems = append(problems, fmt.Sprintf("event %d was confirmed and is not settled", n))
		}
	}
	first := make(map[int]int)
	seen := make(map[string]bool)
	for _, id := range in.got() {
		var n int
		if _, err := fmt.Sscan(id, &n); err != nil {
			problems = append(problems, err.Error())
		}
		if last, ok := first[n%keys]; ok && n < last && !seen[id] {
			problems = append(problems, fmt.Sprintf("event %d came first after event %d", n, last))
		}
		seen[id], first[n%keys] = true, max(first[n%keys], n)
	}
	in.cancel()
	for _, tr := range []brokers.Transport{source, agent} {
		if err := tr.Close(context.Background()); err != nil {
			problems = append(problems, err.Error())
		}
	}
	synctest.Wait()
	return problems
}

func TestManyClusters(t *testing.T) {
	const clusters = 10_000
	synctest.Test(t, func(t *testing.T) {
		b := mem.NewBroker(mem.Options{Delay: time.Second})
		source := b.Open(hub)
		before := runtime.NumGoroutine()
		all := make([]brokers.Transport, 0, clusters)
		boxes := make([]*inbox, clusters)
		for i := range boxes {
			name := fmt.Sprintf("c%d", i)
			all = append(all, b.Open(brokers.Config{Role: brokers.RoleAgent, Name: name}))
			boxes[i] = subscribe(all[i], acknowledge,
				brokers.Filter{Lane: brokers.ToCluster, Source: brokers.Any, Cluster: name},
				brokers.Filter{Lane: brokers.ToAllClusters, Source: brokers.Any})
		}
		settled()
		if n := runtime.NumGoroutine() - before; n > clusters+100 {
			t.Errorf("%d goroutines for %d clusters, want one each", n, clusters)
		}
		publish(t, source, brokers.Topic{Lane: brokers.ToAllClusters, Source: "hub"}, 0)
		for i := range all {
			// Concurrent publishers would need no time in the bubble; in turn,
			// each waits for its confirmation.
			publish(t, source, brokers.Topic{Lane: brokers.ToCluster, Source: "hub", Cluster: fmt.Sprintf("c%d", i)}, 1)
		}
		settled()
		for i, in := range boxes {
			got := in.got()
			slices.Sort(got)
			if !slices.Equal(got, []string{"0", "1"}) {
				t.Fatalf("cluster c%d got %v, want a broadcast and its work", i, got)
			}
		}
		closeAll(t, append(all, source)...)
	})
}
