package embedded

import (
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// An mqttWill is a client's will message. Mochi's own drops the content type,
// is published without asking whether the client may, takes a delay for more
// than it is, and stands out of the order of events.
type mqttWill struct {
	packet packets.Packet
	delay  time.Duration
}

// takeWill takes the will out of a CONNECT packet.
func takeWill(pk *packets.Packet) (*mqttWill, error) {
	c := &pk.Connect
	if !c.WillFlag || c.WillQos > 2 { // Mochi refuses the latter.
		return nil, nil
	}
	if !mqtt.IsValidFilter(c.WillTopic, true) {
		return nil, packets.ErrRejectPacket // Mochi passes over any other error.
	}
	w := &mqttWill{
		packet: packets.Packet{
			FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: c.WillQos, Retain: c.WillRetain},
			TopicName:   c.WillTopic,
			Payload:     c.WillPayload,
			PacketID:    uint16(c.WillQos),
			Properties:  c.WillProperties,
		},
		delay: time.Duration(c.WillProperties.WillDelayInterval) * time.Second,
	}
	w.packet.Properties.WillDelayInterval = 0
	c.WillFlag, c.WillRetain, c.WillQos, c.WillTopic, c.WillPayload = false, false, 0, "", nil
	return w, nil
}

// mqttWills are those of clients that are gone and may come back in time.
type mqttWills struct {
	mu      sync.Mutex
	waiting map[string]*waitingWill
	closed  bool
}

type waitingWill struct {
	timer   *time.Timer
	publish func()
}

// leave publishes a will after its delay, if its client does not come back.
func (w *mqttWills) leave(id string, delay time.Duration, publish func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	if w.waiting == nil {
		w.waiting = make(map[string]*waitingWill)
	}
	one := &waitingWill{publish: publish}
	one.timer = time.AfterFunc(delay, func() {
		if w.take(id, one) {
			publish()
		}
	})
	w.waiting[id] = one
}

// take says whether a will is still to be published, by whoever asks first.
func (w *mqttWills) take(id string, one *waitingWill) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if one == nil || w.waiting[id] != one {
		return false
	}
	one.timer.Stop()
	delete(w.waiting, id)
	return true
}

// back is called when a client is back. If it discards its session, that ends
// with the will (MQTT 5, section 3.1.3.2.2).
func (w *mqttWills) back(id string, clean bool) {
	w.mu.Lock()
	one := w.waiting[id]
	w.mu.Unlock()
	if w.take(id, one) && clean {
		one.publish()
	}
}

// close forgets all wills: it is the broker that goes, not its clients.
func (w *mqttWills) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, one := range w.waiting {
		one.timer.Stop()
	}
	w.waiting = nil
}

func (w *mqttWills) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// lost leaves the will of a connection that has ended, unless its client took
// it back.
func (h *mqttHook) lost(f *mqttFlow) {
	will, cl := f.will, f.client
	if will == nil || h.wills.isClosed() {
		return
	}
	// A will is due when the session ends, at the latest.
	delay := min(will.delay, time.Duration(cl.Properties.Props.SessionExpiryInterval)*time.Second)
	if delay == 0 {
		h.publishWill(cl, will)
		return
	}
	h.wills.leave(cl.ID, delay, func() { h.publishWill(cl, will) })
}

func (h *mqttHook) publishWill(cl *mqtt.Client, will *mqttWill) {
	if !h.OnACLCheck(cl, will.packet.TopicName, true) {
		h.log.Warn("will not published, its client may not publish there", "client", cl.ID, "topic", will.packet.TopicName)
		return
	}
	sender := h.server.NewClient(nil, cl.Net.Listener, cl.ID, true)
	sender.Properties.ProtocolVersion = 5
	h.sessions.routing.RLock()
	defer h.sessions.routing.RUnlock()
	if err := h.server.InjectPacket(sender, will.packet); err != nil {
		h.log.Warn("will not published", "client", cl.ID, "topic", will.packet.TopicName, "err", err)
	}
}
