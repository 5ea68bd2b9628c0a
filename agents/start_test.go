package agents_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
)

// BenchmarkStart starts an agent on a disk with 5,000 works of 2 KB that were
// reported on: until it knows them, and until its applier has seen them all.
func BenchmarkStart(b *testing.B) {
	const works = 5000
	dir := b.TempDir()
	fill(b, dir, works)
	open := func(b *testing.B, applier agents.Applier) (*agents.Agent, func()) {
		b.Helper()
		disk, err := agents.OpenDisk(dir, "c1")
		if err != nil {
			b.Fatal(err)
		}
		transport := mem.NewBroker(mem.Options{}).Open(brokers.Config{Role: brokers.RoleAgent, Name: "c1"})
		a, err := agents.New("c1", disk, applier, transport, agents.Options{Sources: []string{"hub1"}})
		if err != nil {
			b.Fatal(err)
		}
		return a, func() {
			if err := transport.Close(context.Background()); err != nil {
				b.Error(err)
			}
			if err := disk.Close(); err != nil {
				b.Error(err)
			}
		}
	}
	b.Run("known", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, stop := open(b, newCluster())
			stop()
		}
	})
	b.Run("applied", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			seen := &counting{cluster: newCluster(), left: works, all: make(chan struct{})}
			a, stop := open(b, seen)
			ctx, cancel := context.WithCancel(context.Background())
			var running sync.WaitGroup
			running.Go(func() {
				if err := a.Run(ctx); err != nil {
					b.Error(err)
				}
			})
			<-seen.all
			cancel()
			running.Wait()
			stop()
		}
	})
}

// fill writes the store of an agent that applied works and reported on them.
func fill(b *testing.B, dir string, works int) {
	b.Helper()
	disk, err := agents.OpenDisk(dir, "c1")
	if err != nil {
		b.Fatal(err)
	}
	c := agents.Changes{
		Works: map[agents.Key]*agents.Record{}, Sequence: codec.Sequence(works),
		Peers: map[string]agents.Peer{"hub1": {Capabilities: []string{codec.CapDigest}, Epoch: "e1", Term: 1}},
	}
	for i := range works {
		w := work("hub1", fmt.Sprintf("71913eda-1478-4abc-a625-69b6114a%04d", i), 1, strings.Repeat("x", 2000))
		r := status(w, "Applied", metav1.ConditionTrue)
		r.Agent, r.Sequence = "c1-work-agent", codec.Sequence(i+1)
		c.Works[agents.Key{Source: w.Source, ID: w.ID}] = &agents.Record{Bundle: w, Sent: time.Unix(1767225600, 0), Report: r}
	}
	if err := disk.Commit(c); err != nil {
		b.Fatal(err)
	}
	if err := disk.Close(); err != nil {
		b.Fatal(err)
	}
}

// counting closes all when so many works as are left were applied.
type counting struct {
	*cluster
	mu   sync.Mutex
	left int
	all  chan struct{}
}

func (c *counting) Apply(ctx context.Context, b codec.Bundle, last codec.Report) (codec.Report, error) {
	r, err := c.cluster.Apply(ctx, b, last)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left--; c.left == 0 {
		close(c.all)
	}
	return r, err
}
