package agents_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// compressedWork is the event of a work that is large enough to be compressed,
// and the text that it consists of.
func (b *bench) compressedWork(id string, generation int64) (event.Event, string) {
	b.t.Helper()
	text := strings.Repeat("all work and no play ", 500)
	small, worth := b.zstd.Compress(b.encode(work("hub1", id, generation, text), codec.Update))
	if !worth {
		b.t.Fatal("the work is not worth compressing")
	}
	return small, text
}

// lastPacked says whether the newest report on a work came compressed.
func (b *bench) lastPacked(id string) bool {
	s := b.last(id).Sequence
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.packed[s]
}

// lastNamed is what the agent last named as its capabilities.
func (h *hub) lastNamed() []string {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	if len(h.digests) == 0 {
		return nil
	}
	return h.digests[len(h.digests)-1].Capabilities
}

// TestCompressedWork: a compressed work is held, applied and compared as a plain
// one is.
func TestCompressedWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		a, _ := b.run(agents.Options{})
		b.settle(time.Second)
		h.becomes(codec.CapDigest, codec.CapZstd)
		b.settle(time.Minute)
		if named := h.lastNamed(); !slices.Contains(named, codec.CapZstd) {
			t.Errorf("the agent names %q, want %s among it", named, codec.CapZstd)
		}
		small, text := b.compressedWork("w", 1)
		h.want(work("hub1", "w", 1, text), true)
		b.publishEvent(small)
		b.settle(2 * time.Minute)
		wantHas(t, b.cluster, map[string]string{"hub1/w": text})
		if !a.InSync("hub1") || len(h.sent) != 0 {
			t.Errorf("in sync %v, sent again %q; want in sync by the first digest", a.InSync("hub1"), h.sent)
		}
	})
}

// TestReportsByCapability: a report is compressed for who last said to read
// that, if it is large, and for nobody else.
func TestReportsByCapability(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		b.applier = &bigReports{cluster: b.cluster}
		_, stop := b.run(agents.Options{})
		b.settle(time.Second)
		expect := func(reason, id string, want bool) {
			t.Helper()
			h.want(work("hub1", id, 1, id), false)
			b.settle(time.Minute)
			if b.last(id).ID == "" || b.lastPacked(id) != want {
				t.Errorf("%s: there is a report: %v; compressed: %v, want %v", reason, b.last(id).ID != "", b.lastPacked(id), want)
			}
		}
		expect("a source of which nothing is known", "a", false)
		h.becomes(codec.CapDigest)
		expect("one that knows digests only", "b", false)
		h.becomes(codec.CapDigest, codec.CapZstd)
		expect("one that reads it", "c", true)
		stop()
		b.run(agents.Options{})
		b.settle(time.Second)
		expect("one that read it before the agent's restart", "d", true)
		h.becomes(codec.CapDigest)
		expect("one that does not read it any more", "e", false)
		h.becomes(codec.CapDigest, codec.CapZstd)
		b.settle(time.Minute)
		b.mu.Lock()
		h.term++ // It answers digests in another term, before it said what it can do.
		b.mu.Unlock()
		b.settle(25 * time.Minute)
		expect("one that another took over from", "f", false)
	})
}

// TestTooLargeReportIsCompressed before anything of it is left out.
func TestTooLargeReportIsCompressed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.broker = mem.NewBroker(mem.Options{MaxSize: 8000})
		b.source = b.listen("hub1")
		h := b.newHub("hub1")
		b.applier = &bigReports{cluster: b.cluster}
		b.run(agents.Options{})
		b.settle(time.Second)
		h.becomes(codec.CapDigest, codec.CapZstd)
		b.settle(time.Minute)
		h.want(work("hub1", "w", 1, "one"), false)
		b.settle(time.Minute)
		s, err := b.last("w").Status()
		if err != nil || len(s.ResourceStatus.Manifests) != 100 || !b.lastPacked("w") {
			t.Errorf("%d manifests in the report, compressed: %v, %v; want all 100", len(s.ResourceStatus.Manifests), b.lastPacked("w"), err)
		}
	})
}

