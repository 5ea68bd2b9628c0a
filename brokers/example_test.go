package brokers_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// A source sends a work to a cluster. Both connect in the background and reach
// the same broker by its URL; the source publishes when it is connected.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	drivers := brokers.Drivers{"mem": mem.Open}

	agent, err := drivers.Open(ctx, "mem://example", brokers.Config{Role: brokers.RoleAgent, Name: "cluster1"})
	if err != nil {
		fmt.Println(err)
		return
	}
	ready, received := make(chan struct{}), make(chan struct{})
	go func() {
		err := agent.Subscribe(ctx, brokers.Subscription{
			Filters: []brokers.Filter{{Lane: brokers.ToCluster, Source: brokers.Any, Cluster: "cluster1"}},
			Ready: func(s brokers.Session) {
				// What was sent while away is lost unless the session was
				// resumed: this is where both ends compare their state.
				fmt.Println("resumed:", s.Resumed)
				close(ready)
			},
			Handle: brokers.Sync(func(_ context.Context, from brokers.Topic, e event.Event) error {
				fmt.Printf("from %s: %s\n", from, e.Data)
				close(received)
				return nil // Acknowledges it.
			}),
		})
		if err != nil && !errors.Is(err, brokers.ErrClosed) {
			fmt.Println(err)
		}
	}()
	<-ready

	source, err := drivers.Open(ctx, "mem://example", brokers.Config{Role: brokers.RoleSource, Name: "hub"})
	if err != nil {
		fmt.Println(err)
		return
	}
	e := event.New("com.example.greeting", "hub", time.Now(), 0)
	e.Data = []byte("hello")
	to := brokers.Topic{Lane: brokers.ToCluster, Source: "hub", Cluster: "cluster1", Key: "greeting"}
	for {
		// A real source tries again when its subscription is ready.
		if err := source.Publish(ctx, to, e); !errors.Is(err, brokers.ErrUnavailable) {
			break
		}
		<-time.After(time.Millisecond)
	}
	<-received

	for _, tr := range []brokers.Transport{source, agent} {
		if err := tr.Close(ctx); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// resumed: false
	// from source hub, cluster cluster1, sourceevents greeting: hello
}
