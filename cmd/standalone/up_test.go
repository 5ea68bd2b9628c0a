package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clusterv1 "open-cluster-management.io/api/cluster/v1"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/cmd/standalone/internal/datadir"
	"github.com/fleetcast-io/fleetcast/pkg/api"
)

func TestUp(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fleet")
	up := start(t, "up", "--data-dir", dir, "--clusters", "2", "--unsafe-no-fsync")
	hub := hubOf(t, dir)
	var clusters clusterv1.ManagedClusterList
	if err := hub.List(t.Context(), &clusters); err != nil || len(clusters.Items) != 2 {
		t.Errorf("the hub knows %d clusters (%v), want 2", len(clusters.Items), err)
	}

	distribute(t, hub, "first")
	awaitApplied(t, hub, dir, "first")
	if err := get(t, dir, "cluster2", "first"); wantNotFound(err) != nil {
		t.Errorf("a work of cluster1 on cluster2: got %v, want not found", err)
	}

	// A cluster that dies is there again.
	pids := processes(t, filepath.Join(dir, "clusters", "cluster1"))
	if len(pids) != 1 {
		t.Fatalf("cluster1 is %d processes, want 1", len(pids))
	}
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"cluster1 ended: signal: killed", "cluster1 is ready again"} {
		eventually(t, "read "+line, func() error {
			if !strings.Contains(up.stderr.String(), line) {
				return errors.New("it was not told")
			}
			return nil
		})
	}
	distribute(t, hub, "second")
	awaitApplied(t, hub, dir, "second")

	// No cluster outlives its parent, however that dies.
	up.end(t, syscall.SIGKILL)
	awaitNoProcess(t, dir)

	// All of it goes on where it was, and needs not be told what it is.
	up = start(t, "up", "--data-dir", dir, "--unsafe-no-fsync")
	for _, name := range []string{"first", "second"} {
		if err := hub.Delete(t.Context(), work(name)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "wait for deleted works to be gone everywhere", func() error {
		return errors.Join(
			wantNotFound(get(t, dir, "cluster1", "first")), wantNotFound(get(t, dir, "cluster1", "second")),
			wantNotFound(hub.Get(t.Context(), client.ObjectKeyFromObject(work("first")), &workv1.ManifestWork{})))
	})
	if err := get(t, dir, "cluster2", "first"); wantNotFound(err) != nil {
		t.Errorf("cluster2 after the restart: %v", err)
	}
	if code := up.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("told to stop, it ended with %d:\n%s", code, up.stderr)
	}
	awaitNoProcess(t, dir)
}

func TestUpWithMQTT(t *testing.T) {
	dir := t.TempDir()
	up := start(t, "up", "--data-dir", dir, "--broker", "mqtt", "--unsafe-no-fsync")
	hub := hubOf(t, dir)
	distribute(t, hub, "first")
	awaitApplied(t, hub, dir, "first")
	if code := up.end(t, syscall.SIGINT); code != 0 {
		t.Errorf("interrupted, it ended with %d:\n%s", code, up.stderr)
	}
	awaitNoProcess(t, dir)
}

func TestUpWithAClusterThatCannotStart(t *testing.T) {
	dir := t.TempDir()
	taken, err := datadir.Open(filepath.Join(dir, "clusters", "cluster2"))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	code, stderr := run(t, "up", "--data-dir", dir, "--clusters", "2", "--unsafe-no-fsync")
	if code != exitFailure || !strings.Contains(stderr, "Error: cluster2: ") || !strings.Contains(stderr, "in use by another process") {
		t.Errorf("it ended with %d, want %d and the reason:\n%s", code, exitFailure, stderr)
	}
	awaitNoProcess(t, dir)
}

func hubOf(t *testing.T, dir string) client.Client {
	t.Helper()
	c, err := client.New(load(t, filepath.Join(dir, "hub.kubeconfig")), client.Options{Scheme: api.NewScheme()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// work is a work for cluster1 that holds a config map of the same name.
func work(name string) *workv1.ManifestWork {
	manifest := &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
	}
	raw, err := json.Marshal(manifest)
	if err != nil {
		panic(err)
	}
	return &workv1.ManifestWork{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "cluster1"},
		Spec: workv1.ManifestWorkSpec{Workload: workv1.ManifestsTemplate{
			Manifests: []workv1.Manifest{{RawExtension: runtime.RawExtension{Raw: raw}}},
		}},
	}
}

func distribute(t *testing.T, hub client.Client, name string) {
	t.Helper()
	if err := hub.Create(t.Context(), work(name)); err != nil {
		t.Fatal(err)
	}
}

// awaitApplied waits until the work is on cluster1 and the hub knows.
func awaitApplied(t *testing.T, hub client.Client, dir, name string) {
	t.Helper()
	eventually(t, "wait for work "+name, func() error {
		if err := get(t, dir, "cluster1", name); err != nil {
			return err
		}
		var got workv1.ManifestWork
		if err := hub.Get(t.Context(), client.ObjectKeyFromObject(work(name)), &got); err != nil {
			return err
		}
		if !meta.IsStatusConditionTrue(got.Status.Conditions, workv1.WorkApplied) {
			return fmt.Errorf("the hub does not know that it is applied: %+v", got.Status.Conditions)
		}
		return nil
	})
}

func get(t *testing.T, dir, cluster, name string) error {
	t.Helper()
	_, err := clientOf(t, load(t, filepath.Join(dir, "clusters", cluster, "kubeconfig"))).
		CoreV1().ConfigMaps("default").Get(t.Context(), name, metav1.GetOptions{})
	return err
}

// processes returns the processes that have dir among their arguments.
func processes(t *testing.T, dir string) []int {
	t.Helper()
	output, err := exec.CommandContext(context.WithoutCancel(t.Context()), "ps", "-A", "-ww", "-o", "pid=,args=").Output()
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for line := range strings.Lines(string(output)) {
		fields := strings.Fields(line)
		if slices.ContainsFunc(fields, func(f string) bool { return f == dir || strings.HasPrefix(f, dir+"/") }) {
			pid, err := strconv.Atoi(fields[0])
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

func awaitNoProcess(t *testing.T, dir string) {
	t.Helper()
	eventually(t, "wait for the last process", func() error {
		if pids := processes(t, dir); len(pids) > 0 {
			return fmt.Errorf("still running: %v", pids)
		}
		return nil
	})
}
