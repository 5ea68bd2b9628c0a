package hub_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
	"github.com/fleetcast-io/fleetcast/pkg/hub"
	"github.com/fleetcast-io/fleetcast/sources/kube"
)

// TestFencedHubSaysSo: a hub whose agents follow another one under the same
// source ID is not ready, lives on, and says what to do.
func TestFencedHubSaysSo(t *testing.T) {
	server := apitest.Shared(t)
	cluster, b := server.Namespace(t), mem.NewBroker(mem.Options{})
	direct, err := client.New(server.Config(), client.Options{Scheme: api.NewScheme()})
	if err != nil {
		t.Fatal(err)
	}
	c := config(server, b)
	c.LeaderElectionNamespace = cluster
	r := start(t, c)
	eventually(t, "the hub is ready", func() error { return r.ready(t) })
	// One cluster's word does not count: the hub may have others.
	var agents []func(term int64) error
	for _, name := range []string{cluster, server.Namespace(t)} {
		agent := b.Open(brokers.Config{Role: brokers.RoleAgent, Name: name})
		agents = append(agents, func(term int64) error {
			e, err := codec.Digest{
				Agent: name + "-work-agent", Instance: digest.Key{1}, Term: term,
				Spec: digest.Root{1}, Status: digest.Root{1}, Capabilities: []string{codec.CapDigest},
			}.Encode(codec.Announce)
			if err != nil {
				t.Fatal(err)
			}
			return agent.Publish(t.Context(), brokers.Topic{Lane: brokers.ToSource, Source: hub.DefaultSourceID, Cluster: name, Key: "digest"}, e)
		})
	}
	say := func(term int64) error {
		for _, agent := range agents {
			if err := agent(term); err != nil {
				return err
			}
		}
		return nil
	}
	eventually(t, "the hub is fenced", func() error {
		// The hub may outbid others until a cluster follows it.
		kept := &corev1.ConfigMap{}
		if err := direct.Get(t.Context(), client.ObjectKey{Namespace: cluster, Name: "fleetcast-hub-" + hub.DefaultSourceID}, kept); err != nil {
			return err
		}
		term, err := strconv.ParseInt(kept.Data["term"], 10, 64)
		if err != nil {
			return err
		}
		for _, n := range []int64{term, term + 5} {
			if err := say(n); err != nil {
				return err
			}
		}
		if err := r.ready(t); err == nil || !strings.Contains(err.Error(), "[-]broker") {
			return fmt.Errorf("readyz: %w", err)
		}
		if log := r.log.String(); !strings.Contains(log, "stop one of the two") {
			return fmt.Errorf("log: %s", log)
		}
		return nil
	})
	if err := r.get(t, "/livez"); err != nil {
		t.Errorf("a fenced hub is restarted: %v", err)
	}
}

// TestHubKeepsTheRecordOfAgents of its own source, with what the flags say.
func TestHubKeepsTheRecordOfAgents(t *testing.T) {
	server := apitest.Shared(t)
	cluster, b := server.Namespace(t), mem.NewBroker(mem.Options{})
	direct, err := client.New(server.Config(), client.Options{Scheme: api.NewScheme()})
	if err != nil {
		t.Fatal(err)
	}
	c := config(server, b)
	c.Breaker = &kube.Breaker{}
	r := start(t, c)
	eventually(t, "the hub is ready", func() error { return r.ready(t) })
	eventually(t, "the metric of withheld deletions is served", func() error {
		families, err := metrics.Registry.Gather()
		if err != nil {
			return err
		}
		for _, f := range families {
			if f.GetName() == "fleetcast_source_withheld_deletions" {
				return nil
			}
		}
		return fmt.Errorf("not among %d metrics", len(families))
	})

	other := &v1alpha1.Agent{ObjectMeta: metav1.ObjectMeta{Namespace: cluster, Name: "hub2"}}
	if err := direct.Create(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	works := listen(t, b, cluster)
	w := newWork(cluster, "web")
	if err := direct.Create(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	<-works
	if err := direct.Delete(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the deletion is withheld, as no work may be deleted unconfirmed", func() error {
		if err := direct.Get(t.Context(), client.ObjectKeyFromObject(w), w); err != nil {
			return err
		}
		for _, c := range w.Status.Conditions {
			if c.Type == api.ConditionDispatched && c.Reason == api.ReasonDeletionWithheld {
				return nil
			}
		}
		return fmt.Errorf("conditions %v", w.Status.Conditions)
	})
	var agents v1alpha1.AgentList
	if err := direct.List(t.Context(), &agents, client.InNamespace(cluster)); err != nil {
		t.Fatal(err)
	}
	if len(agents.Items) != 1 || len(agents.Items[0].Status.Conditions) > 0 {
		t.Errorf("agents %v, want that of the other hub, untouched", agents.Items)
	}
}
