package agents

import (
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/fleetcast-io/fleetcast/codec"
)

func openDisk(t *testing.T, dir, cluster string) *Disk {
	t.Helper()
	d, err := OpenDisk(dir, cluster)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDiskKeepsEverything(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "dir")
	d := openDisk(t, dir, "c1")
	next := live(9, `{"b":1}`)
	full := &Record{
		Bundle: codec.Bundle{
			ID: "w1", Source: "hub1", Cluster: "c1", Generation: 7, DeletedAt: t1,
			Metadata: []byte(`{"name":"w"}`), Payload: []byte(" {\"a\": \"<\\u00e9>\"} "), Trace: `{"x":"y"}`,
		},
		Next: &next, NextSent: t1,
		Report: codec.Report{
			ID: "w1", Source: "hub1", Cluster: "c1", Generation: 7, Agent: "a", Sequence: 99, Hash: "h", Payload: []byte(`{}`),
		},
		Unsent: true, Told: "short", GoneAt: t2, Buried: t0.Add(time.Nanosecond),
	}
	want := State{
		Works: map[Key]*Record{
			{"hub1", "w1"}: full,
			{"hub2", "w1"}: {Bundle: live(1, "{}")}, // Another source's work may have the same ID.
		},
		Sequence: 1 << 62, Cursor: "stream:42",
		Peers: map[string]Peer{"hub1": {Capabilities: []string{"digest", "more"}, Epoch: "e1", Term: 3, Sequence: 1 << 61}, "hub2": {Term: 1}},
	}
	changes := Changes{Works: map[Key]*Record{{"hub1", "gone"}: full}, Peers: map[string]Peer{"hub1": {Term: 2}, "hub2": {Term: 1}}}
	maps.Copy(changes.Works, want.Works)
	if err := d.Commit(changes); err != nil {
		t.Fatal(err)
	}
	second := Changes{Works: map[Key]*Record{{"hub1", "gone"}: nil}, Sequence: want.Sequence, Cursor: want.Cursor, Peers: map[string]Peer{"hub1": want.Peers["hub1"]}}
	if err := d.Commit(second); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	d = openDisk(t, dir, "c1")
	defer d.Close()
	got, err := d.Load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("after reopening (-want +got):\n%s", diff)
	}
}

func TestDiskRefusesAnotherClustersStore(t *testing.T) {
	dir := t.TempDir()
	d := openDisk(t, dir, "c1")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDisk(dir, "c2"); !errors.Is(err, ErrStoreForeign) {
		t.Errorf("open for cluster c2 = %v, want ErrStoreForeign", err)
	}
	d = openDisk(t, dir, "c1") // It was left as it is.
	defer d.Close()
}

func TestDiskRefusesGarbage(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, diskFile), []byte("this is no database, whatever its name says"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDisk(dir, "c1"); err == nil {
		t.Error("open of a file that is no store succeeded; forgetting what was there would lose works")
	}
}

// TestDiskReadsFormat1 opens a store that was written before the agent knew
// anything of its sources.
func TestDiskReadsFormat1(t *testing.T) {
	packed, err := os.Open(filepath.Join("testdata", "format-1.db.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	unpacked, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, diskFile), content, 0o600); err != nil {
		t.Fatal(err)
	}

	deleted := time.Date(2026, 2, 3, 4, 6, 0, 0, time.UTC)
	want := State{
		Works: map[Key]*Record{
			{"hub1", "w1"}: {
				Bundle: codec.Bundle{
					ID: "w1", Source: "hub1", Cluster: "c1", Generation: 7,
					Metadata: []byte(`{"name":"web"}`), Payload: []byte(`{"manifests":[]}`), Trace: `{"x":"y"}`,
				},
				Sent: deleted,
				Report: codec.Report{
					ID: "w1", Source: "hub1", Cluster: "c1", Generation: 7, Agent: "c1-work-agent", Sequence: 99, Hash: "h", Payload: []byte(`{}`),
				},
				Unsent: true,
			},
			{"hub1", "w2"}: {
				Bundle: codec.Bundle{ID: "w2", Source: "hub1", Cluster: "c1", Generation: 8, DeletedAt: deleted},
				Next:   &codec.Bundle{ID: "w2", Source: "hub1", Cluster: "c1", Generation: 9, Payload: []byte(`{"b":1}`)},
				Buried: deleted.Add(-time.Hour), Ended: deleted.Add(-time.Minute),
			},
			{"hub2", "w1"}: {
				Bundle: codec.Bundle{ID: "w1", Source: "hub2", Cluster: "c1", Generation: 3, DeletedAt: deleted},
				GoneAt: deleted.Add(time.Minute), Buried: deleted,
			},
		},
		Sequence: 1 << 40, Cursor: "stream:42", Peers: map[string]Peer{},
	}
	d := openDisk(t, dir, "c1")
	got, err := d.Load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("store of format 1 (-want +got):\n%s", diff)
	}

	// It goes on in the same format, so that the version before can still read
	// what is its own.
	if err := d.Commit(Changes{Sequence: want.Sequence, Cursor: want.Cursor, Peers: map[string]Peer{"hub1": {Term: 4}}}); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openDisk(t, dir, "c1")
	defer d.Close()
	want.Peers["hub1"] = Peer{Term: 4}
	if got, err = d.Load(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("after a peer was added (-want +got):\n%s", diff)
	}
}

// TestDiskCommitsAllOrNothing: what cannot be written takes everything of its
// commit with it, works, sequence, cursor and peers alike.
func TestDiskCommitsAllOrNothing(t *testing.T) {
	d := openDisk(t, t.TempDir(), "c1")
	defer d.Close()
	before := State{
		Works:    map[Key]*Record{{"hub1", "w"}: {Bundle: live(1, "{}")}},
		Sequence: 7, Cursor: "stream:1", Peers: map[string]Peer{"hub1": {Term: 1}},
	}
	if err := d.Commit(Changes(before)); err != nil {
		t.Fatal(err)
	}
	tooLong := strings.Repeat("x", bolt.MaxKeySize+1)
	for name, c := range map[string]Changes{
		"a work that cannot be a key": {Works: map[Key]*Record{{"hub1", tooLong}: {Bundle: live(2, "{}")}}},
		"a peer that cannot be a key": {Peers: map[string]Peer{tooLong: {}}},
	} {
		t.Run(name, func(t *testing.T) {
			works := map[Key]*Record{{"hub1", "w"}: {Bundle: live(2, "{}")}, {"hub1", "w2"}: {Bundle: live(1, "{}")}}
			maps.Copy(works, c.Works)
			peers := map[string]Peer{"hub1": {Term: 2}}
			maps.Copy(peers, c.Peers)
			if err := d.Commit(Changes{Works: works, Sequence: 8, Cursor: "stream:2", Peers: peers}); err == nil {
				t.Fatal("Commit of what cannot be written succeeded")
			}
			got, err := d.Load()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, got); diff != "" {
				t.Errorf("after a failed commit (-want +got):\n%s", diff)
			}
		})
	}
}
