// Package process runs a broker as a process of its own, for simulations that
// stop it, kill it and delete its data.
package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Kind is a kind of broker.
type Kind string

// Kinds.
const (
	// NATS is nats-server with JetStream on file storage, as it is built into the
	// program that calls Serve.
	NATS Kind = "nats"
	// MQTT is mosquitto if it is installed, else the broker that is built in.
	MQTT Kind = "mqtt"
)

// patience is how long a broker may take to start or stop.
const patience = time.Minute

// A Broker is a broker's process. Its methods must not be called concurrently,
// but for PID.
type Broker struct {
	kind    Kind
	name    string // Of the program, for people.
	dir     string
	address string
	command func() *exec.Cmd

	mu      sync.Mutex
	running *exec.Cmd
	exited  chan struct{}
}

// New returns a broker that is not started, with its data in dir, on a free
// port of the loopback. self is the program that calls Serve when it is started
// with the arguments "broker", kind, address and directory.
func New(ctx context.Context, kind Kind, dir, self string) (*Broker, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("find a port for the broker: %w", err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	b := &Broker{kind: kind, dir: dir, address: address}
	b.name = "nats-server with JetStream on files and its default sync interval, built in"
	b.command = func() *exec.Cmd {
		return exec.Command(self, "broker", string(kind), address, b.data()) //nolint:gosec,noctx // Its own program, which outlives the call.
	}
	switch kind {
	case NATS:
	case MQTT:
		b.name = "mochi, built in"
		if path, err := exec.LookPath("mosquitto"); err == nil {
			b.name = "mosquitto"
			b.command = func() *exec.Cmd { return mosquitto(path, b.config()) }
		}
	default:
		return nil, fmt.Errorf("there is no broker %q: choose nats or mqtt, or give a URL", kind)
	}
	return b, nil
}

// Name says which program it is.
func (b *Broker) Name() string { return b.name }

// URL is where clients find it.
func (b *Broker) URL() string { return string(b.kind) + "://" + b.address }

func (b *Broker) data() string   { return filepath.Join(b.dir, "data") }
func (b *Broker) config() string { return filepath.Join(b.dir, "mosquitto.conf") }

// mosquitto runs with as many connections as this user may have: it does not
// raise its own limit, as programs in Go do.
func mosquitto(path, config string) *exec.Cmd {
	return exec.Command("sh", "-c", `ulimit -n "$(ulimit -H -n)" && exec "$0" -c "$1"`, path, config) //nolint:gosec,noctx // No part of it is a stranger's.
}

// Start starts the broker on what it kept, and returns when it can be reached.
func (b *Broker) Start(ctx context.Context) error {
	if err := os.MkdirAll(b.data(), 0o700); err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	if b.name == "mosquitto" {
		if err := os.WriteFile(b.config(), []byte(b.settings()), 0o600); err != nil {
			return fmt.Errorf("start the broker: %w", err)
		}
	}
	log, err := os.OpenFile(filepath.Join(b.dir, "broker.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	defer func() { _ = log.Close() }() // The process has its own copy.
	cmd := b.command()
	cmd.Stdout, cmd.Stderr = log, log
	// It must not outlive a simulation that is killed, nor get its Ctrl-C.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // How it ended is in its log.
		close(exited)
	}()
	b.mu.Lock()
	b.running, b.exited = cmd, exited
	b.mu.Unlock()
	return b.reachable(ctx, exited)
}

// settings lets clients in as many as there are, and keeps for them what it can.
func (b *Broker) settings() string {
	_, port, _ := strings.Cut(b.address, ":")
	lines := []string{
		"listener " + port + " 127.0.0.1", "allow_anonymous true", "persistence true",
		"persistence_location " + b.data() + "/", "max_queued_messages 0", "max_inflight_messages 0", "log_type error", "log_type warning",
	}
	if os.Geteuid() == 0 {
		lines = append(lines, "user root") // Else it could not write its data.
	}
	return strings.Join(lines, "\n") + "\n"
}

func (b *Broker) reachable(ctx context.Context, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", b.address)
		if err == nil {
			return c.Close()
		}
		select {
		case <-tick.C:
		case <-exited:
			return fmt.Errorf("the broker (%s) ended at once: %s", b.name, b.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("wait for the broker (%s) at %s: %w; %w", b.name, b.address, ctx.Err(), err)
		}
	}
}

// lastWords is the end of the broker's log.
func (b *Broker) lastWords() string {
	f, err := os.Open(filepath.Join(b.dir, "broker.log"))
	if err != nil {
		return "it left no log"
	}
	defer func() { _ = f.Close() }() // It was only read.
	last := "its log is empty"
	for s := bufio.NewScanner(io.LimitReader(f, 1<<20)); s.Scan(); {
		last = s.Text()
	}
	return last
}

// PID is that of the process, 0 while there is none.
func (b *Broker) PID() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running == nil {
		return 0
	}
	return b.running.Process.Pid
}

// Stop ends the broker in an orderly way. One that does not run is no error.
func (b *Broker) Stop() error { return b.end(syscall.SIGTERM) }

// Kill ends it at once.
func (b *Broker) Kill() error { return b.end(syscall.SIGKILL) }

func (b *Broker) end(signal syscall.Signal) error {
	b.mu.Lock()
	cmd, exited := b.running, b.exited
	b.running = nil
	b.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the broker: %w", err)
	}
	select {
	case <-exited:
		return nil
	case <-time.After(patience):
		_ = cmd.Process.Kill()
		<-exited
		return fmt.Errorf("the broker (%s) did not stop within %s, and was killed", b.name, patience)
	}
}

// Wipe deletes what the broker kept. It must not run.
func (b *Broker) Wipe() error {
	if b.PID() != 0 {
		return errors.New("wipe the broker: it runs")
	}
	if err := os.RemoveAll(b.data()); err != nil {
		return fmt.Errorf("wipe the broker: %w", err)
	}
	return nil
}
