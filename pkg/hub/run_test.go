package hub_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	workv1 "open-cluster-management.io/api/work/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/pkg/api/crds"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
	"github.com/fleetcast-io/fleetcast/pkg/hub"
)

// patience is how long a test waits for what must happen. A lease that is not
// released takes its part of it.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	apitest.Main(m, apitest.Hub)
}

func eventually(t *testing.T, what string, holds func() error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		last = holds()
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: not within %s: %v", what, patience, last)
	}
}

// A replica is a running hub.
type replica struct {
	health string
	log    *lockedBuffer
	stop   context.CancelFunc
	done   chan error
}

// start runs a hub until the test ends or the replica is stopped.
func start(t *testing.T, c hub.Config) *replica {
	t.Helper()
	r := &replica{health: freeAddress(t), log: &lockedBuffer{}, done: make(chan error, 1)}
	c.HealthProbeBindAddress = r.health
	c.Log = slog.New(slog.NewTextHandler(r.log, nil))
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.done <- hub.Run(ctx, c); close(r.done) }()
	t.Cleanup(func() {
		cancel()
		if err := <-r.done; err != nil {
			t.Errorf("hub: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the hub:\n%s", r.log)
		}
	})
	return r
}

// ready asks /readyz.
func (r *replica) ready(t *testing.T) error {
	t.Helper()
	return r.get(t, "/readyz?verbose")
}

func (r *replica) get(t *testing.T, path string) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.health+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, body)
	}
	return nil
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// config is of a hub on the server whose broker is b.
func config(server *apitest.Server, b *mem.Broker) hub.Config {
	c := hub.Default()
	c.RESTConfig = server.Config()
	c.LeaderElect = false
	c.InstallCRDs = true
	c.Broker.URL = "mem:"
	c.Drivers = brokers.Drivers{"mem": func(_ context.Context, _ *url.URL, bc brokers.Config) (brokers.Transport, error) {
		if bc.CheckOnly {
			return nil, nil
		}
		return b.Open(bc), nil
	}}
	return c
}

func TestHubWithoutClusters(t *testing.T) {
	server := apitest.Shared(t)
	c := hub.Default()
	c.Kubeconfig = server.Kubeconfig()
	c.LeaderElect = false
	c.InstallCRDs = true
	c.Broker.URL = "mem:"
	r := start(t, c)
	eventually(t, "the hub is ready", func() error { return r.ready(t) })
	if err := r.get(t, "/livez"); err != nil {
		t.Errorf("livez: %v", err)
	}
}

func TestConfigErrorsEndTheHub(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		change func(*hub.Config)
		want   string
	}{
		"no broker":           {"there is no default", func(c *hub.Config) { c.Broker.URL = "" }, "--broker is required"},
		"no such scheme":      {"no waiting brings a driver", func(c *hub.Config) { c.Broker.URL = "gopher://x" }, "unknown broker scheme"},
		"half a certificate":  {"the key is missing", func(c *hub.Config) { c.Broker.Config.CertFile = "x" }, "come together"},
		"wildcard source":     {"it would publish for all", func(c *hub.Config) { c.SourceID = "*" }, "--source-id"},
		"source with a slash": {"topics are split at it", func(c *hub.Config) { c.SourceID = "a/b" }, "--source-id"},
		"source in capitals":  {"objects are named after it", func(c *hub.Config) { c.SourceID = "Hub1" }, "--source-id"},
		"half as much again":  {"a share is one of the whole", func(c *hub.Config) { c.Breaker.Share = 1.5 }, "--max-deletion-share"},
		"no number":           {"nothing compares with it", func(c *hub.Config) { c.Breaker.Share = math.NaN() }, "--max-deletion-share"},
		"fewer than none":     {"0 is the least", func(c *hub.Config) { c.Breaker.Works = -1 }, "--max-deletions"},
		"less than nothing":   {"0 is no limit", func(c *hub.Config) { c.ManifestLimit = -1 }, "--manifest-limit"},
		"no such kubeconfig":  {"a wrong path stays wrong", func(c *hub.Config) { c.Kubeconfig = "/does/not/exist" }, "--kubeconfig /does/not/exist"},
	} {
		t.Run(name, func(t *testing.T) {
			c := hub.Default()
			c.Broker.URL = "mem:"
			tc.change(&c)
			err := hub.Run(t.Context(), c)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: %v, want an error with %q", tc.reason, err, tc.want)
			}
		})
	}
}

