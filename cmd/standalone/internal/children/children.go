// Package children keeps child processes running, and lets none of them outlive
// this one.
package children

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	// stopTimeout is how long a child that was told to stop may take.
	stopTimeout = 30 * time.Second
	// settled is how long a child runs before its next end counts as the first.
	settled = time.Minute
	maxLine = 1 << 10
)

// A Child is a program that says "ready" in a line of its standard output, and
// ends when its standard input does.
type Child struct {
	// Path and Args are the program and its arguments, without its name.
	Path string
	Args []string
	// Env is added to this process's environment.
	Env []string
	// LogFile receives the program's standard error; what is in it when Keep is
	// called is lost.
	LogFile string

	// Ready, if set, is called each time the program says that it is ready.
	Ready func()
	// Ended, if set, is called when the program ended by itself and will be
	// started again after the pause.
	Ended func(err error, pause time.Duration)
}

// Keep runs the child, and starts it again when it ends, until ctx ends; it
// returns nil when the child has ended then. It returns an error if the child
// ends before it was ready for the first time: what never worked is not a matter
// of trying again.
func Keep(ctx context.Context, c Child) error {
	if err := os.WriteFile(c.LogFile, nil, 0o600); err != nil {
		return fmt.Errorf("make the log of a child process: %w", err)
	}
	var (
		worked  bool
		backoff wait.Backoff
	)
	for {
		started := time.Now()
		err := c.run(ctx, func() {
			worked = true
			if c.Ready != nil {
				c.Ready()
			}
		})
		if ctx.Err() != nil {
			return nil //nolint:nilerr // The child was told to end.
		}
		if !worked {
			return fmt.Errorf("%w%s", err, c.lastLine())
		}
		if backoff.Steps == 0 || time.Since(started) > settled {
			backoff = wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.1, Steps: 100, Cap: 30 * time.Second}
		}
		pause := backoff.Step()
		if c.Ended != nil {
			c.Ended(fmt.Errorf("%w%s", err, c.lastLine()), pause)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// run runs the child once.
func (c Child) run(ctx context.Context, ready func()) error {
	// The kernel's promise to signal the child when its parent dies is about the
	// thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	log, err := os.OpenFile(c.LogFile, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of a child process: %w", err)
	}
	defer func() { _ = log.Close() }()

	command := exec.CommandContext(ctx, c.Path, c.Args...)
	command.Env = append(os.Environ(), c.Env...)
	command.Stdout = &readyWriter{ready: ready}
	command.Stderr = log
	command.SysProcAttr = attributes()
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = stopTimeout
	// The child's standard input stays open as long as this process lives.
	stdin, err := command.StdinPipe()
	if err != nil {
		return fmt.Errorf("start a child process: %w", err)
	}
	defer func() { _ = stdin.Close() }()
	if err := command.Start(); err != nil {
		return fmt.Errorf("start a child process: %w", err)
	}
	if err := command.Wait(); err != nil {
		return err
	}
	return errors.New("ended by itself")
}

// lastLine returns the last thing the child logged, for an error message.
func (c Child) lastLine() string {
	content, err := os.ReadFile(c.LogFile)
	content = bytes.TrimSpace(content)
	if err != nil || len(content) == 0 {
		return ""
	}
	content = content[bytes.LastIndexByte(content, '\n')+1:]
	return fmt.Sprintf(": %s (more in %s)", content[:min(len(content), maxLine)], c.LogFile)
}

// readyWriter calls ready at the first line that is "ready".
type readyWriter struct {
	ready func()
	once  sync.Once
	line  []byte
}

func (w *readyWriter) Write(p []byte) (int, error) {
	for _, b := range p {
		switch {
		case b != '\n' && len(w.line) < maxLine:
			w.line = append(w.line, b)
		case b == '\n':
			if strings.TrimSpace(string(w.line)) == "ready" {
				w.once.Do(w.ready)
			}
			w.line = w.line[:0]
		}
	}
	return len(p), nil
}
