package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// A command does its work or says why not. The script decides whether that is
// what it wanted.
type command func(w *world, ts *testscript.TestScript, args []string) error

// errAbsent is wrapped by commands for what "await !" waits for: that something
// is not there, in contrast to that nobody knows.
var errAbsent = errors.New("it is not there")

func commandTable() map[string]command {
	return map[string]command{
		"broker":    (*world).brokerCommand,
		"hub":       (*world).hubCommand,
		"agent":     (*world).agentCommand,
		"apiserver": (*world).apiserverCommand,
		"fleetcast": (*world).cliCommand,
		"object":    (*world).objectCommand,
		"patch":     (*world).patchCommand,
		"remove":    (*world).removeCommand,
		"publish":   (*world).publishCommand,
		"logged":    (*world).loggedCommand,
		"configmap": (*world).configMapCommand,
	}
}

func (w *world) commands() map[string]func(*testscript.TestScript, bool, []string) {
	table := commandTable()
	cmds := map[string]func(*testscript.TestScript, bool, []string){
		"await": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg {
				ts.Fatalf("write await ! COMMAND")
			}
			ts.Check(w.await(ts, table, args))
		},
	}
	for name, run := range table {
		cmds[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			err := run(w, ts, args)
			switch {
			case neg && err == nil:
				ts.Fatalf("%s %s: succeeded unexpectedly", name, strings.Join(args, " "))
			case neg:
				ts.Logf("[%v]", err)
			default:
				ts.Check(err)
			}
		}
	}
	return cmds
}

// await repeats a command until it succeeds, or with ! until what it looks for
// is absent or the CLI fails.
func (w *world) await(ts *testscript.TestScript, table map[string]command, args []string) error {
	absent := len(args) > 0 && args[0] == "!"
	if absent {
		args = args[1:]
	}
	if len(args) == 0 || table[args[0]] == nil {
		return errors.New("usage: await [!] COMMAND [ARGS]")
	}
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := table[args[0]](w, ts, args[1:])
		refused := err != nil && args[0] == "fleetcast"
		if absent && (errors.Is(err, errAbsent) || refused) || !absent && err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("still not after %s: %w", patience, errors.Join(err, errors.New(strings.Join(args, " "))))
		}
		<-tick.C
	}
}

// control starts and ends the named process.
func (w *world) control(verb, name string, command func() (*exec.Cmd, error)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.processes[name]
	switch verb {
	case "start":
		if p != nil && p.running() {
			return fmt.Errorf("%s runs already", name)
		}
		cmd, err := command()
		if err != nil {
			return err
		}
		if p, err = start(cmd, filepath.Join(w.dir, name+".log")); err != nil {
			return err
		}
		w.processes[name] = p
		return nil
	case "stop", "kill":
		if p == nil || !p.running() {
			return fmt.Errorf("%s does not run", name)
		}
		if verb == "kill" {
			p.kill()
			return nil
		}
		return p.stop()
	}
	return fmt.Errorf("%s: unknown verb %q", name, verb)
}

