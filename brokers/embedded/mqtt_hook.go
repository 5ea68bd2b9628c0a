package embedded

import (
	"bytes"
	"log/slog"
	"math/bits"
	"sync"
	"sync/atomic"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/storage"
	"github.com/mochi-mqtt/server/v2/packets"
)

// mqttHook decides who may do what, keeps sessions on disk, and makes up for
// what mochi 2.7.9 gets wrong about delivery:
//
//   - Beyond a client's Receive Maximum, it sends events that it forgets before
//     they are acknowledged, and stops for good after as many. Here it does not
//     learn the Receive Maximum, and an mqttFlow holds events back instead.
//   - It keeps a client's packets of both directions under one set of numbers,
//     though each side counts for itself. A packet from the client makes it
//     forget the unacknowledged event that went to the client under the same
//     number, or is refused. Here that event is put aside meanwhile.
//   - It sends again what is unacknowledged in the order of seconds, and within
//     one in any order, and forgets what is queued for a client in the moment
//     in which it resumes its session: see resumptions.
//   - An event that is larger than a client takes stays in that client's queue,
//     and keeps it from connecting ever again. Here it is dropped.
//   - It does not announce its packet size.
type mqttHook struct {
	mqtt.HookBase

	server  *mqtt.Server
	options MQTTOptions
	log     *slog.Logger
	store   *mqttStore // Nil without DataDir.
	stopErr error

	resumptions resumptions
	// sequence counts events in the order in which they came.
	sequence atomic.Int64
	// aside holds, by *mqtt.Client, the event put aside for the packet that is
	// being processed.
	aside sync.Map
	lost  atomic.Uint64
}

func (h *mqttHook) ID() string { return "fleetcast" }

func (h *mqttHook) Provides(b byte) bool {
	switch b {
	case mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnPacketRead, mqtt.OnPacketEncode, mqtt.OnPacketProcessed,
		mqtt.OnPublish, mqtt.OnPublishDropped, mqtt.OnQosPublish, mqtt.OnQosDropped,
		mqtt.OnSessionEstablish, mqtt.OnSessionEstablished, mqtt.OnDisconnect, mqtt.OnClientExpired:
		return true
	case mqtt.OnQosComplete, mqtt.OnSubscribed, mqtt.OnUnsubscribed, mqtt.OnRetainMessage, mqtt.OnRetainedExpired,
		mqtt.StoredClients, mqtt.StoredSubscriptions, mqtt.StoredInflightMessages, mqtt.StoredRetainedMessages:
		return h.store != nil
	}
	return false
}

func (h *mqttHook) Stop() error {
	if h.store != nil {
		h.stopErr = h.store.close()
	}
	return h.stopErr
}

// commonName is the user property of a client's CONNECT packet in which the
// common name of its certificate is kept, on disk too: what is queued for a
// client that is away is authorised as well.
const commonName = "certificate-common-name"

func (h *mqttHook) OnConnectAuthenticate(cl *mqtt.Client, pk packets.Packet) bool {
	// What the client says in its place does not count.
	cl.Properties.Props.User = nil
	if conn := flow(cl).tls(); conn != nil {
		if chains := conn.ConnectionState().VerifiedChains; len(chains) > 0 {
			cl.Properties.Props.User = []packets.UserProperty{{Key: commonName, Val: chains[0][0].Subject.CommonName}}
		}
	}
	if h.options.Authenticate == nil || h.options.Authenticate(mqttClient(cl), pk.Connect.Password) {
		return true
	}
	h.log.Warn("client not let in", "client", cl.ID, "remote", cl.Net.Remote)
	return false
}

func (h *mqttHook) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	return h.options.Authorize == nil || h.options.Authorize(mqttClient(cl), topic, write)
}

func mqttClient(cl *mqtt.Client) MQTTClient {
	c := MQTTClient{ID: cl.ID, Username: string(cl.Properties.Username)}
	if user := cl.Properties.Props.User; len(user) == 1 && user[0].Key == commonName {
		c.CommonName = user[0].Val
	}
	return c
}

