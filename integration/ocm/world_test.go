package ocm_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/agents/apply"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/embedded"
	"github.com/fleetcast-io/fleetcast/brokers/mqtt"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
)

// patience bounds what must happen; it is far above what that takes.
const patience = time.Minute

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	apitest.Main(m, apitest.Full)
}

// A startBroker starts a broker for one test and returns its host and port.
type startBroker func(t *testing.T) string

// cases are the tests that every broker must pass.
var cases = []struct {
	name string
	run  func(*world)
}{
	{"AgentLifecycle", testAgentLifecycle},
	{"AgentUnversioned", testAgentUnversioned},
	{"AgentCreatedAgain", testAgentCreatedAgain},
	{"AgentSameSecond", testAgentSameSecond},
	{"AgentSpecResync", testAgentSpecResync},
	{"AgentStatusResync", testAgentStatusResync},
	{"AgentCreationLost", testAgentCreationLost},
	{"AgentSourceAway", testAgentSourceAway},
	{"AgentForeignPublishers", testAgentForeignPublishers},
	{"AgentMaestro", func(w *world) { w.word, w.source = "consumers", "maestro"; testAgentMaestro(w) }},
	{"HubLifecycle", testHubLifecycle},
	{"HubConsumers", func(w *world) { w.word = "consumers"; testHubLifecycle(w) }},
	{"HubSpecResync", testHubSpecResync},
	{"HubForeignReports", testHubForeignReports},
	{"HubAgentAway", testHubAgentAway},
}

func TestEmbedded(t *testing.T) {
	runCases(t, func(t *testing.T) string {
		broker, err := embedded.StartMQTT(embedded.MQTTOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := broker.Close(); err != nil {
				t.Error(err)
			}
		})
		return broker.Addr().String()
	})
}

func runCases(t *testing.T, start startBroker) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.run(newWorld(t, start(t))) })
	}
}

// A world is a broker of its own and a namespace on the tests' API server, which
// is the hub's and the cluster's.
type world struct {
	t         *testing.T
	address   string // Of the broker.
	server    *apitest.Server
	kube      kubernetes.Interface
	source    string
	word      string // Before a cluster's name in topics.
	cluster   string
	namespace string
	dir       string // Of the agent.
}

func newWorld(t *testing.T, address string) *world {
	t.Helper()
	server := apitest.Shared(t)
	client, err := kubernetes.NewForConfig(server.Config())
	if err != nil {
		t.Fatal(err)
	}
	namespace := server.Namespace(t)
	return &world{
		t: t, address: address, server: server, kube: client,
		source: "hub-alpha", word: "clusters", cluster: namespace, namespace: namespace, dir: t.TempDir(),
	}
}

// url is the broker's address as this project's ends are given it.
func (w *world) url() string { return "mqtt://" + w.address + "?topics=sources/" + w.word }

// startAgent runs this project's agent of the cluster until the test ends, or
// the returned function is called.
func (w *world) startAgent() (stop func()) {
	w.t.Helper()
	store, err := agents.OpenDisk(w.dir, w.cluster)
	if err != nil {
		w.t.Fatal(err)
	}
	var agent *agents.Agent
	applier, err := apply.New(w.server.Config(), apply.Options{
		HubHash: "hub-" + w.namespace,
		Changed: func(source, id string) { agent.Changed(source, id) },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := applier.InstallCRD(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	transport, err := brokers.Drivers{"mqtt": mqtt.Open}.Open(w.t.Context(), w.url(), brokers.Config{Role: brokers.RoleAgent, Name: w.cluster})
	if err != nil {
		w.t.Fatal(err)
	}
	agent, err = agents.New(w.cluster, store, applier, transport, agents.Options{Sources: []string{w.source}})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- applier.Run(ctx) }()
	go func() { ended <- agent.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		closing, done := context.WithTimeout(context.Background(), patience)
		defer done()
		if err := errors.Join(<-ended, <-ended, transport.Close(closing), store.Close()); err != nil {
			w.t.Errorf("stop the agent: %v", err)
		}
	}
	w.t.Cleanup(stop)
	return stop
}

// An observer sees what passes on a lane of the cluster, also while the peer
// that it is for is away.
type observer struct {
	*link
	t    *testing.T
	mu   sync.Mutex
	seen []message
}

func (w *world) observe(lane string) *observer {
	w.t.Helper()
	o := &observer{t: w.t}
	filter := "sources/" + w.source + "/" + w.word + "/" + w.cluster + "/" + lane
	o.link = dial(w.t, w.address, "observer", []string{filter}, func(m message) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.seen = append(o.seen, m)
	})
	w.t.Cleanup(o.close)
	return o
}

// await waits for an event about the work that has this text in a property or
// in its body.
func (o *observer) await(id, text string) {
	o.t.Helper()
	until(o.t, "an event about "+id+" with "+text+" passes", func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, m := range o.seen {
			if m.id() == id && strings.Contains(fmt.Sprintf("%v %s", m.properties, m.payload), text) {
				return nil
			}
		}
		return fmt.Errorf("%d others did", len(o.seen))
	})
}

// mode is what a work's ConfigMap holds; empty if there is none.
func (w *world) mode(name string) string {
	w.t.Helper()
	c, err := w.kube.CoreV1().ConfigMaps(w.namespace).Get(w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		if !apierrors.IsNotFound(err) {
			w.t.Fatal(err)
		}
		return ""
	}
	return c.Data["mode"]
}

// holds fails the test unless the work's ConfigMap is so now.
func (w *world) holds(name, mode string) {
	w.t.Helper()
	if got := w.mode(name); got != mode {
		w.t.Errorf("on the cluster, the ConfigMap of work %s says %q, want %q", name, got, mode)
	}
}

// until fails the test if holds does not become nil in time.
func until(t *testing.T, what string, holds func() error) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		err := holds()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within %s: %s", what, patience, fmt.Sprint(err))
		}
	}
}
