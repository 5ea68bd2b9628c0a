package mqtt_test

import (
	"context"
	"fmt"
	"net/url"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/brokertest"
	"github.com/fleetcast-io/fleetcast/brokers/embedded"
	"github.com/fleetcast-io/fleetcast/brokers/mqtt"
)

// A broker is an embedded one that can be stopped and started.
type broker struct {
	options embedded.MQTTOptions

	mu  sync.Mutex
	now *embedded.MQTT
	url *url.URL
}

func startBroker(t *testing.T, o embedded.MQTTOptions) *broker {
	t.Helper()
	b := &broker{options: o}
	b.start(t)
	t.Cleanup(func() { b.stop(t) })
	return b
}

func (b *broker) start(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now != nil {
		return
	}
	var err error
	if b.now, err = embedded.StartMQTT(b.options); err != nil {
		t.Fatal(err)
	}
	b.url = b.now.URL()
	// The next life is at the same address.
	b.options.Listen = b.now.Addr().String()
}

func (b *broker) stop(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now == nil {
		return
	}
	if err := b.now.Close(); err != nil {
		t.Error(err)
	}
	b.now = nil
}

func (b *broker) address(query string) *url.URL {
	u := *b.url
	u.RawQuery = query
	return &u
}

func open(t *testing.T, u *url.URL, c brokers.Config) brokers.Transport {
	t.Helper()
	c.Log = testLog(t)
	tr, err := mqtt.Open(context.Background(), u, c)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestConformance(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for _, durable := range []bool{false, true} {
		t.Run(fmt.Sprintf("durable=%t", durable), func(t *testing.T) {
			o := embedded.MQTTOptions{MaxPacket: 700_000, Log: testLog(t)}
			if durable {
				o.DataDir = t.TempDir()
			}
			b := startBroker(t, o)
			h := brokertest.Harness{
				Open:             func(t *testing.T, c brokers.Config) brokers.Transport { return open(t, b.address(""), c) },
				Sessions:         true,
				Redelivers:       true,
				DurableBroadcast: true,
				MaxSize:          700_000,
				Wills:            true,
				Cut: func(t *testing.T, c brokers.Config) (brokers.Transport, func()) {
					w := brokertest.NewWire(t, b.url.Host)
					return open(t, &url.URL{Scheme: "mqtt", Host: w.Addr()}, c), w.Cut
				},
				Ignore: []goleak.Option{goleak.IgnoreAnyFunction("github.com/mochi-mqtt/server/v2.(*Client).WriteLoop")},
			}
			if durable {
				h.Stop, h.Start = b.stop, b.start
			} else {
				h.Wipe = func(t *testing.T) { b.stop(t); b.start(t) }
			}
			brokertest.Run(t, h)
		})
	}
}
