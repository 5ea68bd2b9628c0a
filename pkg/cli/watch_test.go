package cli_test

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/dynamic"

	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/pkg/cli"
)

// TestWatch: a watch prints every change once, survives a restart of the API
// server, and ends without an error when interrupted.
func TestWatch(t *testing.T) {
	server := apitest.Start(t, apitest.Hub)
	client := install(t, server)
	cluster := server.Namespace(t)
	works := client.Resource(resources["ManifestWork"]).Namespace(cluster)
	create := func(name string) {
		t.Helper()
		work := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "work.open-cluster-management.io/v1",
			"kind":       "ManifestWork",
			"metadata":   map[string]any{"name": name},
			"spec":       map[string]any{},
		}}
		if _, err := works.Create(t.Context(), work, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	create("first")

	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	r, w := io.Pipe()
	var stderr strings.Builder
	code := make(chan int, 1)
	go func() {
		root := cli.New(genericiooptions.IOStreams{In: strings.NewReader(""), Out: w, ErrOut: &stderr})
		code <- cli.Execute(ctx, root, []string{"get", "works", "--cluster", cluster, "--watch", "--kubeconfig", server.Kubeconfig()})
		_ = w.Close()
	}()
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			lines <- s.Text()
		}
	}()
	expect := func(words ...string) {
		t.Helper()
		select {
		case line := <-lines:
			for _, word := range words {
				if !strings.Contains(line, word) {
					t.Fatalf("got the line %q, want %q in it", line, words)
				}
			}
		case <-time.After(patience):
			t.Fatalf("no line with %q", words)
		}
	}

	expect("CLUSTER", "NAME")
	expect("first", "Pending")
	create("second")
	expect("second", "Pending")

	server.Restart(t)
	create("third")
	expect("third", "Pending")
	deleteWork(t, works, "second")
	expect("second", "Gone")

	interrupt()
	select {
	case got := <-code:
		if got != 0 {
			t.Errorf("exit code %d after an interrupt, want 0: %s", got, &stderr)
		}
	case <-time.After(patience):
		t.Fatal("the watch goes on after the interrupt")
	}
	for line := range lines {
		t.Errorf("a line too much: %q", line)
	}
}

func deleteWork(t *testing.T, works dynamic.ResourceInterface, name string) {
	t.Helper()
	if err := works.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}
