package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/embedded"
	"github.com/fleetcast-io/fleetcast/brokers/mqtt"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// mqttPatience bounds a failing test only.
const mqttPatience = 60 * time.Second

var (
	mqttTopic = brokers.Topic{Lane: brokers.ToCluster, Source: "s", Cluster: "c1"}
	mqttWorks = []brokers.Filter{{Lane: brokers.ToCluster, Source: brokers.Any, Cluster: "c1"}}
)

// noGoroutineLeft holds, when everything else of t is cleaned up, that the
// goroutines it started are gone.
func noGoroutineLeft(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

func startMQTT(t *testing.T, o embedded.MQTTOptions) *embedded.MQTT {
	t.Helper()
	m, err := embedded.StartMQTT(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func openMQTT(t *testing.T, m *embedded.MQTT, role brokers.Role, name, query string) brokers.Transport {
	t.Helper()
	u := m.URL()
	u.RawQuery = query
	tr, err := mqtt.Open(t.Context(), u, brokers.Config{Role: role, Name: name, ClientID: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeMQTT(t, tr) })
	return tr
}

func closeMQTT(t *testing.T, tr brokers.Transport) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), mqttPatience)
	defer cancel()
	if err := tr.Close(ctx); err != nil && !errors.Is(err, brokers.ErrClosed) {
		t.Errorf("close: %v", err)
	}
}

func mqttEvent(id string, size int) event.Event {
	e := event.New("io.example.test", "test", time.Now(), 0)
	e.Set(event.ID, id)
	e.Data = bytes.Repeat([]byte("x"), size)
	return e
}

func publishMQTT(t *testing.T, tr brokers.Transport, to brokers.Topic, e event.Event) {
	t.Helper()
	if err := tryPublishMQTT(tr, to, e); err != nil {
		t.Fatal(err)
	}
}

