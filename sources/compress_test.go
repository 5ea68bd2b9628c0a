package sources_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/memory"
)

// putLarge puts a work that is worth compressing.
func putLarge(t *testing.T, src *memory.Source, cluster, name string) {
	t.Helper()
	w := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Namespace: cluster, Name: name}}
	w.Spec.Workload.Manifests = []workv1.Manifest{{RawExtension: runtime.RawExtension{Raw: fmt.Appendf(nil,
		`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"text":%q}}`, strings.Repeat("all work and no play ", 200))}}}
	if _, err := src.Put(w); err != nil {
		t.Fatal(err)
	}
}

// takePacked returns what was published compressed since the last call.
func (f *fakeTransport) takePacked() []string {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	packed := f.packed
	f.packed = nil
	return packed
}

// TestWorksByCapability: in a mixed fleet, works are compressed for the clusters
// whose agents last named that, if they are large, and for no others.
func TestWorksByCapability(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		d := start(t, src, f, sources.Options{})
		able, plain, ocm := newScripted(t, f, "able"), newScripted(t, f, "plain"), newScripted(t, f, "ocm")
		able.can = []string{codec.CapZstd}
		able.syncs()
		plain.syncs()
		ocm.asks()
		pass(time.Minute)
		round := func(reason, name string, want ...string) {
			t.Helper()
			f.take()
			for _, cluster := range []string{"able", "plain", "ocm", "silent"} {
				putLarge(t, src, cluster, name)
				put(t, src, cluster, name+"-small")
			}
			pass(time.Second)
			got := slices.Sorted(slices.Values(f.takePacked()))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: compressed are (-want +got):\n%s", reason, diff)
			}
			if n := len(f.takeBundles()); n < 8 {
				t.Errorf("%s: %d works were published, want all 8", reason, n)
			}
		}
		round("a mixed fleet", "a", fmt.Sprintf("able/%s@1 create_request", id("able", "a")))
		if before, after := compressedBytes(t, d, "plain"), compressedBytes(t, d, "compressed"); before < 4000 || after <= 0 || after > before/4 {
			t.Errorf("%v bytes became %v", before, after)
		}
		able.can = nil
		able.digest()
		round("an agent that was replaced by an older one", "b")
		able.can = []string{codec.CapZstd}
		able.digest()
		round("and by a newer one", "c", fmt.Sprintf("able/%s@1 create_request", id("able", "c")))
		able.asks()
		round("one of OCM's in its place", "d")
	})
}

func compressedBytes(t *testing.T, d *sources.Dispatcher, form string) float64 {
	t.Helper()
	return value(t, d, "fleetcast_compression_bytes_total", "form", form)
}

// TestAnUpgradeBringsWhatWasTooLarge: a work that fits the broker's packets only
// when it is compressed waits for an agent that takes it so, and says that.
func TestAnUpgradeBringsWhatWasTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := &reasons{Source: memory.New(sourceID)}, &fakeTransport{}
		d := run(t, src, f, sources.Options{})
		src.Notify(d.Changed)
		f.ready()
		a := newScripted(t, f, "c1")
		a.syncs()
		f.setLimit(func(packed bool) error {
			if packed {
				return nil
			}
			return fmt.Errorf("%w: it has 5000 bytes, the limit is 4321", brokers.ErrTooLarge)
		})
		putLarge(t, src.Source, "c1", "w")
		pass(time.Minute)
		why := src.last()
		for _, part := range []string{"take 42", "which would have", codec.CapZstd, "the limit is 4321"} {
			if !strings.Contains(why, part) {
				t.Errorf("the source heard %q, want %q in it", why, part)
			}
		}
		a.digest() // Nothing has changed.
		pass(time.Minute)
		f.takePacked()
		if again := src.last(); again != why {
			t.Errorf("the source heard %q of a work that it had heard of", again)
		}
		a.can = []string{codec.CapZstd}
		a.digest()
		pass(time.Second)
		if got := f.takePacked(); len(got) != 1 || src.last() != "" {
			t.Errorf("published compressed: %q, the source heard last: %q; want the work, and that it was sent", got, src.last())
		}

		f.setLimit(func(bool) error { return fmt.Errorf("%w: it has 500 bytes, the limit is 321", brokers.ErrTooLarge) })
		putLarge(t, src.Source, "c1", "larger")
		pass(time.Minute)
		if why := src.last(); !strings.Contains(why, " compressed: ") || !strings.Contains(why, "the limit is 321") {
			t.Errorf("the source heard %q, want both sizes and the limit", why)
		}
	})
}

