package agents

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
		Next: &next,
		Report: codec.Report{
			ID: "w1", Source: "hub1", Cluster: "c1", Generation: 7, Agent: "a", Sequence: 99, Hash: "h", Payload: []byte(`{}`),
		},
		Unsent: true, GoneAt: t2, Buried: t0.Add(time.Nanosecond),
	}
	want := State{
		Works: map[Key]*Record{
			{"hub1", "w1"}: full,
			{"hub2", "w1"}: {Bundle: live(1, "{}")}, // Another source's work may have the same ID.
		},
		Sequence: 1 << 62, Cursor: "stream:42",
	}
	changes := Changes{Works: map[Key]*Record{{"hub1", "gone"}: full}}
	maps.Copy(changes.Works, want.Works)
	if err := d.Commit(changes); err != nil {
		t.Fatal(err)
	}
	second := Changes{Works: map[Key]*Record{{"hub1", "gone"}: nil}, Sequence: want.Sequence, Cursor: want.Cursor}
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
