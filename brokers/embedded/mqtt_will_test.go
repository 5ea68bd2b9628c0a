package embedded_test

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/embedded"
)

// leave connects with a will and is lost.
func leaveMQTT(t *testing.T, m *embedded.MQTT, id string, configure func(*packets.Connect)) {
	t.Helper()
	expiry := uint32(3600)
	c, err := tryDialMQTT(m.URL(), func(connect *packets.Connect) {
		connect.ClientID, connect.Properties.SessionExpiryInterval = id, &expiry
		connect.WillFlag, connect.WillQOS, connect.WillProperties = true, 1, &packets.Properties{}
		configure(connect)
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

// A will is nothing that a client may say where it may not publish.
func TestMQTTWillNeedsPermission(t *testing.T) {
	m := startMQTT(t, embedded.MQTTOptions{Authorize: func(c embedded.MQTTClient, topic string, write bool) bool {
		return !write || strings.HasSuffix(topic, c.ID)
	}})
	watcher := dialMQTTAs(t, m.URL(), "watcher", 0)
	subscribeRaw(t, watcher, "wills/#")
	for _, topic := range []string{"wills/another", "wills/intruder"} {
		leaveMQTT(t, m, "intruder", func(c *packets.Connect) { c.WillTopic, c.WillMessage = topic, []byte(topic) })
	}
	if got := readPublish(t, watcher); got.Topic != "wills/intruder" {
		t.Errorf("a will came from %s, want only that of wills/intruder", got.Topic)
	}
}

// A will without a body is published, and one that is to be retained is.
func TestMQTTWillRetained(t *testing.T) {
	m := startMQTT(t, embedded.MQTTOptions{})
	watcher := dialMQTTAs(t, m.URL(), "watcher", 0)
	subscribeRaw(t, watcher, "wills/#")
	leaveMQTT(t, m, "a", func(c *packets.Connect) { c.WillTopic = "wills/empty" })
	if got := readPublish(t, watcher); got.Topic != "wills/empty" || len(got.Payload) != 0 {
		t.Errorf("%v came, want the will without a body", got)
	}
	leaveMQTT(t, m, "a", func(c *packets.Connect) {
		c.WillTopic, c.WillMessage, c.WillRetain = "wills/kept", []byte("body"), true
	})
	readPublish(t, watcher)
	late := dialMQTTAs(t, m.URL(), "late", 0)
	subscribeRaw(t, late, "wills/#")
	got := readPublish(t, late)
	if diff := cmp.Diff([]string{"wills/kept", "body"}, []string{got.Topic, string(got.Payload)}); diff != "" {
		t.Errorf("retained will (-left +came):\n%s", diff)
	}
}

// What a client leaves where nothing can be published keeps it out.
func TestMQTTWillOfNoTopic(t *testing.T) {
	m := startMQTT(t, embedded.MQTTOptions{})
	for _, topic := range []string{"a/#", "$SYS/broker"} {
		c, err := tryDialMQTT(m.URL(), func(connect *packets.Connect) {
			connect.ClientID, connect.WillFlag, connect.WillProperties = "c", true, &packets.Properties{}
			connect.WillTopic, connect.WillMessage = topic, []byte("x")
		})
		if err == nil {
			_ = c.Close()
			t.Errorf("a client with a will for %s is let in", topic)
		}
	}
}

func TestStats(t *testing.T) {
	m := startMQTT(t, embedded.MQTTOptions{})
	subscriber := dialMQTTAs(t, m.URL(), "a", 0)
	subscribeRaw(t, subscriber, mqttFilterOf("c1"))
	before := m.Stats()
	publishMQTT(t, openMQTT(t, m, brokers.RoleSource, "s", ""), mqttTopic, mqttEvent("1", 10_000))
	readPublish(t, subscriber)
	after := m.Stats()
	for deadline := time.Now().Add(mqttPatience); after.MessagesOut == before.MessagesOut && time.Now().Before(deadline); {
		runtime.Gosched() // It is counted when it is sent.
		after = m.Stats()
	}
	if in, out := after.MessagesIn-before.MessagesIn, after.MessagesOut-before.MessagesOut; in != 1 || out != 1 {
		t.Errorf("%d messages in and %d out are counted, want one each", in, out)
	}
	for what, bytes := range map[string]int64{"in": after.BytesIn - before.BytesIn, "out": after.BytesOut - before.BytesOut} {
		if bytes < 10_000 || bytes > 12_000 {
			t.Errorf("%d bytes %s are counted for an event of 10,000", bytes, what)
		}
	}
}
