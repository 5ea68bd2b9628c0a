package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// deadline is for what takes a second on an idle machine.
const deadline = 90 * time.Second

// program returns the path of this module's program, built from its sources.
var program = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "fleetcast", "standalone-test")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "fleetcast-standalone")
	if output, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, output)
	}
	return path, nil
})

// A process is a run of the program.
type process struct {
	command *exec.Cmd
	stdin   io.WriteCloser
	// ready is the first line of its output.
	ready  string
	stderr *lockedBuffer
	exited chan struct{}
}

// start runs the program until it says that it is ready.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p, stdout := launch(t, args...)
	timer := time.AfterFunc(deadline, func() { _ = p.command.Process.Kill() })
	defer timer.Stop()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "ready") {
		t.Fatalf("%v: got %q (%v) instead of ready\n%s", args, line, err, p.stderr)
	}
	p.ready = strings.TrimSpace(line)
	return p
}

func launch(t *testing.T, args ...string) (*process, io.Reader) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{command: exec.Command(path, args...), stderr: &lockedBuffer{}, exited: make(chan struct{})}
	p.command.Stderr = p.stderr
	stdout, childStdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.command.Stdout = childStdout
	if p.stdin, err = p.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	_ = childStdout.Close()
	go func() {
		_ = p.command.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.command.Process.Kill()
		<-p.exited
		_ = stdout.Close()
	})
	return p, stdout
}

// end signals the process and returns its exit code when it has ended.
func (p *process) end(t *testing.T, signal os.Signal) int {
	t.Helper()
	if err := p.command.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("signal the program: %v", err)
	}
	return p.wait(t)
}

func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(deadline):
		_ = p.command.Process.Signal(syscall.SIGQUIT)
		<-p.exited
		t.Fatalf("the program did not end:\n%s", p.stderr)
	}
	return p.command.ProcessState.ExitCode()
}

// run runs the program to its end.
func run(t *testing.T, args ...string) (code int, stderr string) {
	t.Helper()
	p, _ := launch(t, args...)
	return p.wait(t), p.stderr.String()
}

// load reads a kubeconfig as a client would.
func load(t *testing.T, path string) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func clientOf(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// eventually waits until condition returns nil.
func eventually(t *testing.T, what string, condition func() error) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	timeout := time.After(deadline)
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-timeout:
			t.Fatalf("%s: %v", what, err)
		case <-ticker.C:
		}
	}
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
