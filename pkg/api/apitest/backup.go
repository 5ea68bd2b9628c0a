package apitest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A Backup is a copy of what a server keeps, as of one moment.
type Backup struct {
	server *Server
	copied string
}

// BackUp copies what the server keeps. The server is restarted around that.
func (s *Server) BackUp(t testing.TB) Backup {
	t.Helper()
	b := Backup{server: s, copied: filepath.Join(t.TempDir(), "backup")}
	s.Stop(t)
	if err := os.CopyFS(b.copied, os.DirFS(s.dir)); err != nil {
		t.Fatal(err)
	}
	s.Restart(t)
	return b
}

// Restore has the server start with what it had then. What its clients had
// read since is of a past that it does not know: its resource versions go back.
func (b Backup) Restore(t testing.TB) {
	t.Helper()
	b.server.Stop(t)
	if err := errors.Join(os.RemoveAll(b.server.dir), os.CopyFS(b.server.dir, os.DirFS(b.copied))); err != nil {
		t.Fatal(err)
	}
	b.server.Restart(t)
}
