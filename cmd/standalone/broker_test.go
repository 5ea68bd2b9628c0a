package main

import (
	"strings"
	"syscall"
	"testing"
)

func TestBrokerCommand(t *testing.T) {
	dir := t.TempDir()
	args := []string{"broker", "--data-dir", dir, "--listen", "mqtt://127.0.0.1:0"}
	first := start(t, args...)
	if code, stderr := run(t, args...); code != exitFailure || !strings.Contains(stderr, "in use by another process") {
		t.Errorf("a second broker on the same directory ended with %d:\n%s", code, stderr)
	}
	first.end(t, syscall.SIGKILL)
	second := start(t, args...)
	if first.ready != second.ready || !strings.HasPrefix(first.ready, "ready mqtt://127.0.0.1:") {
		t.Errorf("address: got %q, and %q after a restart", first.ready, second.ready)
	}
	if code := second.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("told to stop, it ended with %d", code)
	}
}