// TestUnreadableCompressedWork: what cannot be decompressed is refused by name,
// and has the source send plain works for an hour.
func TestUnreadableCompressedWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		a, _ := b.run(agents.Options{})
		b.settle(time.Second)
		h.becomes(codec.CapDigest, codec.CapZstd)
		b.settle(time.Minute)

		small, text := b.compressedWork("w", 1)
		h.want(work("hub1", "w", 1, text), true)
		small.Data = slices.Concat(small.Data, small.Data) // More than its first frame says.
		b.publishEvent(small)
		b.settle(time.Minute)
		b.mu.Lock()
		first := b.reports[0]
		b.mu.Unlock()
		c := conditionOf(t, first, "Applied")
		if c.Status != metav1.ConditionFalse || c.Reason != agents.ReasonRejected || !strings.Contains(c.Message, codec.ErrBomb.Error()) {
			t.Errorf("condition = %+v, want Rejected and why", c)
		}
		if named := h.lastNamed(); slices.Contains(named, codec.CapZstd) {
			t.Errorf("the agent still names %q", named)
		}
		wantHas(t, b.cluster, map[string]string{"hub1/w": text}) // By comparison.
		if !a.InSync("hub1") {
			t.Error("not in sync")
		}
		b.settle(2 * time.Hour)
		if named := h.lastNamed(); !slices.Contains(named, codec.CapZstd) {
			t.Errorf("after two hours the agent names %q", named)
		}
	})
}

// TestForeignCompressedWork: what does not come from where it says is dropped
// before anything of it is decompressed, and takes nothing from its address.
func TestForeignCompressedWork(t *testing.T) {
	for name, attribute := range map[string]string{"another source": event.Source, "another cluster": "clustername"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				h := b.newHub("hub1")
				b.run(agents.Options{})
				b.settle(time.Second)
				h.becomes(codec.CapDigest, codec.CapZstd)
				small, _ := b.compressedWork("w", 1)
				small.Data = []byte("(\xb5/\xfd and nothing else") // It would be refused, were it looked at.
				small.Set(attribute, "liar")
				b.publishEvent(small)
				b.settle(time.Hour)
				if named := h.lastNamed(); b.sent() != 0 || !slices.Contains(named, codec.CapZstd) {
					t.Errorf("%d reports, the agent names %q; want nothing of it to matter", b.sent(), named)
				}
			})
		})
	}
}

// TestReportsForOCMInAHubsPlace: compressed reports that an OCM source cannot
// have read reach it plain, once its silence shows that it is one.
func TestReportsForOCMInAHubsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		b.applier = &bigReports{cluster: b.cluster}
		b.run(agents.Options{})
		b.settle(time.Second)
		h.becomes(codec.CapDigest, codec.CapZstd)
		h.want(work("hub1", "old", 1, "one"), false)
		b.settle(time.Minute)
		h.downgrade()
		before := b.sent()
		h.want(work("hub1", "new", 1, "one"), false)
		b.settle(5 * time.Second)
		if got := b.sent() - before; got != 0 {
			t.Fatalf("an OCM source read %d compressed reports", got)
		}
		b.settle(5 * time.Minute)
		if b.last("new").ID == "" || b.lastPacked("new") {
			t.Error("the report on what was sent since did not come plain")
		}
		if got := b.sent() - before; got != 1 {
			t.Errorf("%d reports, want that one only: the hub had confirmed the other", got)
		}
		h.want(work("hub1", "newer", 1, "one"), false)
		b.settle(5 * time.Second)
		if b.last("newer").ID == "" || b.lastPacked("newer") {
			t.Error("the next report did not come plain at once")
		}
	})
}

// TestCompressedReportForWhoCannotRead is the other way: the agent hears that its
// source does not read compressed reports, and is asked for what is missing.
func TestCompressedReportForWhoCannotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.newHub("hub1")
		b.applier = &bigReports{cluster: b.cluster}
		b.run(agents.Options{})
		b.settle(time.Second)
		h.becomes(codec.CapDigest, codec.CapZstd)
		h.want(work("hub1", "w", 1, "one"), false)
		b.settle(time.Minute)
		h.tell(codec.StatusResync{Source: "hub1", Cluster: "c1", Hashes: []codec.StatusHash{{ID: "w", Hash: strings.Repeat("0", 64)}}}, codec.ResyncRequest)
		b.settle(time.Second)
		if !b.lastPacked("w") {
			t.Error("a report that is asked for again does not come compressed")
		}
		h.becomes(codec.CapDigest)
		h.tell(codec.StatusResync{Source: "hub1", Cluster: "c1", Hashes: []codec.StatusHash{{ID: "w", Hash: strings.Repeat("1", 64)}}}, codec.ResyncRequest)
		b.settle(time.Second)
		if b.lastPacked("w") {
			t.Error("a report to who reads no compressed ones any more is not plain")
		}
	})
}
