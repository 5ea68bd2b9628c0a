package cli_test

import (
	"context"
	"errors"
	"flag"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/pkg/api/crds"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
	"github.com/fleetcast-io/fleetcast/pkg/cli"
)

var update = flag.Bool("update", false, "rewrite the expected output in the scripts")

// patience is how long a condition may take on a busy machine.
const patience = time.Minute

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"fleetcast": func() {
			root := cli.New(genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr})
			os.Exit(cli.Execute(context.Background(), root, os.Args[1:]))
		},
	})
}

// TestScripts runs the command as users do, against an API server that serves
// the hub's CRDs. Scripts play the cluster's agent with the commands below.
func TestScripts(t *testing.T) {
	server := apitest.Start(t, apitest.Hub)
	client := install(t, server)
	bare := apitest.Start(t, apitest.Hub)
	earlier := earlierHub(t, server)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("KUBECONFIG", server.Kubeconfig())
			e.Setenv("BARE_KUBECONFIG", bare.Kubeconfig())
			e.Setenv("EARLIER_HUB", earlier)
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":     exits,
			"normalize": normalize,
			"apply":     func(ts *testscript.TestScript, _ bool, args []string) { apply(ts, client, args) },
			"report":    func(ts *testscript.TestScript, _ bool, args []string) { report(ts, client, args) },
			"bury":      func(ts *testscript.TestScript, _ bool, args []string) { bury(ts, client, args) },
			"claim":     func(ts *testscript.TestScript, _ bool, args []string) { claim(ts, client, args) },
			"clear":     func(ts *testscript.TestScript, _ bool, args []string) { empty(ts, client, args) },
			"finalizer": func(ts *testscript.TestScript, neg bool, args []string) { finalizer(ts, client, neg, args) },
		},
	})
}

// install installs the hub's CRDs and returns when they are served.
func install(t *testing.T, server *apitest.Server) dynamic.Interface {
	t.Helper()
	client, err := dynamic.NewForConfig(server.Config())
	if err != nil {
		t.Fatal(err)
	}
	definitions := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	for _, crd := range append(crds.Hub(), crds.Agent()...) {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(crd)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := definitions.Create(t.Context(), &unstructured.Unstructured{Object: content}, metav1.CreateOptions{}); err != nil {
			t.Fatalf("install %s: %v", crd.Name, err)
		}
	}
	for _, crd := range append(crds.Hub(), crds.Agent()...) {
		for _, v := range crd.Spec.Versions {
			if !v.Served {
				continue
			}
			resource := schema.GroupVersionResource{Group: crd.Spec.Group, Version: v.Name, Resource: crd.Spec.Names.Plural}
			err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
				_, err := client.Resource(resource).List(ctx, metav1.ListOptions{})
				return err == nil, nil
			})
			if err != nil {
				t.Fatalf("%s is not served: %v", resource, err)
			}
		}
	}
	return client
}

// earlierHub serves the API of server without what this project adds to it, and
// returns its address.
func earlierHub(t *testing.T, server *apitest.Server) string {
	t.Helper()
	upstream, err := url.Parse(server.Config().Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(server.Config())
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(upstream) },
		Transport: transport,
	}
	earlier := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/apis/"+v1alpha1.GroupVersion.Group) {
			http.NotFound(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(earlier.Close)
	return earlier.URL
}

// exits CODE COMMAND... runs a command that must exit with the code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

var (
	ages   = regexp.MustCompile(`\b(\d+[ydhms])+\b`)
	spaces = regexp.MustCompile(` +`)
)

// normalize stdout|stderr FILE writes the last output to a file, without what
// differs from run to run: ages, and column widths that depend on them.
func normalize(ts *testscript.TestScript, _ bool, args []string) {
	var lines []string
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		line = spaces.ReplaceAllString(ages.ReplaceAllString(line, "AGO"), " ")
		lines = append(lines, strings.TrimSpace(line)+"\n")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(strings.Join(lines, "")), 0o600))
}

