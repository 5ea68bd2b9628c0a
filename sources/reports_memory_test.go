package sources_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/sources"
)

// TestCompressedReportsWaitCompressed: while the source cannot take reports, what
// waits is what came, not the many times larger bodies that it stands for.
func TestCompressedReportsWaitCompressed(t *testing.T) {
	heap := func() uint64 {
		runtime.GC() // What pools hold is collected by the second.
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(), &fakeTransport{}
		src.report = func(codec.Report) (sources.Verdict, error) {
			src.mu.Lock()
			defer src.mu.Unlock()
			src.taken = nil // It would hold them.
			return "", sources.ErrNotLoaded
		}
		d := run(t, src, f, sources.Options{})
		f.ready()
		c := codec.NewCompressor()
		before, wire, plain := heap(), 0, 0
		for i := range 40 {
			r, err := codec.NewReport(codec.Bundle{ID: fmt.Sprint("none", i), Source: sourceID, Cluster: "c1", Generation: 1},
				workv1.ManifestWorkStatus{Conditions: []metav1.Condition{{
					Type: "Applied", Status: "True", Reason: "Large", Message: strings.Repeat(fmt.Sprint(i%10), 4<<20),
				}}})
			if err != nil {
				t.Fatal(err)
			}
			r.Agent, r.Sequence = "c1-agent", codec.Sequence(i+1)
			e := encode(t, r, codec.Update)
			small, _ := c.Compress(e)
			wire, plain = wire+small.Size(), plain+e.Size()
			if got := f.deliver(t, toSource("c1"), small); got.String() != "open" {
				t.Fatalf("a report that the source cannot take yet is %s", got)
			}
		}
		if held := int(heap()) - int(before); held > plain/4 {
			t.Errorf("%d KiB came and stand for %d KiB, of which %d KiB are held", wire>>10, plain>>10, held>>10)
		}
		runtime.KeepAlive(d)
	})
}

// TestBrokenReportTakesNoOtherAlong: a report that waits and is superseded by one
// that cannot be decompressed is asked for again.
func TestBrokenReportTakesNoOtherAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := codec.Bundle{ID: "w", Source: sourceID, Cluster: "c1", Generation: 1}
		src, f := newSource(b), &fakeTransport{}
		loaded := make(chan struct{})
		src.report = func(codec.Report) (sources.Verdict, error) {
			select {
			case <-loaded:
				return sources.Accepted, nil
			default:
				return "", sources.ErrNotLoaded
			}
		}
		d := run(t, src, f, sources.Options{})
		f.ready()
		good, _ := compressedReport(t, b, 7)
		broken, _ := compressedReport(t, b, 8)
		broken.Data = broken.Data[:len(broken.Data)-2]
		first, second := f.deliver(t, toSource("c1"), good), f.deliver(t, toSource("c1"), broken)
		f.take()
		close(loaded)
		pass(time.Minute)
		if first.String() != "acknowledged" || second.String() != "rejected" {
			t.Errorf("the good report is %s and the broken one %s", first, second)
		}
		if asked := f.take(); !slices.Contains(asked, "c1 status? 1") {
			t.Errorf("the cluster was not asked for the status, but sent %q", asked)
		}
		if n := value(t, d, "fleetcast_events_total", "type", "report", "result", "stale"); n != 1 {
			t.Errorf("%v superseded reports are counted, want 1", n)
		}
	})
}
