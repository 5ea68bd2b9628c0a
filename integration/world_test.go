package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
)

// patience is how long anything may take to happen. It is far above what it
// takes, so that a loaded machine does not fail a test.
const patience = 2 * time.Minute

// A world is one script's hub, broker and clusters.
type world struct {
	t      testing.TB
	dir    string
	broker *broker

	mu        sync.Mutex
	servers   map[string]*apitest.Server // By cluster; "hub" is the hub's.
	processes map[string]*process        // "hub", and "agent-" with the cluster.
}

// A broker is one kind of broker as a process.
type broker struct {
	url     string
	dir     string
	command func(b *broker) *exec.Cmd
}

// brokerKind makes a broker that is not started yet. dir is for its data.
type brokerKind func(t testing.TB, dir string, port int) *broker

// embedded are the brokers that fleetcast-standalone brings along.
func embedded(scheme string) brokerKind {
	return func(t testing.TB, dir string, port int) *broker {
		standalone, err := apitest.Binary()
		if err != nil {
			t.Fatal(err)
		}
		url := fmt.Sprintf("%s://127.0.0.1:%d", scheme, port)
		return &broker{url: url, dir: dir, command: func(b *broker) *exec.Cmd {
			return exec.Command(standalone, "broker", "--data-dir", b.dir, "--listen", b.url)
		}}
	}
}

// TestEmbedded runs every scenario over the brokers that need no installation.
func TestEmbedded(t *testing.T) {
	for name, kind := range map[string]brokerKind{"nats": embedded("nats"), "mqtt": embedded("mqtt")} {
		t.Run(name, func(t *testing.T) { runScripts(t, kind) })
	}
}

var clusterNames = regexp.MustCompile(`(?m)^(?:await )?agent start (\S+)`)

func runScripts(t *testing.T, kind brokerKind) {
	t.Helper()
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("find scripts: %v, %d found", err, len(scripts))
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			text, err := os.ReadFile(script)
			if err != nil {
				t.Fatal(err)
			}
			clusters := []string{}
			for _, m := range clusterNames.FindAllStringSubmatch(string(text), -1) {
				if !slices.Contains(clusters, m[1]) {
					clusters = append(clusters, m[1])
				}
			}
			w := newWorld(t, kind, clusters)
			testscript.Run(t, testscript.Params{
				Files: []string{script},
				Setup: func(env *testscript.Env) error {
					env.Setenv("BROKER", w.broker.url)
					env.Setenv("HUB_KUBECONFIG", w.servers["hub"].Kubeconfig())
					env.Setenv("BIN", binaries(t))
					env.Setenv("DATA", w.dir)
					return nil
				},
				Cmds:                w.commands(),
				RequireUniqueNames:  true,
				RequireExplicitExec: true,
			})
			if t.Failed() {
				w.printLogs()
			}
		})
	}
}

func newWorld(t testing.TB, kind brokerKind, clusters []string) *world {
	dir := t.TempDir()
	w := &world{
		t: t, dir: dir,
		servers:   map[string]*apitest.Server{"hub": apitest.Start(t, apitest.Hub)},
		processes: map[string]*process{},
	}
	for _, cluster := range clusters {
		w.servers[cluster] = apitest.Start(t, apitest.Full)
	}
	w.broker = kind(t, filepath.Join(dir, "broker"), freePort(t))
	t.Cleanup(w.close)
	return w
}

func (w *world) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.processes {
		p.kill()
	}
}

func (w *world) printLogs() {
	for name, p := range w.processes {
		log, err := os.ReadFile(p.log)
		if err != nil {
			w.t.Logf("log of %s: %v", name, err)
			continue
		}
		const most = 6000
		if len(log) > most {
			log = log[len(log)-most:]
		}
		w.t.Logf("end of the log of %s:\n%s", name, log)
	}
}

// binaries builds the programs once and returns their folder.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "fleetcast-bin-")
	if err != nil {
		return "", err
	}
	for _, name := range []string{"hub", "agent", "fleetcast"} {
		binary := filepath.Join(dir, "fleetcast-"+name)
		if name == "fleetcast" {
			binary = filepath.Join(dir, name)
		}
		out, err := exec.Command("go", "build", "-o", binary, "../cmd/"+name).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("build cmd/%s: %w: %s", name, err, out)
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := built(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

func binaries(t testing.TB) string {
	t.Helper()
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("listener's address is %v", l.Addr())
	}
	return addr.Port
}

// A process is a program with its log in a file.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error
}

// start runs the command; log is appended to over restarts.
func start(cmd *exec.Cmd, log string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// kill ends the process and whatever it started, as a crash would.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

// stop asks the process to end, and fails if it does not end well.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		p.kill()
		return errors.New("it did not end when asked to")
	}
}
