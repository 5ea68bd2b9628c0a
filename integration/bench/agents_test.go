//go:build bench

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A contender is an agent to be measured.
type contender struct {
	name string
	path string // Of its program.
	// command is how to start it.
	command func(t *testing.T, p place) *exec.Cmd
}

// A place is where an agent works.
type place struct {
	broker, source, cluster string
	kubeconfig, dir         string
}

// fleetcast is this repository's agent, stripped as in its image.
func fleetcast(t *testing.T) contender {
	t.Helper()
	path := os.Getenv("FLEETCAST_AGENT")
	if path == "" {
		path = filepath.Join(t.TempDir(), "fleetcast-agent")
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "../../cmd/agent")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build the agent: %v\n%s", err, out)
		}
	}
	return contender{name: "fleetcast", path: path, command: func(_ *testing.T, p place) *exec.Cmd {
		return exec.Command(
			path, "--cluster-name", p.cluster, "--source-id", p.source, "--broker", "mqtt://"+p.broker,
			"--kubeconfig", p.kubeconfig, "--data-dir", filepath.Join(p.dir, "data"),
		)
	}}
}

// ocm is an agent of Open Cluster Management.
func ocm(path string, flags []string) contender {
	return contender{name: "OCM", path: path, command: func(t *testing.T, p place) *exec.Cmd {
		t.Helper()
		config := filepath.Join(p.dir, "mqtt.yaml")
		text := fmt.Sprintf("brokerHost: %s\ntopics:\n  sourceEvents: sources/%s/clusters/+/sourceevents\n  agentEvents: sources/%s/clusters/+/agentevents\n",
			p.broker, p.source, p.source)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return exec.Command(path, append([]string{
			"agent", "--kubeconfig", p.kubeconfig, "--namespace", "default", "--disable-leader-election", "--listen", freeAddress(t),
			"--spoke-cluster-name", p.cluster, "--workload-source-driver", "mqtt", "--workload-source-config", config,
			"--cloudevents-client-id", p.cluster,
		}, flags...)...)
	}}
}

func megabytes(path string) float64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return float64(info.Size()) / 1e6
}
