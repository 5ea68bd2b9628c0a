package children_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fleetcast-io/fleetcast/cmd/standalone/internal/children"
)

const deadline = 60 * time.Second

// script returns a child that is a shell script.
func script(t *testing.T, text string) children.Child {
	t.Helper()
	return children.Child{
		Path:    "/bin/sh",
		Args:    []string{"-c", text},
		LogFile: filepath.Join(t.TempDir(), "log"),
	}
}

// receive waits for a value, so that a test that fails does so with a message.
func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(deadline):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

func TestChildIsStartedAgain(t *testing.T) {
	runs := filepath.Join(t.TempDir(), "runs")
	// The second run goes on until it is told to stop.
	child := script(t, `echo run >> "$RUNS"; echo not yet; echo ready; echo trouble >&2
		[ $(wc -l < "$RUNS") -gt 1 ] && exec cat; exit 3`)
	child.Env = []string{"RUNS=" + runs}
	ready, ended := make(chan struct{}, 8), make(chan error, 8)
	child.Ready = func() { ready <- struct{}{} }
	child.Ended = func(err error, pause time.Duration) {
		if pause <= 0 || pause > 5*time.Second {
			t.Errorf("pause after the first end: %v", pause)
		}
		ended <- err
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- children.Keep(ctx, child) }()

	receive(t, ready, "first ready")
	if err := receive(t, ended, "end of the first run"); !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "trouble") {
		t.Errorf("the reason of the end: got %v, want the exit code and the log", err)
	}
	receive(t, ready, "second ready")
	cancel()
	if err := receive(t, done, "end after the context's"); err != nil {
		t.Errorf("a child that was told to stop: %v", err)
	}
}

func TestChildThatNeverWorked(t *testing.T) {
	for name, text := range map[string]string{"fails": "echo no such file >&2; exit 1", "just ends": "echo no such file >&2"} {
		err := children.Keep(t.Context(), script(t, text))
		if err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("a child that %s: got %v, want an error with the end of its log", name, err)
		}
	}
	if err := children.Keep(t.Context(), children.Child{Path: "/nonexistent", LogFile: filepath.Join(t.TempDir(), "log")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that is not there: got %v", err)
	}
}

// TestChildIsAlone checks what children rely on to not outlive their parent:
// an open standard input, and a process group that no terminal signals.
func TestChildIsAlone(t *testing.T) {
	child := script(t, `echo $$ >&2; echo ready; exec cat`)
	ready := make(chan struct{}, 1)
	child.Ready = func() { ready <- struct{}{} }
	child.Ended = func(error, time.Duration) { t.Error("the child's standard input ended before it was told to stop") }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- children.Keep(ctx, child) }()
	receive(t, ready, "ready")
	content, err := os.ReadFile(child.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		t.Fatalf("the child's log is %q (%v), want its process ID", content, err)
	}
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("process group: got %d (%v), want the child's own %d", group, err, pid)
	}
	cancel()
	receive(t, done, "end")
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the child is still there: %v", err)
	}
}