// resources are the kinds that scripts make.
var resources = map[string]schema.GroupVersionResource{
	"Namespace":      {Version: "v1", Resource: "namespaces"},
	"Event":          {Version: "v1", Resource: "events"},
	"ManifestWork":   {Group: "work.open-cluster-management.io", Version: "v1", Resource: "manifestworks"},
	"ManagedCluster": {Group: "cluster.open-cluster-management.io", Version: "v1", Resource: "managedclusters"},
	"Agent":          v1alpha1.GroupVersion.WithResource("agents"),

	"ClusterRole":        {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"},
	"ClusterRoleBinding": {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"},
}

// apply FILE creates the objects of a file, with their status.
func apply(ts *testscript.TestScript, client dynamic.Interface, args []string) {
	for doc := range strings.SplitSeq(ts.ReadFile(args[0]), "\n---\n") {
		u := &unstructured.Unstructured{}
		ts.Check(yaml.Unmarshal([]byte(doc), &u.Object))
		resource := client.Resource(resources[u.GetKind()]).Namespace(u.GetNamespace())
		made, err := resource.Create(context.Background(), u, metav1.CreateOptions{})
		ts.Check(err)
		if u.Object["status"] != nil && u.GetKind() != "Event" {
			stamp(u.Object["status"])
			made.Object["status"] = u.Object["status"]
			_, err := resource.UpdateStatus(context.Background(), made, metav1.UpdateOptions{})
			ts.Check(err)
		}
	}
}

// report CLUSTER WORK FILE gives a work the status in a file, as its cluster
// would. It waits for the work to exist.
func report(ts *testscript.TestScript, client dynamic.Interface, args []string) {
	var status map[string]any
	ts.Check(yaml.Unmarshal([]byte(ts.ReadFile(args[2])), &status))
	stamp(status)
	ts.Check(change(client, "ManifestWork", args[0], args[1], func(works dynamic.ResourceInterface, u *unstructured.Unstructured) error {
		u.Object["status"] = status
		_, err := works.UpdateStatus(context.Background(), u, metav1.UpdateOptions{})
		return err
	}))
}

// finalizer CLUSTER WORK adds the agent's finalizer, ! finalizer removes it,
// which says that the cluster is done deleting. It waits for the deletion first.
func finalizer(ts *testscript.TestScript, client dynamic.Interface, neg bool, args []string) {
	ts.Check(change(client, "ManifestWork", args[0], args[1], func(works dynamic.ResourceInterface, u *unstructured.Unstructured) error {
		u.SetFinalizers([]string{"cluster.open-cluster-management.io/manifest-work-cleanup"})
		if neg {
			if u.GetDeletionTimestamp() == nil {
				return errors.New("not deleted yet")
			}
			u.SetFinalizers(nil)
		}
		_, err := works.Update(context.Background(), u, metav1.UpdateOptions{})
		return err
	}))
}

// bury CLUSTER SOURCE ID waits until an Agent's spec names an unclaimed work, and
// does what the hub does when the cluster then confirms the deletion.
func bury(ts *testscript.TestScript, client dynamic.Interface, args []string) {
	id := args[2]
	ts.Check(change(client, "Agent", args[0], args[1], func(agents dynamic.ResourceInterface, u *unstructured.Unstructured) error {
		var a v1alpha1.Agent
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &a); err != nil {
			return err
		}
		if !slices.Contains(a.Spec.Delete, id) {
			return errors.New("not asked for yet")
		}
		now := metav1.Now()
		a.Status.Unclaimed = slices.DeleteFunc(a.Status.Unclaimed, func(w v1alpha1.UnclaimedWork) bool { return w.ID == id })
		a.Status.UnclaimedCount = int32(len(a.Status.Unclaimed))
		a.Status.Tombstones = append(a.Status.Tombstones, v1alpha1.Tombstone{ID: id, DeletedAt: now, ConfirmedAt: &now})
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&a)
		if err != nil {
			return err
		}
		saved, err := agents.UpdateStatus(context.Background(), &unstructured.Unstructured{Object: content}, metav1.UpdateOptions{})
		if err != nil {
			return err
		}
		rest := slices.DeleteFunc(a.Spec.Delete, func(other string) bool { return other == id })
		if err := unstructured.SetNestedStringSlice(saved.Object, rest, "spec", "delete"); err != nil {
			return err
		}
		_, err = agents.Update(context.Background(), saved, metav1.UpdateOptions{})
		return err
	}))
}

// claim CLUSTER SOURCE WORK lists a work that the hub has as an unclaimed one, as
// before the hub's data was restored.
func claim(ts *testscript.TestScript, client dynamic.Interface, args []string) {
	w, err := client.Resource(resources["ManifestWork"]).Namespace(args[0]).Get(context.Background(), args[2], metav1.GetOptions{})
	ts.Check(err)
	ts.Check(change(client, "Agent", args[0], args[1], func(agents dynamic.ResourceInterface, u *unstructured.Unstructured) error {
		listed := []any{map[string]any{"id": string(w.GetUID()), "name": w.GetName(), "generation": int64(1)}}
		err := unstructured.SetNestedSlice(u.Object, listed, "status", "unclaimed")
		err = errors.Join(err, unstructured.SetNestedField(u.Object, int64(1), "status", "unclaimedCount"))
		if err == nil {
			_, err = agents.UpdateStatus(context.Background(), u, metav1.UpdateOptions{})
		}
		return err
	}))
}

// clear CLUSTER SOURCE waits until an Agent's spec names works, takes them off and
// leaves no unclaimed work in the status.
func empty(ts *testscript.TestScript, client dynamic.Interface, args []string) {
	ts.Check(change(client, "Agent", args[0], args[1], func(agents dynamic.ResourceInterface, u *unstructured.Unstructured) error {
		if wanted, _, err := unstructured.NestedStringSlice(u.Object, "spec", "delete"); err != nil || len(wanted) == 0 {
			return errors.Join(err, errors.New("not asked for yet"))
		}
		unstructured.RemoveNestedField(u.Object, "status", "unclaimed")
		if err := unstructured.SetNestedField(u.Object, int64(0), "status", "unclaimedCount"); err != nil {
			return err
		}
		saved, err := agents.UpdateStatus(context.Background(), u, metav1.UpdateOptions{})
		if err != nil {
			return err
		}
		unstructured.RemoveNestedField(saved.Object, "spec", "delete")
		_, err = agents.Update(context.Background(), saved, metav1.UpdateOptions{})
		return err
	}))
}

// change retries f on a fresh copy of an object until it succeeds.
func change(client dynamic.Interface, kind, cluster, name string, f func(dynamic.ResourceInterface, *unstructured.Unstructured) error) error {
	objects := client.Resource(resources[kind]).Namespace(cluster)
	var last error
	err := wait.PollUntilContextTimeout(context.Background(), 20*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		u, err := objects.Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			err = f(objects, u)
		}
		last = err
		return err == nil, nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

// stamp gives every condition in v the times that the API requires.
func stamp(v any) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			stamp(item)
		}
	case map[string]any:
		if v["type"] != nil && v["status"] != nil && v["lastTransitionTime"] == nil {
			v["lastTransitionTime"] = time.Now().UTC().Format(time.RFC3339)
		}
		for _, field := range v {
			stamp(field)
		}
	}
}
