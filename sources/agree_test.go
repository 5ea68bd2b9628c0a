package sources_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/memory"
)

// TestAgrees: a source restored from a backup agrees with a cluster on what that
// holds just so, once it was found to, and not on what the cluster has a later
// state of.
func TestAgrees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		a := newScripted(t, f, "c1")
		ahead, other := put(t, src, "c1", "w"), put(t, src, "c1", "other")
		a.takes(ahead)
		a.takes(other)
		backup := src.Snapshot()
		a.takes(put(t, src, "c1", "w"))
		d := start(t, backup, f, sources.Options{})
		pass(time.Hour)
		expect := func(reason, id string, want bool) {
			t.Helper()
			if got := d.Agrees(sources.Key{Cluster: "c1", ID: id}); got != want {
				t.Errorf("%s: it agrees %t, want %t", reason, got, want)
			}
		}
		expect("nothing was heard of the cluster", other.ID, false)
		a.talk()
		expectTalk(t, "in sync, but for what the cluster is ahead of", a.talk(), "match, 0 unclaimed")
		expect("the cluster has it", other.ID, true)
		expect("the cluster has a later one", ahead.ID, false)
		if d.Agrees(sources.Key{Cluster: "c2", ID: other.ID}) {
			t.Error("it agrees with a cluster that was never heard")
		}
	})
}

// TestAgreesWithoutDigests: an agent of OCM tells what it has beyond the source when
// it is asked, some time after it is heard.
func TestAgreesWithoutDigests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		w := put(t, src, "c1", "w")
		k := sources.Key{Cluster: "c1", ID: w.ID}
		d := start(t, src, f, sources.Options{})
		pass(time.Hour)
		if d.Agrees(k) {
			t.Error("it agrees before anything was heard")
		}
		newScripted(t, f, "c1").asks()
		pass(9 * time.Minute)
		if d.Agrees(k) {
			t.Error("it agrees before the cluster had time to report")
		}
		pass(2 * time.Minute)
		if !d.Agrees(k) {
			t.Error("it does not agree with a cluster that had time enough")
		}
	})
}
