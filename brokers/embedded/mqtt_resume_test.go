package embedded_test

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/embedded"
)

func mqttTopicOf(cluster string) brokers.Topic {
	return brokers.Topic{Lane: brokers.ToCluster, Source: "s", Cluster: cluster}
}

func mqttFilterOf(cluster string) string { return "sources/+/clusters/" + cluster + "/sourceevents" }

// A session passes from one connection to the next, whether that ended before
// or is taken over, while events are published: none is lost, and those that
// are new come in their order.
func TestMQTTResumeUnderLoad(t *testing.T) {
	const n, clients, each = 600, 4, 7
	m := startMQTT(t, embedded.MQTTOptions{})
	hub := openMQTT(t, m, brokers.RoleSource, "s", "")
	resume := func(t *testing.T, name string) {
		client := dialMQTTAs(t, m.URL(), name, 3600)
		subscribeRaw(t, client, mqttFilterOf(name))
		published := make(chan error, 1)
		go func() {
			for i := range n {
				if err := tryPublishMQTT(hub, mqttTopicOf(name), mqttEvent(strconv.Itoa(i), 10)); err != nil {
					published <- err
					return
				}
			}
			published <- nil
		}()
		next := 0
		for connection := 0; next < n; connection++ {
			for range each {
				publish := readPublish(t, client)
				got, err := strconv.Atoi(mqttID(publish))
				if err != nil || got > next {
					t.Fatalf("event %d came, want %d or one that came before: %v", got, next, err)
				}
				acknowledgeRaw(t, client, publish.PacketID)
				if got == next {
					next++
				}
				if next == n {
					break
				}
			}
			if connection%2 == 0 {
				_ = client.Close()
			}
			client = dialMQTTAs(t, m.URL(), name, 3600)
		}
		if err := <-published; err != nil {
			t.Error(err)
		}
	}
	t.Run("clients", func(t *testing.T) {
		for c := range clients {
			name := fmt.Sprintf("c%d", c)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				resume(t, name)
			})
		}
	})
}

// What ends a connection without a session does nothing to the next one of the
// same client ID, however soon that comes.
func TestMQTTCleanSessionReturns(t *testing.T) {
	const clients, times = 4, 200
	m := startMQTT(t, embedded.MQTTOptions{})
	hub := openMQTT(t, m, brokers.RoleSource, "s", "")
	t.Run("clients", func(t *testing.T) {
		for c := range clients {
			name := fmt.Sprintf("c%d", c)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				for i := range times {
					client := dialMQTTAs(t, m.URL(), name, 0)
					subscribeRaw(t, client, mqttFilterOf(name))
					publishMQTT(t, hub, mqttTopicOf(name), mqttEvent(strconv.Itoa(i), 10))
					if got := mqttID(readPublish(t, client)); got != strconv.Itoa(i) {
						t.Fatalf("event %s came on connection %d", got, i)
					}
					if i%2 == 0 {
						_ = client.Close()
					}
				}
			})
		}
	})
}

// Of several that connect under one client ID at a time, the last has the
// session, and the others are sent away.
func TestMQTTManyOfOneID(t *testing.T) {
	const clients, rounds = 8, 20
	m := startMQTT(t, embedded.MQTTOptions{})
	hub := openMQTT(t, m, brokers.RoleSource, "s", "")
	subscribeRaw(t, dialMQTTAs(t, m.URL(), "c1", 3600), mqttFilterOf("c1"))
	expiry := uint32(3600)
	for round := range rounds {
		var wg, dialing sync.WaitGroup
		came := make(chan string, 100*clients)
		dialing.Add(clients)
		for range clients {
			wg.Go(func() {
				client, err := tryDialMQTT(m.URL(), func(connect *packets.Connect) {
					connect.ClientID, connect.Properties.SessionExpiryInterval = "c1", &expiry
				})
				dialing.Done()
				if err != nil {
					return // It was sent away before it was let in.
				}
				defer client.Close()
				for {
					p, err := packets.ReadPacket(client)
					if err != nil {
						return
					}
					if publish, ok := p.Content.(*packets.Publish); ok {
						acknowledgeRaw(t, client, publish.PacketID)
						came <- mqttID(publish)
					}
				}
			})
		}
		publishMQTT(t, hub, mqttTopic, mqttEvent(strconv.Itoa(round), 10))
		deadline := time.After(mqttPatience)
		for id := ""; id != strconv.Itoa(round); {
			select {
			case id = <-came:
			case <-deadline:
				t.Fatalf("the event of round %d has not come", round)
			}
		}
		// Whoever is still there is sent away as well.
		dialing.Wait()
		_ = dialMQTTAs(t, m.URL(), "c1", 3600).Close()
		wg.Wait()
	}
}