// TestOnlyCompressedFits: an event that compressing does not make smaller by much
// goes plain, unless that is what makes it fit.
func TestOnlyCompressedFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		a.can = []string{codec.CapZstd}
		a.syncs()
		noise := make([]byte, 10_000)
		_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // Never fails.
		w := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Namespace: "c1", Name: "w"}}
		w.Spec.Workload.Manifests = []workv1.Manifest{{RawExtension: runtime.RawExtension{Raw: fmt.Appendf(nil,
			`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"binaryData":{"noise":%q}}`, base64.StdEncoding.EncodeToString(noise))}}}
		for generation, tc := range []struct {
			reason string
			limit  func(bool) error
			packed int
		}{
			{"it is not worth it", nil, 0},
			{"it does not fit otherwise", func(packed bool) error {
				if packed {
					return nil
				}
				return brokers.ErrTooLarge
			}, 1},
		} {
			f.setLimit(tc.limit)
			w.Generation = int64(generation)
			w.Labels = map[string]string{"generation": fmt.Sprint(generation)}
			if _, err := src.Put(w); err != nil {
				t.Fatal(err)
			}
			pass(time.Second)
			if got := f.takePacked(); len(got) != tc.packed {
				t.Errorf("%s: published compressed: %q, want %d", tc.reason, got, tc.packed)
			}
		}
	})
}

// reasons is a source that keeps why its last work could not be sent.
type reasons struct {
	*memory.Source
	mu  sync.Mutex
	why string
}

// Refused implements sources.Refuser.
func (r *reasons) Refused(_ context.Context, _ sources.Key, _ int64, reason error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.why = ""
	if reason != nil {
		r.why = reason.Error()
	}
	return nil
}

func (r *reasons) last() string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.why
}

// setLimit replaces what the broker takes.
func (f *fakeTransport) setLimit(limit func(packed bool) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limit = limit
}

// compressedReport is a large report on a work, compressed, and its status hash.
func compressedReport(t *testing.T, b codec.Bundle, sequence codec.Sequence) (event.Event, string) {
	t.Helper()
	s := workv1.ManifestWorkStatus{}
	for i := range 100 {
		s.ResourceStatus.Manifests = append(s.ResourceStatus.Manifests, workv1.ManifestCondition{
			ResourceMeta: workv1.ManifestResourceMeta{Ordinal: int32(i), Kind: "ConfigMap", Name: fmt.Sprint("settings-", i)},
		})
	}
	r, err := codec.NewReport(b, s)
	if err != nil {
		t.Fatal(err)
	}
	r.Agent, r.Sequence = b.Cluster+"-agent", sequence
	small, worth := codec.NewCompressor().Compress(encode(t, r, codec.Update))
	if !worth {
		t.Fatal("the report is not worth compressing")
	}
	return small, r.Hash
}

