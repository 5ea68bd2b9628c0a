package mem_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/brokertest"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
)

func TestConformance(t *testing.T) {
	const size = 1 << 20
	for _, o := range []mem.Options{
		{},
		{Log: true},
		{Seed: 1, Delay: 3 * time.Millisecond, Duplicate: 0.3, DurableBroadcast: true},
		{Seed: 2, Delay: 3 * time.Millisecond, Duplicate: 0.3, Log: true},
		{Seed: 3, Delay: time.Millisecond, Duplicate: 0.9, Reconnect: 50 * time.Millisecond, Window: 16},
		{Seed: 4, Delay: time.Millisecond, Duplicate: 0.9, Reconnect: 50 * time.Millisecond, Log: true, Window: 16},
	} {
		t.Run(fmt.Sprintf("seed %d, log %t", o.Seed, o.Log), func(t *testing.T) {
			o.MaxSize = size
			b := mem.NewBroker(o)
			brokertest.Run(t, brokertest.Harness{
				Open:             func(_ *testing.T, c brokers.Config) brokers.Transport { return b.Open(c) },
				Stop:             func(*testing.T) { b.Stop() },
				Start:            func(*testing.T) { b.Start() },
				Wipe:             func(*testing.T) { b.Wipe() },
				Sessions:         true,
				Redelivers:       true,
				Repeats:          o.Duplicate > 0,
				KeepsLast:        o.Log,
				Log:              o.Log,
				DurableBroadcast: o.DurableBroadcast,
				Wills:            !o.Log,
				Cut: func(_ *testing.T, c brokers.Config) (brokers.Transport, func()) {
					return b.Open(c), func() { b.Crash(c.Identity()) }
				},
				MaxSize: size,
			})
		})
	}
}