func (h *mqttHook) OnPacketRead(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	switch pk.FixedHeader.Type {
	case packets.Connect:
		if f := flow(cl); f != nil {
			f.limit(pk.Properties.ReceiveMaximum)
		}
		pk.Properties.ReceiveMaximum = 0
	case packets.Puback, packets.Pubcomp:
		if f := flow(cl); f != nil {
			f.acknowledged(pk.PacketID)
		}
	case packets.Pubrec:
		if f := flow(cl); f != nil && pk.ReasonCode >= packets.ErrUnspecifiedError.Code {
			f.acknowledged(pk.PacketID)
		}
	case packets.Publish, packets.Subscribe, packets.Unsubscribe:
		if pk.PacketID == 0 {
			break
		}
		if out, ok := cl.State.Inflight.Get(pk.PacketID); ok && out.FixedHeader.Type == packets.Publish {
			h.aside.Store(cl, out)
			cl.State.Inflight.Delete(pk.PacketID)
		}
	}
	return pk, nil
}

func (h *mqttHook) OnPacketProcessed(cl *mqtt.Client, _ packets.Packet, _ error) { h.putBack(cl) }

func (h *mqttHook) putBack(cl *mqtt.Client) {
	out, _ := h.aside.LoadAndDelete(cl)
	if pk, ok := out.(packets.Packet); ok {
		cl.State.Inflight.Set(pk)
	}
}

func (h *mqttHook) OnPacketEncode(_ *mqtt.Client, pk packets.Packet) packets.Packet {
	if pk.FixedHeader.Type == packets.Connack {
		pk.Properties.MaximumPacketSize = h.server.Options.Capabilities.MaximumPacketSize
	}
	return pk
}

// OnPublish gives the event its place in the order. Mochi sorts by Created, and
// uses it for nothing else as long as there is no MaximumMessageExpiryInterval.
func (h *mqttHook) OnPublish(_ *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	pk.Created = h.sequence.Add(1) + maxQueued
	return pk, nil
}

// OnSessionEstablish is called before a client resumes its session, if any.
func (h *mqttHook) OnSessionEstablish(cl *mqtt.Client, pk packets.Packet) {
	if existing, ok := h.server.Clients.Get(cl.ID); ok && !pk.Connect.Clean {
		h.resumptions.begin(existing, cl)
	}
}

// OnSessionEstablished is called when a client has been sent its queue.
func (h *mqttHook) OnSessionEstablished(cl *mqtt.Client, _ packets.Packet) {
	for _, pk := range h.resumptions.end(cl) {
		h.send(cl, pk)
	}
	if h.store != nil {
		h.store.putClient(cl)
	}
}

// forward saves an event from a connection that was taken over.
func (h *mqttHook) forward(old *mqtt.Client, pk packets.Packet) {
	if pk.FixedHeader.Type != packets.Publish {
		return
	}
	if now, pk, ok := h.resumptions.forward(old, pk); ok {
		h.send(now, pk)
	}
}

func (h *mqttHook) send(cl *mqtt.Client, pk packets.Packet) {
	if h.store != nil {
		h.store.putQueued(cl.ID, pk, pk.Created)
	}
	// If it fails, the event is in the queue for the next connection.
	_ = cl.WritePacket(pk)
}

func (h *mqttHook) OnDisconnect(cl *mqtt.Client, _ error, expire bool) {
	h.putBack(cl)
	if !expire || cl.IsTakenOver() {
		return
	}
	h.resumptions.forget(cl.ID)
	if h.store != nil {
		h.store.deleteClient(cl.ID)
	}
}

// OnClientExpired also removes what mochi leaves: it deletes the client itself.
func (h *mqttHook) OnClientExpired(cl *mqtt.Client) {
	h.server.UnsubscribeClient(cl)
	cl.ClearInflights()
	h.resumptions.forget(cl.ID)
	if h.store != nil {
		h.store.deleteClient(cl.ID)
	}
}