// TestHubWaits: neither API server nor CRDs nor broker need to be there.
func TestHubWaits(t *testing.T) {
	server := apitest.Start(t, apitest.Hub)
	server.Stop(t)
	b := mem.NewBroker(mem.Options{})
	b.Stop()
	c := config(server, b)
	c.InstallCRDs = false
	r := start(t, c)
	says := func(text string) func() error {
		return func() error {
			if err := r.ready(t); err == nil || !strings.Contains(r.log.String(), text) {
				return fmt.Errorf("ready: %w, log: %s", err, r.log)
			}
			return nil
		}
	}
	eventually(t, "it says that the API server is away", says("connection refused"))
	if err := r.get(t, "/livez"); err != nil {
		t.Errorf("not live while it waits: %v", err)
	}
	server.Restart(t)
	eventually(t, "it says which CRDs are missing and what to do", says("manifestworks.work.open-cluster-management.io"))
	if !strings.Contains(r.log.String(), "--install-crds") {
		t.Errorf("no advice in the log:\n%s", r.log)
	}

	installer := start(t, config(server, mem.NewBroker(mem.Options{})))
	eventually(t, "another hub installs them", func() error { return installer.ready(t) })
	eventually(t, "it waits for the broker", func() error {
		if err := r.ready(t); err == nil || !strings.Contains(err.Error(), "[-]broker") {
			return fmt.Errorf("readyz: %w", err)
		}
		return nil
	})
	b.Start()
	eventually(t, "it is ready", func() error { return r.ready(t) })
	if n := strings.Count(r.log.String(), "CRDs are missing"); n != 1 {
		t.Errorf("the missing CRDs are told %d times, want once:\n%s", n, r.log)
	}
}

