package faults

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
)

// A brokerKind is one product as the cases are run over it.
type brokerKind struct {
	name  string
	mqtt  bool
	query string // Of its URL, for every program.

	// command runs one node of it.
	command func(t testing.TB, n *node, s brokerSettings) func() *exec.Cmd
}

// brokerSettings are what a case wants of its broker.
type brokerSettings struct {
	nodes     int  // Of one cluster; 0 is 1.
	maxPacket int  // Bytes of an event; 0 is the broker's own default.
	disk      int  // Bytes of the file system its data is on; 0 is that of the test.
	lazy      bool // It writes to disk as late as its defaults allow, not at once.
}

// A broker is a running message broker, of one node or several.
type broker struct {
	t     testing.TB
	kind  *brokerKind
	nodes []*node
}

// A node is one server of a broker.
type node struct {
	*process
	index   int
	dir     string // Its data.
	address string
	routes  []string // Where the nodes find each other, this one's own first.
	greets  bool     // A client is spoken to first.
}

func newBroker(t testing.TB, kind *brokerKind, dir string, s brokerSettings) *broker {
	t.Helper()
	b := &broker{t: t, kind: kind}
	count := max(1, s.nodes)
	routes := make([]string, count)
	for i := range routes {
		routes[i] = freeAddress(t)
	}
	for i := range count {
		n := &node{index: i, dir: filepath.Join(dir, fmt.Sprint("broker-", i)), address: freeAddress(t), greets: !kind.mqtt}
		n.routes = append([]string{routes[i]}, append(routes[:i:i], routes[i+1:]...)...)
		if s.disk > 0 {
			smallDisk(t, n.dir, s.disk)
		}
		n.process = &process{name: fmt.Sprint("broker-", i), log: filepath.Join(t.ArtifactDir(), fmt.Sprint("broker-", i, ".log"))}
		n.command = kind.command(t, n, s)
		b.nodes = append(b.nodes, n)
		t.Cleanup(n.kill)
	}
	return b
}

// servers are the addresses that a program's link leads to.
func (b *broker) servers() []string {
	all := make([]string, 0, len(b.nodes))
	for _, n := range b.nodes {
		all = append(all, n.address)
	}
	return all
}

// url is the broker's for somebody behind the link.
func (b *broker) url(l *link) string {
	scheme := "nats"
	if b.kind.mqtt {
		scheme = "mqtt"
	}
	query := b.kind.query
	if len(b.nodes) > 1 {
		query = fmt.Sprint("?replicas=", len(b.nodes))
	}
	return scheme + "://" + l.hosts() + query
}

func (b *broker) start() {
	b.t.Helper()
	for _, n := range b.nodes {
		n.up(b.t)
	}
	for _, n := range b.nodes {
		await(b.t, n.name+" answers", n.answers)
	}
}

func (b *broker) stop() {
	b.t.Helper()
	for _, n := range b.nodes {
		if err := n.stop(); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *broker) kill() {
	for _, n := range b.nodes {
		n.kill()
	}
}

// wipe removes all that the stopped broker has.
func (b *broker) wipe() {
	b.t.Helper()
	for _, n := range b.nodes {
		n.empty(b.t)
	}
}

// save copies what the broker has on its disk, as it is now.
func (b *broker) save() (copied string) {
	b.t.Helper()
	dir := b.t.TempDir()
	for _, n := range b.nodes {
		copyTree(b.t, n.dir, filepath.Join(dir, filepath.Base(n.dir)))
	}
	return dir
}

// restore puts back what save copied, on a stopped broker.
func (b *broker) restore(copied string) {
	b.t.Helper()
	for _, n := range b.nodes {
		n.empty(b.t)
		copyTree(b.t, filepath.Join(copied, filepath.Base(n.dir)), n.dir)
	}
}

func (n *node) up(t testing.TB) {
	t.Helper()
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := n.start(); err != nil {
		t.Fatal(err)
	}
}

// empty removes what is in the folder of the node, which may be a mount.
func (n *node) empty(t testing.TB) {
	t.Helper()
	if n.running() {
		t.Fatalf("%s runs on what shall be removed", n.name)
	}
	entries, err := os.ReadDir(n.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(n.dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// answers tells that a client is served, which with data to recover is later
// than that the port is open.
func (n *node) answers() error {
	if !n.running() {
		return fmt.Errorf("%s has ended, see %s", n.name, n.log)
	}
	c, err := net.DialTimeout("tcp", n.address, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if !n.greets {
		return nil
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	_, err = io.ReadFull(c, make([]byte, len("INFO")))
	return err
}

// copyTree copies a folder that somebody may be writing to: of what goes away
// meanwhile there is no copy, and what is being written may be torn, as on a
// disk that lost power.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, e os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if e.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		content, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(target, content, 0o600)
	})
	if err != nil {
		t.Fatalf("copy %s: %v", from, err)
	}
}

// smallDisk mounts a file system in memory of so many bytes at dir.
func smallDisk(t testing.TB, dir string, size int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprint("size=", size), "tmpfs", dir).CombinedOutput(); err != nil {
		t.Fatalf("mount a small disk, which needs root: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("unmount the small disk: %v: %s", err, out)
		}
	})
}

// fill leaves no room on the disk of the node, until the returned function is
// called.
func (n *node) fill(t testing.TB) (free func()) {
	t.Helper()
	path := filepath.Join(n.dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1 << 16, 1 << 10, 1} {
		block := make([]byte, size)
		for err = nil; err == nil; {
			_, err = f.Write(block)
		}
	}
	_ = f.Close()
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// The brokers that fleetcast-standalone brings along.
var (
	embeddedNATS = &brokerKind{name: "embedded-nats", command: embedded("nats")}
	embeddedMQTT = &brokerKind{name: "embedded-mqtt", mqtt: true, query: "?keepalive=5s", command: embedded("mqtt")}
)

func embedded(scheme string) func(testing.TB, *node, brokerSettings) func() *exec.Cmd {
	return func(t testing.TB, n *node, _ brokerSettings) func() *exec.Cmd {
		t.Helper()
		standalone, err := apitest.Binary()
		if err != nil {
			t.Fatal(err)
		}
		return func() *exec.Cmd {
			return exec.Command(standalone, "broker", "--data-dir", n.dir, "--listen", scheme+"://"+n.address)
		}
	}
}
