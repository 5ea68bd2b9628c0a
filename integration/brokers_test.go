//go:build integration

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// TestMosquitto runs every scenario over mosquitto, which loses what it did not
// save when it is killed: it saves once a second here.
func TestMosquitto(t *testing.T) {
	binary, err := exec.LookPath("mosquitto")
	if err != nil {
		binary = "/usr/sbin/mosquitto" // Where Debian has it, outside of a user's PATH.
	}
	runScripts(t, func(t testing.TB, dir string, port int) *broker {
		config := filepath.Join(t.TempDir(), "mosquitto.conf")
		user := ""
		if os.Getuid() == 0 {
			user = "user root\n" // Else it becomes a user who may not write to the folder.
		}
		text := fmt.Sprintf("%slistener %d 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\nautosave_interval 1\n", user, port, dir)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return &broker{url: fmt.Sprintf("mqtt://127.0.0.1:%d", port), dir: dir, command: func(*broker) *exec.Cmd {
			return exec.Command(binary, "-c", config)
		}}
	})
}

// natsServer is the server that the module file names, built once.
var natsServer = sync.OnceValues(func() (string, error) {
	dir, err := built()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "nats-server")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/nats-io/nats-server/v2").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build nats-server: %w: %s", err, out)
	}
	return binary, nil
})

// TestNATSServer runs every scenario over a nats-server process.
func TestNATSServer(t *testing.T) {
	binary, err := natsServer()
	if err != nil {
		t.Fatal(err)
	}
	runScripts(t, func(t testing.TB, dir string, port int) *broker {
		config := filepath.Join(t.TempDir(), "nats.conf")
		text := fmt.Sprintf("listen: \"127.0.0.1:%d\"\njetstream: {store_dir: %q, sync_interval: always}\n", port, dir)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return &broker{url: fmt.Sprintf("nats://127.0.0.1:%d", port), dir: dir, command: func(*broker) *exec.Cmd {
			return exec.Command(binary, "-c", config)
		}}
	})
}
