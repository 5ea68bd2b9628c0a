//go:build integration

package brokers_test

import (
	"bytes"
	"context"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/brokertest"
	"github.com/fleetcast-io/fleetcast/brokers/nats"
)

// A natsServer is a nats-server process, built from the module that go.mod
// names, that is killed without warning and comes back on the same disk.
type natsServer struct {
	binary  string
	dir     string
	address string
	process *exec.Cmd
	output  bytes.Buffer
}

func startNATSServer(t *testing.T) *natsServer {
	t.Helper()
	s := &natsServer{binary: filepath.Join(t.TempDir(), "nats-server"), dir: t.TempDir(), address: freeAddress(t)}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", s.binary, "github.com/nats-io/nats-server/v2")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build nats-server: %v\n%s", err, out)
	}
	config := "jetstream { store_dir: \"" + s.store() + "\", sync_interval: always }\n"
	if err := os.WriteFile(s.config(), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start(t)
	t.Cleanup(func() {
		s.kill(t)
		if t.Failed() {
			t.Logf("nats-server's log:\n%s", s.output.String())
		}
	})
	return s
}

func (s *natsServer) store() string  { return filepath.Join(s.dir, "store") }
func (s *natsServer) config() string { return filepath.Join(s.dir, "nats.conf") }

// start returns when the server greets a client: with streams to recover, that
// takes longer than to listen.
func (s *natsServer) start(t *testing.T) {
	t.Helper()
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		t.Fatal(err)
	}
	s.process = exec.Command(s.binary, "--addr", host, "--port", port, "--config", s.config())
	s.process.Stdout, s.process.Stderr = &s.output, &s.output
	if err := s.process.Start(); err != nil {
		t.Fatalf("start nats-server: %v", err)
	}
	deadline := time.Now().Add(patience)
	for !s.greets() {
		if time.Now().After(deadline) {
			t.Fatalf("nats-server does not answer on %s after %s", s.address, patience)
		}
	}
}

func (s *natsServer) greets() bool {
	c, err := net.DialTimeout("tcp", s.address, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	greeting := make([]byte, len("INFO"))
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	n, _ := c.Read(greeting)
	return string(greeting[:n]) == "INFO"
}

// kill is kill -9.
func (s *natsServer) kill(t *testing.T) {
	t.Helper()
	if s.process == nil {
		return
	}
	if err := s.process.Process.Kill(); err != nil {
		t.Errorf("kill nats-server: %v", err)
	}
	_ = s.process.Wait()
	s.process = nil
}

func (s *natsServer) wipe(t *testing.T) {
	t.Helper()
	s.kill(t)
	if err := os.RemoveAll(s.store()); err != nil {
		t.Fatal(err)
	}
	s.start(t)
}

func TestNATSServer(t *testing.T) {
	s := startNATSServer(t)
	brokertest.Run(t, brokertest.Harness{
		Open: func(t *testing.T, c brokers.Config) brokers.Transport {
			tr, err := nats.Open(context.Background(), &url.URL{Scheme: "nats", Host: s.address}, c)
			if err != nil {
				t.Fatal(err)
			}
			return tr
		},
		Stop:       s.kill,
		Start:      s.start,
		Wipe:       s.wipe,
		Sessions:   true,
		Redelivers: true,
		KeepsLast:  true,
		Log:        true,
		MaxSize:    1 << 20,
	})
}
