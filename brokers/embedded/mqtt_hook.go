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
//     one in any order: see renumber.
//   - It hands a session over piece by piece, while events are put into it and
//     while what ends the connection before takes subscriptions, or all events,
//     from the next: see mqttSessions. It also sends new events before the CONNACK
//     packet: see mqttFlow.
//   - Its wills are nobody's to refuse, and not quite what was left: see mqttWill.
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

	sessions mqttSessions
	wills    mqttWills
	// sequence counts events in the order in which they came.
	sequence atomic.Int64
	// aside holds, by *mqtt.Client, the event put aside for the packet that is
	// being processed.
	aside sync.Map
	slow  atomic.Uint64
}

func (h *mqttHook) ID() string { return "fleetcast" }

func (h *mqttHook) Provides(b byte) bool {
	switch b {
	case mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnPacketRead, mqtt.OnPacketEncode, mqtt.OnPacketProcessed,
		mqtt.OnPacketSent, mqtt.OnPublish, mqtt.OnPublished, mqtt.OnPublishDropped, mqtt.OnQosPublish, mqtt.OnQosDropped,
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
			if f.client != nil {
				break // A second one, which mochi does not take.
			}
			var err error
			if f.will, err = takeWill(&pk); err != nil {
				return pk, err
			}
		}
		pk.Properties.ReceiveMaximum = 0
	case packets.Disconnect:
		if f := flow(cl); f != nil && pk.ReasonCode == packets.CodeDisconnect.Code {
			f.will = nil
		}
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

func (h *mqttHook) OnPacketProcessed(cl *mqtt.Client, _ packets.Packet, _ error) {
	if f := flow(cl); f != nil {
		h.routed(f)
	}
	h.putBack(cl)
}

func (h *mqttHook) putBack(cl *mqtt.Client) {
	out, _ := h.aside.LoadAndDelete(cl)
	if pk, ok := out.(packets.Packet); ok {
		cl.State.Inflight.Set(pk)
	}
}

func (h *mqttHook) OnPacketEncode(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	if pk.FixedHeader.Type == packets.Connack {
		pk.Properties.MaximumPacketSize = h.server.Options.Capabilities.MaximumPacketSize
		if f := flow(cl); f != nil && pk.ReasonCode == packets.CodeSuccess.Code {
			h.admit(f)
		}
	}
	return pk
}

func (h *mqttHook) OnPacketSent(cl *mqtt.Client, pk packets.Packet, _ []byte) {
	if pk.FixedHeader.Type != packets.Puback && pk.FixedHeader.Type != packets.Pubrec {
		return
	}
	if f := flow(cl); f != nil && f.publishing && pk.ReasonCode < packets.ErrUnspecifiedError.Code {
		h.routes(f)
	}
}

// OnPublish gives the event its place in the order. Mochi sorts by Created, and
// uses it for nothing else as long as there is no MaximumMessageExpiryInterval.
func (h *mqttHook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	pk.Created = h.sequence.Add(1) + maxQueued
	if f := flow(cl); f != nil {
		f.publishing = true
		if pk.FixedHeader.Qos == 0 {
			h.routes(f)
		}
	}
	return pk, nil
}

func (h *mqttHook) OnPublished(cl *mqtt.Client, _ packets.Packet) {
	if f := flow(cl); f != nil {
		h.routed(f)
	}
}

func (h *mqttHook) OnDisconnect(cl *mqtt.Client, _ error, expire bool) {
	h.putBack(cl)
	if !expire || cl.IsTakenOver() {
		return
	}
	if h.store != nil {
		h.store.deleteClient(cl.ID)
	}
}

// OnClientExpired also removes what mochi leaves: it deletes the client itself.
func (h *mqttHook) OnClientExpired(cl *mqtt.Client) {
	h.server.UnsubscribeClient(cl)
	cl.ClearInflights()
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
	if h.store != nil {
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
	if n := h.slow.Add(1); bits.OnesCount64(n) == 1 { // At powers of two.
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
	// What is dropped for a connection that was taken over is with the next.
	if h.store != nil && !cl.IsTakenOver() {
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