// TestCompressedReports: one is taken as a plain one is. What cannot be
// decompressed, or is not from where it says, is dropped by name; the former has
// its cluster hear that compressed reports are not read, and asked for what is
// missing.
func TestCompressedReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		d := start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		a.can = []string{codec.CapZstd}
		b := put(t, src, "c1", "w")
		a.syncs()
		small, hash := compressedReport(t, b, 7)
		if got := f.deliver(t, toSource("c1"), small); got.String() != "acknowledged" {
			t.Errorf("a compressed report is %s", got)
		}
		held, err := src.Held(t.Context(), "c1")
		if err != nil || held[0].StatusHash != hash {
			t.Errorf("the source holds %+v, %v, want the status of the report", held, err)
		}
		named := func() string {
			for _, m := range slices.Backward(a.heard()) {
				if hello, ok := m.(codec.Hello); ok {
					return strings.Join(hello.Capabilities, ",")
				}
			}
			return "nothing"
		}
		drop := func(reason, want string, change func(*event.Event)) {
			t.Helper()
			hostile, _ := compressedReport(t, b, 8)
			change(&hostile)
			if got := f.deliver(t, toSource("c1"), hostile); got.String() != "rejected" {
				t.Errorf("%s is %s", reason, got)
			}
			if n := value(t, d, "fleetcast_events_total", "result", want); n != 1 {
				t.Errorf("%s is counted %v times as %s", reason, n, want)
			}
		}
		a.heard()
		drop("one that says to be of another cluster", "foreign_cluster", func(e *event.Event) { e.Set("clustername", "c2"); e.Data = []byte("x") })
		drop("one for another source", "mismatch", func(e *event.Event) { e.Set("originalsource", "hub2"); e.Data = []byte("x") })
		drop("one in an encoding that nobody knows", "unknown_encoding", func(e *event.Event) { e.Set(event.DataContentType, "application/json+br") })
		pass(time.Minute)
		if got := named(); got != "nothing" {
			t.Errorf("after what is no fault of its compression the cluster heard %s", got)
		}
		drop("a bomb", "bomb", func(e *event.Event) { e.Data = slices.Concat(e.Data, e.Data) })
		pass(time.Minute)
		if got := named(); got != codec.CapDigest {
			t.Errorf("after a bomb the cluster heard %s, want %s only", got, codec.CapDigest)
		}
		drop("a torn one", "malformed", func(e *event.Event) { e.Data = e.Data[:len(e.Data)-2] })
		pass(2 * time.Hour)
		a.heard()
		a.beats(true)
		pass(time.Minute)
		if got := named(); got != codec.CapDigest+","+codec.CapZstd {
			t.Errorf("two hours later the cluster heard %s", got)
		}
	})
}

// TestHelloToAllLeavesDistrust: a cluster whose compressed reports cannot be read
// is told so again after a hello to all, which names what all others may do.
func TestHelloToAllLeavesDistrust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		a.can = []string{codec.CapZstd}
		b := put(t, src, "c1", "w")
		a.syncs()
		told := func() (hellos []string) {
			for _, m := range a.heard() {
				if hello, ok := m.(codec.Hello); ok {
					hellos = append(hellos, strings.Join(hello.Capabilities, ","))
				}
			}
			return hellos
		}
		broken := func(n codec.Sequence) {
			e, _ := compressedReport(t, b, n)
			e.Data = e.Data[:len(e.Data)-2]
			f.deliver(t, toSource("c1"), e)
		}
		told()
		broken(8)
		pass(time.Minute)
		a.syncs()
		told()
		f.ready() // A reconnection to the broker.
		pass(time.Second)
		f.mu.Lock()
		all, ok := f.broadcasts[len(f.broadcasts)-1].(codec.Hello)
		f.mu.Unlock()
		if !ok || !slices.Contains(all.Capabilities, codec.CapZstd) {
			t.Fatalf("all were told %+v, which is to name %s", all, codec.CapZstd)
		}
		if got := told(); !slices.Equal(got, []string{codec.CapDigest}) {
			t.Errorf("after the hello to all c1 was told %q, want %s", got, codec.CapDigest)
		}
		a.syncs()
		pass(time.Minute)
		told()
		broken(9) // It was under way.
		pass(time.Minute)
		if got := told(); len(got) != 0 {
			t.Errorf("c1 was told %q, which it had been told", got)
		}
		pass(2 * time.Hour)
		a.beats(true)
		a.syncs()
		told()
		f.ready()
		pass(time.Second)
		if got := told(); len(got) != 0 {
			t.Errorf("when the distrust is over c1 is told %q beside what all are told", got)
		}
	})
}