func (w *world) brokerCommand(_ *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: broker start|stop|kill|wipe")
	}
	verb := args[0]
	if verb == "wipe" {
		if p := w.processes["broker"]; p != nil && p.running() {
			return errors.New("stop the broker before it is wiped")
		}
		return os.RemoveAll(w.broker.dir)
	}
	err := w.control(verb, "broker", func() (*exec.Cmd, error) {
		if err := os.MkdirAll(w.broker.dir, 0o700); err != nil {
			return nil, err
		}
		return w.broker.command(w.broker), nil
	})
	if err != nil || verb != "start" {
		return err
	}
	u, err := url.Parse(w.broker.url)
	if err != nil {
		return err
	}
	return w.until("the broker listens", func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

func (w *world) hubCommand(_ *testscript.TestScript, args []string) error {
	if len(args) < 1 {
		return errors.New("usage: hub start|stop|kill [FLAGS...]")
	}
	return w.control(args[0], "hub", func() (*exec.Cmd, error) {
		flags := append([]string{
			"--kubeconfig", w.servers["hub"].Kubeconfig(), "--broker", w.broker.url,
			"--install-crds", "--log-level=debug", "--leader-elect=false", // A killed leader is waited for.
		}, args[1:]...)
		return exec.Command(filepath.Join(binaries(w.t), "fleetcast-hub"), flags...), nil
	})
}

func (w *world) agentCommand(_ *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: agent join CLUSTER, or agent start|stop|kill CLUSTER [FLAGS...]")
	}
	verb, cluster := args[0], args[1]
	if verb == "join" {
		return w.joinCluster(cluster)
	}
	if verb == "start" {
		if err := w.joinCluster(cluster); err != nil {
			return err
		}
	}
	return w.control(verb, "agent-"+cluster, func() (*exec.Cmd, error) {
		flags := append([]string{
			"--cluster-name", cluster, "--kubeconfig", w.servers[cluster].Kubeconfig(), "--broker", w.broker.url,
			"--data-dir", filepath.Join(w.dir, "agents", cluster), "--log-level=debug",
		}, args[2:]...)
		return exec.Command(filepath.Join(binaries(w.t), "fleetcast-agent"), flags...), nil
	})
}

// joinCluster makes the cluster's namespace on the hub, if the hub's API server
// runs.
func (w *world) joinCluster(cluster string) error {
	client, err := kubernetes.NewForConfig(w.servers["hub"].Config())
	if err != nil {
		return err
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: cluster}}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) && !isUnreachable(err) {
		return err
	}
	return nil
}

func isUnreachable(err error) bool {
	var network *net.OpError
	return errors.As(err, &network)
}

// scriptTB is a test whose fatal errors end the script, not the goroutine of
// another test.
type scriptTB struct {
	testing.TB
	ts *testscript.TestScript
}

func (s scriptTB) Fatal(args ...any)                 { s.ts.Fatalf("%s", fmt.Sprint(args...)) }
func (s scriptTB) Fatalf(format string, args ...any) { s.ts.Fatalf(format, args...) }

func (w *world) apiserverCommand(ts *testscript.TestScript, args []string) error {
	if len(args) != 2 || w.servers[args[1]] == nil {
		return errors.New("usage: apiserver stop|kill|restart CLUSTER")
	}
	server, tb := w.servers[args[1]], scriptTB{w.t, ts}
	switch args[0] {
	case "stop":
		server.Stop(tb)
	case "kill":
		server.Kill(tb)
	case "restart":
		server.Restart(tb)
	default:
		return fmt.Errorf("apiserver: unknown verb %q", args[0])
	}
	return nil
}

func (w *world) cliCommand(ts *testscript.TestScript, args []string) error {
	return ts.Exec(filepath.Join(binaries(w.t), "fleetcast"), append([]string{"--kubeconfig", w.servers["hub"].Kubeconfig()}, args...)...)
}

func (w *world) loggedCommand(_ *testscript.TestScript, args []string) error {
	if len(args) != 2 || w.processes[args[0]] == nil {
		return errors.New("usage: logged PROGRAM TEXT")
	}
	log, err := os.ReadFile(w.processes[args[0]].log)
	if err != nil {
		return err
	}
	if !strings.Contains(string(log), args[1]) {
		return fmt.Errorf("%w: %q in the log of %s", errAbsent, args[1], args[0])
	}
	return nil
}

// configMapCommand writes the manifest of a config map with so many bytes of
// data to a file, which compress to three quarters of that.
func (w *world) configMapCommand(ts *testscript.TestScript, args []string) error {
	if len(args) != 3 {
		return errors.New("usage: configmap FILE NAME BYTES")
	}
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	const manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: default}\ndata: {text: %s}\n"
	text := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{})
	for i := range text {
		text[i] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"[rng.Uint64()%64]
	}
	return os.WriteFile(ts.MkAbs(args[0]), fmt.Appendf(nil, manifest, args[1], "x"+string(text)), 0o600)
}

// until repeats try until it succeeds.
func (w *world) until(what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, err)
		}
	}
}
