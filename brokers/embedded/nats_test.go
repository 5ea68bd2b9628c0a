package embedded_test

import (
	"net"
	"os"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetcast-io/fleetcast/brokers/embedded"
)

func connectNATS(t *testing.T, url string) (*natsgo.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := natsgo.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

func TestNATSKeepsStreams(t *testing.T) {
	o := embedded.NATSOptions{DataDir: t.TempDir()}
	for round := range 3 {
		n, err := embedded.StartNATS(o)
		if err != nil {
			t.Fatal(err)
		}
		// The next round takes the same port.
		o.Listen = n.Addr()
		nc, js := connectNATS(t, n.URL())
		if round == 0 {
			if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
				t.Fatal(err)
			}
		}
		ack, err := js.Publish(t.Context(), "s", nil)
		if err != nil || ack.Sequence != uint64(round)+1 {
			t.Errorf("round %d: publish returned %+v, %v", round, ack, err)
		}
		nc.Close()
		for range 2 {
			if err := n.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
		if _, err := net.Dial("tcp", n.Addr()); err == nil {
			t.Error("the server still listens after Close")
		}
	}
}

func TestNATSTemporaryData(t *testing.T) {
	n, err := embedded.StartNATS(embedded.NATSOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(n.DataDir()); err != nil {
		t.Error(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(n.DataDir()); !os.IsNotExist(err) {
		t.Errorf("the temporary folder is still there: %v", err)
	}
}

func TestNATSOptions(t *testing.T) {
	n, err := embedded.StartNATS(embedded.NATSOptions{
		MaxPayload: 1000,
		Configure:  func(o *server.Options) { o.Username, o.Password = "u", "p" },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, err := natsgo.Connect(n.URL()); err == nil {
		t.Error("a client without a password was let in")
	}
	nc, err := natsgo.Connect(n.URL(), natsgo.UserInfo("u", "p"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if nc.MaxPayload() != 1000 {
		t.Errorf("the server takes %d bytes, want 1000", nc.MaxPayload())
	}
	if config := n.Server().JetStreamConfig(); config == nil || !config.SyncAlways {
		t.Errorf("the server does not sync what it confirms: %+v", config)
	}
}

func TestNATSRefuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		reason  string
		options embedded.NATSOptions
		want    string
	}{
		{"the port is taken", embedded.NATSOptions{Listen: taken.Addr().String()}, "address already in use"},
		{"no port", embedded.NATSOptions{Listen: "127.0.0.1"}, "missing port"},
		{"no number", embedded.NATSOptions{Listen: "127.0.0.1:nats"}, "not a number"},
		{"the folder is a file", embedded.NATSOptions{DataDir: file}, "not a directory"},
		{"more than a server takes", embedded.NATSOptions{MaxPayload: 1 << 30}, "maximum payload"},
	} {
		n, err := embedded.StartNATS(test.options)
		if err == nil {
			n.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want an error with %q", test.reason, err, test.want)
		}
	}
}
