package sources_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/memory"
)

// TestLastWill: what agents leave with the broker is understood by sources,
// also by one of several.
func TestLastWill(t *testing.T) {
	for name, of := range map[string][]string{"one source": {sourceID}, "several": {sourceID, "hub2"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, src := mem.NewBroker(mem.Options{}), memory.New(sourceID)
				run(t, src, b.Open(brokers.Config{Role: brokers.RoleSource, Name: sourceID}), sources.Options{})
				o := agents.Options{Sources: of, Instance: digest.Key{7}}
				will, err := agents.LastWill("c1", o)
				if err != nil {
					t.Fatal(err)
				}
				agent := b.Open(brokers.Config{Role: brokers.RoleAgent, Name: "c1", Will: will})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan error, 1)
				go func() {
					done <- agent.Subscribe(ctx, brokers.Subscription{
						Filters: []brokers.Filter{{Lane: brokers.ToCluster, Source: sourceID, Cluster: "c1"}},
						Handle:  func(_ context.Context, in brokers.Delivery) { in.Done(nil) },
					})
				}()
				pass(time.Second)
				e := encode(t, codec.Presence{Agent: "c1-work-agent", Instance: o.Instance, Online: true}, codec.Announce)
				if err := agent.Publish(ctx, toSource("c1"), e); err != nil {
					t.Fatal(err)
				}
				if !isOnline(t, src, "c1") {
					t.Fatal("offline, though it said that it is there")
				}
				b.Crash("c1-client")
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				pass(40 * time.Second)
				if isOnline(t, src, "c1") {
					t.Error("online after its last will")
				}
			})
		})
	}
}
