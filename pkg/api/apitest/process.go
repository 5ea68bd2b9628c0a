package apitest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	// readyTimeout allows for a machine that runs many tests at once.
	readyTimeout = 2 * time.Minute
	stopTimeout  = time.Minute
	maxLogTail   = 8 << 10
)

// process is a running program that says "ready" on its standard output and
// ends when its standard input does, so that it outlives no test binary, however
// that ends. It has no goroutine while it runs, for the sake of tests that count
// theirs.
type process struct {
	command *exec.Cmd
	stdin   io.Closer
	stdout  *os.File
	log     string
}

// startProcess runs a program until it says that it is ready. Its standard error
// is added to the file log.
func startProcess(log, name string, args ...string) (_ *process, err error) {
	stderr, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer func() { _ = stderr.Close() }()
	stdout, childStdout, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer func() { _ = childStdout.Close() }()

	command := exec.Command(name, args...)
	command.Stdout = childStdout
	command.Stderr = stderr
	stdin, err := command.StdinPipe()
	if err != nil {
		_ = stdout.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if err := command.Start(); err != nil {
		_ = stdout.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	// Else the end of the program would not end the read below.
	_ = childStdout.Close()

	p := &process{command: command, stdin: stdin, stdout: stdout, log: log}
	if err := p.awaitReady(); err != nil {
		p.kill()
		return nil, fmt.Errorf("start %s: %w%s", strings.Join(command.Args, " "), err, p.logTail())
	}
	return p, nil
}

func (p *process) awaitReady() error {
	if err := p.stdout.SetReadDeadline(time.Now().Add(readyTimeout)); err != nil {
		return fmt.Errorf("set a deadline: %w", err)
	}
	line, err := bufio.NewReader(p.stdout).ReadString('\n')
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("not ready after %v", readyTimeout)
	case errors.Is(err, io.EOF):
		return errors.New("the program ended before it was ready")
	case err != nil:
		return fmt.Errorf("read its output: %w", err)
	case !strings.HasPrefix(line, "ready"):
		return fmt.Errorf("unexpected output %q", line)
	}
	return nil
}

// stop asks the program to end, and kills it if it does not.
func (p *process) stop() error {
	late := time.AfterFunc(stopTimeout, func() { _ = p.command.Process.Kill() })
	defer late.Stop()
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal the process: %w", err)
	}
	err := p.command.Wait()
	p.close()
	if err != nil {
		return fmt.Errorf("%w%s", err, p.logTail())
	}
	return nil
}

func (p *process) kill() {
	_ = p.command.Process.Kill()
	_ = p.command.Wait()
	p.close()
}

func (p *process) close() {
	_ = p.stdin.Close()
	_ = p.stdout.Close()
}

// logTail returns the end of what the program logged, for an error message.
func (p *process) logTail() string {
	content, err := os.ReadFile(p.log)
	if err != nil || len(content) == 0 {
		return ""
	}
	return "\n" + string(content[max(0, len(content)-maxLogTail):])
}
