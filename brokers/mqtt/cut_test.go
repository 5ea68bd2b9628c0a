package mqtt_test

import (
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/eclipse/paho.golang/packets"
)

// mosquitto 2.0.11 takes a session from one client for another and tells
// neither, so that two hubs under one ID would take it from each other for ever.
func TestSessionTakenWithoutAWord(t *testing.T) {
	u := hangUpAfterConnect(t)
	log := newLog(t)
	config := source
	config.Log = log.logger
	openWith(t, u, config)
	log.await(t, "the broker keeps ending the connection without a reason")
}

// hangUpAfterConnect is a broker that has everybody's session, and ends each
// connection once it has accepted it.
func hangUpAfterConnect(t *testing.T) *url.URL {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := packets.ReadPacket(c); err != nil {
				t.Errorf("read CONNECT: %v", err)
			}
			accepted := packets.NewControlPacket(packets.CONNACK)
			accepted.Content.(*packets.Connack).SessionPresent = true
			if _, err := accepted.WriteTo(c); err != nil {
				t.Errorf("write CONNACK: %v", err)
			}
			_ = c.Close()
		}
	})
	return &url.URL{Scheme: "mqtt", Host: l.Addr().String()}
}
