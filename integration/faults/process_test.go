package faults

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A process is a program that can be ended in every way there is, and started
// again. Its log goes on over restarts.
type process struct {
	name    string
	log     string
	command func() *exec.Cmd

	cmd  *exec.Cmd
	done chan struct{}
	from int64 // Where its log begins since it was started last.
}

func (p *process) start() error {
	if p.running() {
		return fmt.Errorf("%s runs already", p.name)
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", p.name, err)
	}
	defer out.Close()
	info, err := out.Stat()
	if err != nil {
		return fmt.Errorf("look at the log of %s: %w", p.name, err)
	}
	cmd := p.command()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	done := make(chan struct{})
	p.cmd, p.done, p.from = cmd, done, info.Size()
	go func() {
		_ = cmd.Wait() // It may have been killed.
		close(done)
	}()
	return nil
}

func (p *process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// kill ends the process and whatever it started, as a crash would.
func (p *process) kill() {
	if !p.running() {
		return
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

// stop asks the process to end and waits for it.
func (p *process) stop() error {
	if !p.running() {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(patience):
		p.kill()
		return fmt.Errorf("%s did not end within %s of being asked to", p.name, patience)
	}
}

// freeze stops the process in its tracks: its connections stay open and nobody
// answers.
func (p *process) freeze() error { return p.signal(syscall.SIGSTOP) }

func (p *process) thaw() error { return p.signal(syscall.SIGCONT) }

func (p *process) signal(s syscall.Signal) error {
	if !p.running() {
		return fmt.Errorf("send %s to %s: it does not run", s, p.name)
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, s); err != nil {
		return fmt.Errorf("send %s to %s: %w", s, p.name, err)
	}
	return nil
}

// logged tells whether the program has logged the text since its last start.
func (p *process) logged(text string) error {
	log, err := os.ReadFile(p.log)
	if err != nil {
		return err
	}
	if !strings.Contains(string(log[min(p.from, int64(len(log))):]), text) {
		return fmt.Errorf("%s did not log %q", p.name, text)
	}
	return nil
}

// built are the programs of this repository and the broker that go.mod names,
// made once per run of the tests.
var built struct {
	sync.Mutex
	dir  string
	made map[string]error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// binary builds a package and returns the path of the program.
func binary(t testing.TB, name, pkg string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "fleetcast-faults-") //nolint:usetesting // It serves all tests of the package.
		if err != nil {
			t.Fatal(err)
		}
		built.dir, built.made = dir, map[string]error{}
	}
	path := filepath.Join(built.dir, name)
	err, known := built.made[name]
	if !known {
		if out, failed := exec.Command("go", "build", "-o", path, pkg).CombinedOutput(); failed != nil {
			err = fmt.Errorf("build %s: %w: %s", pkg, failed, out)
		}
		built.made[name] = err
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// freeAddress returns an address that nobody listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
