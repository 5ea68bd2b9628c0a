package process_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetcast-io/fleetcast/pkg/fleet/process"
)

// TestMain lets this program be the broker that it starts.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "broker" {
		if err := process.Serve(context.Background(), process.Kind(os.Args[2]), os.Args[3], os.Args[4], nil); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

func newBroker(t *testing.T, kind process.Kind) (*process.Broker, string) {
	t.Helper()
	t.Setenv("PATH", "")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b, err := process.New(t.Context(), kind, dir, self)
	if err != nil {
		t.Fatal(err)
	}
	return b, dir
}

func TestBroker(t *testing.T) {
	for _, kind := range []process.Kind{process.NATS, process.MQTT} {
		t.Run(string(kind), func(t *testing.T) {
			b, dir := newBroker(t, kind)
			if b.PID() != 0 || !strings.HasPrefix(b.URL(), string(kind)+"://127.0.0.1:") {
				t.Errorf("a broker that was not started has PID %d and the URL %s", b.PID(), b.URL())
			}
			for _, end := range []func() error{b.Stop, b.Kill} {
				if err := b.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				if b.PID() == 0 {
					t.Error("a broker that runs has no PID")
				}
				if err := b.Wipe(); err == nil {
					t.Error("a broker was wiped while it ran")
				}
				if err := end(); err != nil {
					t.Error(err)
				}
				_, address, _ := strings.Cut(b.URL(), "://")
				if c, err := net.Dial("tcp", address); err == nil {
					_ = c.Close()
					t.Error("a broker that was ended can be reached")
				}
			}
			if kept, err := os.ReadDir(filepath.Join(dir, "data")); err != nil || len(kept) == 0 {
				t.Errorf("the broker kept nothing: %v", err)
			}
			if err := b.Wipe(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(dir, "data")); !os.IsNotExist(err) {
				t.Errorf("a wiped broker has data: %v", err)
			}
		})
	}
}

// TestBrokerThatCannotStart says why.
func TestBrokerThatCannotStart(t *testing.T) {
	broken, err := process.New(t.Context(), process.NATS, t.TempDir(), "/nonexistent/fleetsim")
	if err != nil {
		t.Fatal(err)
	}
	if err := broken.Start(t.Context()); err == nil {
		t.Error("a program that does not exist was started")
	}
	if _, err := process.New(t.Context(), "kafka", t.TempDir(), "x"); err == nil || !strings.Contains(err.Error(), "nats or mqtt") {
		t.Errorf("an unknown kind: %v", err)
	}
}
