package nats_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/embedded"
)

// BenchmarkPublish publishes works of 1.5 KB on 10,000 subjects, each
// confirmed by the stream, to a server in this process that does not sync.
func BenchmarkPublish(b *testing.B) {
	for _, callers := range []int{1, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := startServer(b, embedded.NATSOptions{})
			hub := openFor(b, s, brokers.Config{Role: brokers.RoleSource, Name: "hub"})
			send(b, hub, work("hub", "c", "first"), newEvent())
			b.ReportAllocs()
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range callers {
				wg.Go(func() {
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						e := newEvent()
						e.Data = make([]byte, 1500)
						if err := hub.Publish(context.Background(), work("hub", fmt.Sprintf("c%d", n%10_000), "k"), e); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkDeliver measures how fast an agent gets its works after the first
// connection, acknowledging each.
func BenchmarkDeliver(b *testing.B) {
	s := startServer(b, embedded.NATSOptions{})
	hub := openFor(b, s, brokers.Config{Role: brokers.RoleSource, Name: "hub"})
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				e := newEvent()
				e.Data = make([]byte, 1500)
				send(b, hub, work("hub", "c1", fmt.Sprint(n)), e)
			}
		})
	}
	wg.Wait()
	agent := openFor(b, s, brokers.Config{Role: brokers.RoleAgent, Name: "c1"})
	got := make(chan struct{}, 1)
	var count atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		_ = agent.Subscribe(b.Context(), brokers.Subscription{
			Filters: []brokers.Filter{worksOf("hub", "c1")},
			Handle: func(_ context.Context, d brokers.Delivery) {
				d.Done(nil)
				if count.Add(1) == int64(b.N) {
					got <- struct{}{}
				}
			},
		})
	}()
	<-got
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
