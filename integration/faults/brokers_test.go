//go:build faults

package faults

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The brokers that users run.
var (
	mosquitto = &brokerKind{name: "mosquitto", mqtt: true, query: "?keepalive=5s", command: mosquittoNode}
	nats      = &brokerKind{name: "nats", command: natsNode}
)

// mosquittoNode saves once a second, or only every half an hour if it is lazy,
// which is its default.
func mosquittoNode(t testing.TB, n *node, s brokerSettings) func() *exec.Cmd {
	t.Helper()
	binary, err := exec.LookPath("mosquitto")
	if err != nil {
		binary = "/usr/sbin/mosquitto" // Where Debian has it, outside of a user's PATH.
	}
	_, port, err := net.SplitHostPort(n.address)
	if err != nil {
		t.Fatal(err)
	}
	settings := []string{
		"listener " + port + " 127.0.0.1", "allow_anonymous true",
		"persistence true", "persistence_location " + n.dir + "/", "max_queued_messages 100000",
	}
	if !s.lazy {
		settings = append(settings, "autosave_interval 1")
	}
	if s.maxPacket > 0 {
		settings = append(settings, fmt.Sprint("max_packet_size ", s.maxPacket))
	}
	if os.Getuid() == 0 {
		settings = append(settings, "user root") // Else it becomes a user who may not write to the folder.
	}
	config := writeConfig(t, n, strings.Join(settings, "\n")+"\n")
	return func() *exec.Cmd { return exec.Command(binary, "-c", config) }
}

// natsNode is the server that go.mod names, which syncs every write, or every
// two minutes if it is lazy, which is its default.
func natsNode(t testing.TB, n *node, s brokerSettings) func() *exec.Cmd {
	t.Helper()
	binary := binary(t, "nats-server", "github.com/nats-io/nats-server/v2")
	sync := "sync_interval: always"
	if s.lazy {
		sync = "sync_interval: 2m"
	}
	text := fmt.Sprintf("server_name: node-%d\nlisten: %q\njetstream: {store_dir: %q, %s}\n", n.index, n.address, n.dir, sync)
	if s.maxPacket > 0 {
		text += fmt.Sprintf("max_payload: %d\n", s.maxPacket)
	}
	if len(n.routes) > 1 {
		// Clients that learned of the other nodes would go around their link.
		text += fmt.Sprintf("cluster: {name: faults, listen: %q, no_advertise: true, routes: [", n.routes[0])
		for _, r := range n.routes[1:] {
			text += fmt.Sprintf("%q, ", "nats://"+r)
		}
		text += "]}\n"
	}
	config := writeConfig(t, n, text)
	return func() *exec.Cmd { return exec.Command(binary, "-c", config) }
}

func writeConfig(t testing.TB, n *node, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), n.name+".conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