func tryPublishMQTT(tr brokers.Transport, to brokers.Topic, e event.Event) error {
	ctx, cancel := context.WithTimeout(context.Background(), mqttPatience)
	defer cancel()
	for {
		err := tr.Publish(ctx, to, e)
		if !errors.Is(err, brokers.ErrUnavailable) {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// listenMQTT subscribes until n events came, and returns their IDs. Those for
// which settle is false stay unsettled.
func listenMQTT(t *testing.T, tr brokers.Transport, n int, settle func(id string) bool) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), mqttPatience)
	defer cancel()
	if n == 0 {
		n = -1 // Until it is established.
	}
	var ids []string
	err := tr.Subscribe(ctx, brokers.Subscription{
		Filters: mqttWorks,
		Ready: func(brokers.Session) {
			if n < 0 {
				cancel()
			}
		},
		Handle: func(_ context.Context, d brokers.Delivery) {
			id := d.Event.Get(event.ID)
			ids = append(ids, id)
			if settle == nil || settle(id) {
				d.Done(nil)
			}
			if len(ids) == n {
				cancel()
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(ids) < n {
		t.Fatalf("%d of %d events came within %s: %v", len(ids), n, mqttPatience, ids)
	}
	return ids
}

// queuedMQTT waits until all that hub published before is queued: mochi confirms
// an event before it queues it, and takes the next one afterwards.
func queuedMQTT(t *testing.T, hub brokers.Transport) {
	t.Helper()
	publishMQTT(t, hub, brokers.Topic{Lane: brokers.ToCluster, Source: "s", Cluster: "nobody"}, mqttEvent("queued", 10))
}

func idsMQTT(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprint(i)
	}
	return ids
}

// What is queued for a client that is away is there after a restart, in order;
// what was acknowledged is not.
func TestMQTTRestart(t *testing.T) {
	noGoroutineLeft(t)
	const n = 300
	o := embedded.MQTTOptions{DataDir: t.TempDir()}
	m := startMQTT(t, o)
	agent := openMQTT(t, m, brokers.RoleAgent, "c1", "")
	hub := openMQTT(t, m, brokers.RoleSource, "s", "")
	listenMQTT(t, agent, 0, nil)
	for _, id := range idsMQTT(10) {
		publishMQTT(t, hub, mqttTopic, mqttEvent("seen "+id, 10))
	}
	listenMQTT(t, agent, 10, nil)
	closeMQTT(t, agent)
	for life := range 2 {
		for _, id := range idsMQTT(n)[life*n/2 : (life+1)*n/2] {
			publishMQTT(t, hub, mqttTopic, mqttEvent(id, 1000))
		}
		closeMQTT(t, hub)
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		m = startMQTT(t, o)
		hub = openMQTT(t, m, brokers.RoleSource, "s", "")
	}
	got := listenMQTT(t, openMQTT(t, m, brokers.RoleAgent, "c1", ""), n, nil)
	if diff := cmp.Diff(idsMQTT(n), got); diff != "" {
		t.Errorf("events after two restarts (-sent +came):\n%s", diff)
	}
}

// Subscriptions survive a restart, but not those that were refused.
func TestMQTTRestartKeepsSubscriptions(t *testing.T) {
	o := embedded.MQTTOptions{DataDir: t.TempDir()}
	denied := o
	denied.Authorize = func(_ embedded.MQTTClient, _ string, write bool) bool { return write }
	m := startMQTT(t, denied)
	client := dialMQTT(t, m.URL(), 3600)
	if code := subscribeRaw(t, client, "sources/+/clusters/c1/sourceevents"); code != 0x87 {
		t.Fatalf("subscription answered with %#x, want not authorized", code)
	}
	_ = client.Close()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}

	m = startMQTT(t, o)
	hub := openMQTT(t, m, brokers.RoleSource, "s", "")
	publishMQTT(t, hub, mqttTopic, mqttEvent("forbidden", 10))
	client = dialMQTT(t, m.URL(), 3600)
	if code := subscribeRaw(t, client, "sources/+/clusters/c1/sourceevents"); code != 1 {
		t.Fatalf("subscription answered with %#x, want QoS 1", code)
	}
	_ = client.Close()
	closeMQTT(t, hub)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}

	m = startMQTT(t, o)
	hub = openMQTT(t, m, brokers.RoleSource, "s", "")
	publishMQTT(t, hub, mqttTopic, mqttEvent("allowed", 10))
	client = dialMQTT(t, m.URL(), 3600)
	p, err := packets.ReadPacket(client)
	if err != nil {
		t.Fatal(err)
	}
	publish, ok := p.Content.(*packets.Publish)
	if !ok || !slices.Contains(publish.Properties.User, packets.User{Key: "ce-id", Value: "allowed"}) {
		t.Errorf("the session has %v, want the event that came after the subscription was allowed", p)
	}
}

// dialMQTT connects as the client "raw" without clean start.
func dialMQTT(t *testing.T, u *url.URL, expiry uint32) net.Conn {
	t.Helper()
	return dialMQTTWith(t, u, expiry, nil)
}

func dialMQTTWith(t *testing.T, u *url.URL, expiry uint32, receiveMaximum *uint16) net.Conn {
	t.Helper()
	c, err := tryDialMQTT(u, func(connect *packets.Connect) {
		connect.ClientID, connect.Properties.SessionExpiryInterval = "raw", &expiry
		connect.Properties.ReceiveMaximum = receiveMaximum
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// dialMQTTAs connects without clean start.
func dialMQTTAs(t *testing.T, u *url.URL, id string, expiry uint32) net.Conn {
	t.Helper()
	c, err := tryDialMQTT(u, func(connect *packets.Connect) {
		connect.ClientID, connect.Properties.SessionExpiryInterval = id, &expiry
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func tryDialMQTT(u *url.URL, configure func(*packets.Connect)) (net.Conn, error) {
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(mqttPatience))
	connect := packets.NewControlPacket(packets.CONNECT)
	content := connect.Content.(*packets.Connect)
	content.KeepAlive = 60
	configure(content)
	if _, err := connect.WriteTo(c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	p, err := packets.ReadPacket(c)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if connack, ok := p.Content.(*packets.Connack); !ok || connack.ReasonCode != 0 {
		return nil, errors.Join(fmt.Errorf("the broker answered %v to CONNECT", p), c.Close())
	}
	return c, nil
}

func mqttID(p *packets.Publish) string {
	i := slices.IndexFunc(p.Properties.User, func(u packets.User) bool { return u.Key == "ce-id" })
	if i < 0 {
		return ""
	}
	return p.Properties.User[i].Value
}

func acknowledgeRaw(t *testing.T, c net.Conn, number uint16) {
	t.Helper()
	p := packets.NewControlPacket(packets.PUBACK)
	p.Content.(*packets.Puback).PacketID = number
	if _, err := p.WriteTo(c); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Logf("acknowledge: %v", err)
	}
}

func subscribeRaw(t *testing.T, c net.Conn, filter string) byte {
	t.Helper()
	subscribe := packets.NewControlPacket(packets.SUBSCRIBE)
	content := subscribe.Content.(*packets.Subscribe)
	content.PacketID, content.Subscriptions = 1, []packets.SubOptions{{Topic: filter, QoS: 1}}
	if _, err := subscribe.WriteTo(c); err != nil {
		t.Fatal(err)
	}
	p, err := packets.ReadPacket(c)
	if err != nil {
		t.Fatal(err)
	}
	suback, ok := p.Content.(*packets.Suback)
	if !ok {
		t.Fatalf("the broker answered %v to SUBSCRIBE", p)
	}
	return suback.Reasons[0]
}

// More than the Receive Maximum is queued, and all of it comes, as it is
// acknowledged; what was not comes again.
func TestMQTTBeyondReceiveMaximum(t *testing.T) {
	const n = 500
	m := startMQTT(t, embedded.MQTTOptions{})
	hub := openMQTT(t, m, brokers.RoleSource, "s", "")
	agent := openMQTT(t, m, brokers.RoleAgent, "c1", "receive-maximum=5")
	listenMQTT(t, agent, 0, nil)
	for _, id := range idsMQTT(n) {
		publishMQTT(t, hub, mqttTopic, mqttEvent(id, 10))
	}
	queuedMQTT(t, hub)
	got := listenMQTT(t, agent, 5, func(string) bool { return false })
	if diff := cmp.Diff(idsMQTT(n)[:5], got); diff != "" {
		t.Errorf("events (-sent +came):\n%s", diff)
	}
	closeMQTT(t, agent)
	got = listenMQTT(t, openMQTT(t, m, brokers.RoleAgent, "c1", "receive-maximum=5"), n, nil)
	if diff := cmp.Diff(idsMQTT(n), got); diff != "" {
		t.Errorf("all events on the next connection (-sent +came):\n%s", diff)
	}
}

// A client never has more unacknowledged events than it asked for, whether they
// were queued before it came or not, and gets the next for each that it
// acknowledges, in order. What is no event is not held back.
func TestMQTTHonoursReceiveMaximum(t *testing.T) {
	const n, most = 40, 3
	m := startMQTT(t, embedded.MQTTOptions{})
	hub := openMQTT(t, m, brokers.RoleSource, "s", "")
	client := dialMQTT(t, m.URL(), 3600)
	subscribeRaw(t, client, "sources/+/clusters/c1/sourceevents")
	_ = client.Close()
	for _, id := range idsMQTT(n)[:n/2] {
		publishMQTT(t, hub, mqttTopic, mqttEvent(id, 10))
	}
	queuedMQTT(t, hub)
	receiveMaximum := uint16(most)
	client = dialMQTTWith(t, m.URL(), 3600, &receiveMaximum)

	var came []string
	var unacknowledged []uint16
	for len(came) < n {
		for len(unacknowledged) < min(most, n-len(came)+len(unacknowledged)) {
			p := readPublish(t, client)
			came = append(came, mqttID(p))
			unacknowledged = append(unacknowledged, p.PacketID)
		}
		// The answer would come after an event too many, if there were one.
		if _, err := packets.NewControlPacket(packets.PINGREQ).WriteTo(client); err != nil {
			t.Fatal(err)
		}
		if p, err := packets.ReadPacket(client); err != nil || p.Type != packets.PINGRESP {
			t.Fatalf("%v, %v came with %d of %d events unacknowledged, want the answer to a ping", p, err, len(unacknowledged), most)
		}
		if len(came) == most { // The session is resumed, as the client was answered.
			for _, id := range idsMQTT(n)[n/2:] {
				publishMQTT(t, hub, mqttTopic, mqttEvent(id, 10))
			}
		}
		acknowledge := packets.NewControlPacket(packets.PUBACK)
		acknowledge.Content.(*packets.Puback).PacketID = unacknowledged[0]
		if _, err := acknowledge.WriteTo(client); err != nil {
			t.Fatal(err)
		}
		unacknowledged = unacknowledged[1:]
	}
	if diff := cmp.Diff(idsMQTT(n), came); diff != "" {
		t.Errorf("events (-sent +came):\n%s", diff)
	}
}

func readPublish(t *testing.T, c net.Conn) *packets.Publish {
	t.Helper()
	p, err := packets.ReadPacket(c)
	if err != nil {
		t.Fatal(err)
	}
	publish, ok := p.Content.(*packets.Publish)
	if !ok {
		t.Fatalf("the broker sent %v, want an event", p)
	}
	return publish
}

// Both sides count their packets from one, and neither disturbs the other.
func TestMQTTNumbersOfBothSides(t *testing.T) {
	const n = 20
	m := startMQTT(t, embedded.MQTTOptions{})
	hub := openMQTT(t, m, brokers.RoleSource, "s", "")
	agent := openMQTT(t, m, brokers.RoleAgent, "c1", "")
	listenMQTT(t, agent, 0, nil)
	for _, id := range idsMQTT(n) {
		publishMQTT(t, hub, mqttTopic, mqttEvent(id, 10))
	}
	listenMQTT(t, agent, n, func(string) bool { return false })
	for range 2 * n {
		publishMQTT(t, agent, brokers.Topic{Lane: brokers.ToSource, Source: "s", Cluster: "c1"}, mqttEvent("report", 10))
	}
	closeMQTT(t, agent)
	got := listenMQTT(t, openMQTT(t, m, brokers.RoleAgent, "c1", ""), n, nil)
	if diff := cmp.Diff(idsMQTT(n), got); diff != "" {
		t.Errorf("events unacknowledged while the client published (-sent +came):\n%s", diff)
	}
}

// An event that a client does not take does not keep it out.
func TestMQTTLargerThanClientTakes(t *testing.T) {
	m := startMQTT(t, embedded.MQTTOptions{})
	hub := openMQTT(t, m, brokers.RoleSource, "s", "")
	agent := openMQTT(t, m, brokers.RoleAgent, "c1", "max-packet=4096")
	listenMQTT(t, agent, 0, nil)
	closeMQTT(t, agent)
	publishMQTT(t, hub, mqttTopic, mqttEvent("large", 5000))
	publishMQTT(t, hub, mqttTopic, mqttEvent("small", 10))
	got := listenMQTT(t, openMQTT(t, m, brokers.RoleAgent, "c1", "max-packet=4096"), 1, nil)
	if diff := cmp.Diff([]string{"small"}, got); diff != "" {
		t.Errorf("events (-want +came):\n%s", diff)
	}
}

// Clients that say nothing, or something else, harm nobody.
func TestMQTTHostileClients(t *testing.T) {
	noGoroutineLeft(t)
	m := startMQTT(t, embedded.MQTTOptions{MaxPacket: 10_000})
	for _, says := range []string{"", "GET / HTTP/1.1\r\n\r\n", "\x10\xff\xff\xff\x7f", "\x30\x02\x00\x00", "\x10\x03\x00\x04M"} {
		c, err := net.Dial("tcp", m.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte(says)); err != nil {
			t.Fatal(err)
		}
	}
	publishMQTT(t, openMQTT(t, m, brokers.RoleSource, "s", ""), mqttTopic, mqttEvent("1", 10))
	// Close does not wait for them.
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestMQTTLogIsDiscreet(t *testing.T) {
	var mu sync.Mutex
	var text strings.Builder
	log := slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return text.Write(p)
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	m := startMQTT(t, embedded.MQTTOptions{Log: log})
	client := dialMQTT(t, m.URL(), 0)
	// A second CONNECT is a protocol error, which mochi logs with the packet.
	connect := packets.NewControlPacket(packets.CONNECT)
	content := connect.Content.(*packets.Connect)
	content.ClientID, content.UsernameFlag, content.Username, content.PasswordFlag, content.Password = "raw", true, "u", true, []byte("hunter2")
	if _, err := connect.WriteTo(client); err != nil {
		t.Fatal(err)
	}
	if p, err := packets.ReadPacket(client); err != nil || p.Type != packets.DISCONNECT {
		t.Fatalf("the broker answered %v, %v to a second CONNECT", p, err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(text.String(), "error processing packet") {
		t.Errorf("the error is not in the log:\n%s", text.String())
	}
	for _, secret := range []string{"hunter2", "104 117 110 116"} { // As text and as bytes.
		if strings.Contains(text.String(), secret) {
			t.Errorf("the password is in the log:\n%s", text.String())
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestStartMQTTErrors(t *testing.T) {
	m := startMQTT(t, embedded.MQTTOptions{})
	for _, test := range []struct {
		options embedded.MQTTOptions
		want    string
	}{
		{embedded.MQTTOptions{Listen: m.Addr().String()}, "listen on " + m.Addr().String()},
		{embedded.MQTTOptions{Listen: m.Addr().String(), DataDir: t.TempDir()}, "address already in use"},
		{embedded.MQTTOptions{MaxPacket: -1}, "maximum packet size"},
		{embedded.MQTTOptions{DataDir: "/dev/null/x"}, "data folder"},
	} {
		other, err := embedded.StartMQTT(test.options)
		if err == nil {
			_ = other.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("StartMQTT(%+v) returned %v, want an error with %q", test.options, err, test.want)
		}
	}
}
