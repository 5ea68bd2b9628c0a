package datadir_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/fleetcast-io/fleetcast/cmd/standalone/internal/datadir"
)

func TestOneProcessHasTheDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "dir")
	first, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := datadir.Open(path); !errors.Is(err, datadir.ErrInUse) {
		t.Errorf("open a directory that is in use: got %v, want ErrInUse", err)
	}
	first.Close()
	second, err := datadir.Open(path)
	if err != nil {
		t.Fatalf("open a directory that was closed: %v", err)
	}
	second.Close()
}

func TestRemembersBetweenRuns(t *testing.T) {
	path := t.TempDir()
	type settings struct{ Port int }
	dir, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	got := settings{Port: 1}
	if err := dir.Recall("server", &got); err != nil || got.Port != 1 {
		t.Errorf("recall what was never remembered: got %v (%v), want the value as it was", got, err)
	}
	if err := dir.Remember("server", settings{Port: 2}); err != nil {
		t.Fatal(err)
	}
	dir.Close()
	if dir, err = datadir.Open(path); err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := dir.Recall("server", &got); err != nil || got.Port != 2 {
		t.Errorf("recall: got %v (%v), want what was remembered", got, err)
	}
	if err := os.WriteFile(dir.Path("server.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := dir.Recall("server", &got); err == nil {
		t.Error("a damaged file passed for settings")
	}
}

func TestWriteFileReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := datadir.WriteFile(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil || string(content) != "new" {
		t.Errorf("content: got %q (%v), want new", content, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: got %v (%v), want 0600", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("files beside the one that was written: %v (%v)", entries, err)
	}
	if err := datadir.WriteFile(filepath.Join(dir, "missing", "file"), nil); err == nil {
		t.Error("a file in a directory that does not exist was written")
	}
}