// TestOwnCRDIsInstalledAnyway: Open Cluster Management installs its own CRDs, and
// nobody but the hub installs Fleetcast's.
func TestOwnCRDIsInstalledAnyway(t *testing.T) {
	server := apitest.Start(t, apitest.Hub)
	clients, err := apiextensions.NewForConfig(server.Config())
	if err != nil {
		t.Fatal(err)
	}
	all, own := clients.ApiextensionsV1().CustomResourceDefinitions(), ""
	for _, crd := range crds.Hub() {
		if crd.Spec.Group == v1alpha1.GroupVersion.Group {
			own = crd.Name
			continue
		}
		if _, err := all.Create(t.Context(), crd, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	c := config(server, mem.NewBroker(mem.Options{}))
	c.InstallCRDs = false
	r := start(t, c)
	eventually(t, "the hub is ready", func() error { return r.ready(t) })
	crd, err := all.Get(t.Context(), own, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Description
	crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Description = "of an earlier version"
	if _, err := all.Update(t.Context(), crd, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.stop()
	<-r.done
	start(t, c)
	eventually(t, "the next start brings it up to date", func() error {
		crd, err := all.Get(t.Context(), own, metav1.GetOptions{})
		if err == nil && crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Description != want {
			err = errors.New("it is the earlier one")
		}
		return err
	})
}

func TestInstalledCRDsAreKeptUpToDate(t *testing.T) {
	server := apitest.Shared(t)
	r := start(t, config(server, mem.NewBroker(mem.Options{})))
	eventually(t, "the hub is ready", func() error { return r.ready(t) })
	clients, err := apiextensions.NewForConfig(server.Config())
	if err != nil {
		t.Fatal(err)
	}
	all := clients.ApiextensionsV1().CustomResourceDefinitions()
	const name = "manifestworks.work.open-cluster-management.io"
	crd, err := all.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Description
	crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Description = "changed by hand"
	if _, err := all.Update(t.Context(), crd, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.stop()
	<-r.done
	start(t, config(server, mem.NewBroker(mem.Options{})))
	eventually(t, "the next start puts it right", func() error {
		crd, err := all.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Description; got != want {
			return fmt.Errorf("description %q", got)
		}
		return nil
	})
}

// TestReplicasHandOver has two replicas on one broker: the second takes over
// when the first stops, with what was changed between.
func TestReplicasHandOver(t *testing.T) {
	server := apitest.Shared(t)
	cluster := server.Namespace(t)
	b := mem.NewBroker(mem.Options{})
	direct, err := client.New(server.Config(), client.Options{Scheme: api.NewScheme()})
	if err != nil {
		t.Fatal(err)
	}
	opened := make(chan string, 10)
	replicaOf := func(name string) hub.Config {
		c := config(server, b)
		c.LeaderElect = true
		c.LeaderElectionNamespace = cluster
		open := c.Drivers["mem"]
		c.Drivers = brokers.Drivers{"mem": func(ctx context.Context, u *url.URL, bc brokers.Config) (brokers.Transport, error) {
			if !bc.CheckOnly {
				opened <- name
			}
			return open(ctx, u, bc)
		}}
		return c
	}
	leads := func(want string) {
		t.Helper()
		select {
		case got := <-opened:
			if got != want {
				t.Fatalf("%s connects to the broker, want %s", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("%s does not lead", want)
		}
	}
	first := start(t, replicaOf("first"))
	leads("first")
	eventually(t, "the leader is ready", func() error { return first.ready(t) })
	second := start(t, replicaOf("second"))
	eventually(t, "the other is ready without a broker", func() error { return second.ready(t) })

	works := listen(t, b, cluster)
	create := func(name string) *workv1.ManifestWork {
		t.Helper()
		w := newWork(cluster, name)
		if err := direct.Create(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		return w
	}
	await := func(w *workv1.ManifestWork) {
		t.Helper()
		deadline := time.After(patience)
		for {
			select {
			case got := <-works:
				if got.ID == string(w.UID) {
					return
				}
			case <-deadline:
				t.Fatalf("work %s is not published", w.Name)
			}
		}
	}
	await(create("one"))
	select {
	case name := <-opened:
		t.Fatalf("%s connects to the broker, which the first does", name)
	default:
	}
	first.stop()
	if err := <-first.done; err != nil {
		t.Fatalf("first: %v", err)
	}
	between := create("two")
	leads("second")
	await(between)
	await(create("three"))
}

// newWork is a work of one manifest.
func newWork(cluster, name string) *workv1.ManifestWork {
	w := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Namespace: cluster, Name: name}}
	w.Spec.Workload.Manifests = []workv1.Manifest{{RawExtension: runtime.RawExtension{
		Raw: []byte(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"web"}}`),
	}}}
	return w
}

// listen returns the bundles that come for a cluster.
func listen(t *testing.T, b *mem.Broker, cluster string) <-chan codec.Bundle {
	t.Helper()
	transport := b.Open(brokers.Config{Role: brokers.RoleAgent, Name: cluster})
	ctx, cancel := context.WithCancel(context.Background())
	works, ready, done := make(chan codec.Bundle, 1000), make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() {
		done <- transport.Subscribe(ctx, brokers.Subscription{
			Filters: []brokers.Filter{{Lane: brokers.ToCluster, Source: hub.DefaultSourceID, Cluster: cluster}},
			Ready:   func(brokers.Session) { once.Do(func() { close(ready) }) },
			Handle: func(_ context.Context, in brokers.Delivery) {
				if _, m, err := codec.Decode(in.Event); err == nil {
					if w, ok := m.(codec.Bundle); ok {
						works <- w
					}
				}
				in.Done(nil)
			},
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("listen: %v", err)
		}
	})
	select {
	case <-ready:
	case <-time.After(patience):
		t.Fatal(errors.New("the cluster does not connect"))
	}
	return works
}

// TestHubsShareAProcess: a process may run several hubs, as tests and
// standalone do, though it has one registry of metrics.
func TestHubsShareAProcess(t *testing.T) {
	server := apitest.Shared(t)
	var replicas []*replica
	for range 2 {
		replicas = append(replicas, start(t, config(server, mem.NewBroker(mem.Options{}))))
	}
	for _, r := range replicas {
		eventually(t, "the hub dispatches", func() error { return r.ready(t) })
	}
}