// OnQosPublish is called when an event is queued for a client, and with the
// broker's own confirmations.
func (h *mqttHook) OnQosPublish(cl *mqtt.Client, pk packets.Packet, sent int64, _ int) {
	if pk.FixedHeader.Type != packets.Publish {
		return
	}
	if most := cl.Properties.Props.MaximumPacketSize; most > 0 && publishSize(pk) > int(most) {
		cl.State.Inflight.Delete(pk.PacketID)
		h.log.Warn("event dropped, it is larger than the client takes", "client", cl.ID, "topic", pk.TopicName, "most", most)
		return
	}
	if cl.IsTakenOver() {
		h.forward(cl, pk)
	} else if h.store != nil {
		h.store.putQueued(cl.ID, pk, sent)
	}
}

// publishSize is the exact size of a PUBLISH packet.
func publishSize(pk packets.Packet) int {
	var b bytes.Buffer
	pk.ProtocolVersion = 5
	if err := pk.PublishEncode(&b); err != nil {
		return len(pk.Payload)
	}
	return b.Len()
}

// OnPublishDropped is called when a client has not read for so long that
// mochi's queue towards it is full.
func (h *mqttHook) OnPublishDropped(cl *mqtt.Client, pk packets.Packet) {
	if n := h.lost.Add(1); bits.OnesCount64(n) == 1 { // At powers of two.
		h.log.Warn("event dropped, the client reads too slowly", "client", cl.ID, "topic", pk.TopicName, "dropped", n)
	}
}

func (h *mqttHook) OnQosComplete(cl *mqtt.Client, pk packets.Packet) {
	// The broker's own confirmations have a time, those of clients have not.
	if pk.Created == 0 {
		h.store.deleteQueued(cl.ID, pk.PacketID)
	}
}

func (h *mqttHook) OnQosDropped(cl *mqtt.Client, pk packets.Packet) {
	if cl.IsTakenOver() {
		h.forward(cl, pk)
	} else if h.store != nil {
		h.store.deleteQueued(cl.ID, pk.PacketID)
	}
}

func (h *mqttHook) OnSubscribed(cl *mqtt.Client, pk packets.Packet, reasonCodes []byte) {
	for i, sub := range pk.Filters {
		if i < len(reasonCodes) && reasonCodes[i] < packets.ErrUnspecifiedError.Code {
			h.store.putSubscription(cl.ID, sub, reasonCodes[i])
		}
	}
}

func (h *mqttHook) OnUnsubscribed(cl *mqtt.Client, pk packets.Packet) {
	for _, sub := range pk.Filters {
		h.store.deleteSubscription(cl.ID, sub.Filter)
	}
}

func (h *mqttHook) OnRetainMessage(_ *mqtt.Client, pk packets.Packet, r int64) {
	if r == -1 {
		h.store.deleteRetained(pk.TopicName)
		return
	}
	h.store.putRetained(pk)
}

func (h *mqttHook) OnRetainedExpired(topic string) { h.store.deleteRetained(topic) }

func (h *mqttHook) StoredClients() ([]storage.Client, error) {
	return stored[storage.Client](h.store, clients)
}

func (h *mqttHook) StoredSubscriptions() ([]storage.Subscription, error) {
	return stored[storage.Subscription](h.store, subscriptions)
}

func (h *mqttHook) StoredInflightMessages() ([]storage.Message, error) {
	messages, err := stored[storage.Message](h.store, queued)
	// Events of this life come after those of the last.
	for _, m := range messages {
		h.sequence.Store(max(h.sequence.Load(), m.Created))
	}
	return messages, err
}

func (h *mqttHook) StoredRetainedMessages() ([]storage.Message, error) {
	return stored[storage.Message](h.store, retained)
}
