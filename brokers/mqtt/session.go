package mqtt

import (
	"context"
	"io"
	"sync/atomic"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho/log"
	"github.com/eclipse/paho.golang/paho/session"
)

// A keeper is the client's half of the MQTT session, for paho. It starts afresh
// with every connection, unlike paho's own, for one reason: an event that makes
// the broker hang up (one that is not allowed there, or over a limit that was
// lowered meanwhile) would be sent again as the first thing on each connection,
// and nothing else would ever get through. MQTT wants unconfirmed events sent
// again (section 4.4); here whoever published them was told that the outcome is
// unknown, and does it. For QoS 1, which is all we use, a broker cannot tell
// the difference.
//
// Acknowledgements of events received go their own way, see link.acknowledge:
// paho's would wait for the next tick of a clock, and an event acknowledged
// late could meet another of the same number on the next connection.
type keeper struct {
	// up is told of a new connection before anything is received on it, lost
	// of its end, before those who wait for an answer on it.
	up   func(io.Writer, *packets.Connack) *link
	lost func(*link, error)

	link atomic.Pointer[link]
}

var _ session.SessionManager = (*keeper)(nil)

// outgoing is what the context of a packet to be sent says about it.
type outgoing struct {
	// link is the connection that is meant: a call that comes late shall do
	// nothing to the next one.
	link *link
	// size is that of the packet if it is an event, else 0.
	size int
}

type outgoingKey struct{}

func (o outgoing) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, outgoingKey{}, o)
}

func (k *keeper) ConAckReceived(conn io.Writer, _ *packets.Connect, connack *packets.Connack) error {
	k.link.Store(k.up(conn, connack))
	return nil
}

// ConnectionLost is called several times for one connection.
func (k *keeper) ConnectionLost(d *packets.Disconnect) error {
	l := k.link.Swap(nil)
	if l == nil {
		return nil
	}
	err := errConnectionLost
	if d != nil {
		err = &disconnectError{code: d.ReasonCode, said: reasonString(d.Properties)}
	}
	k.lost(l, err)
	l.end(err)
	return nil
}

// AddToSession gives an outgoing packet its number, and waits for a place in
// the window if it is an event.
func (k *keeper) AddToSession(ctx context.Context, p session.Packet, answer chan<- packets.ControlPacket) error {
	o, _ := ctx.Value(outgoingKey{}).(outgoing)
	if o.link == nil || o.link != k.link.Load() {
		return session.ErrNoConnection
	}
	return o.link.request(ctx, p, o.size, answer)
}

func (k *keeper) PacketReceived(p *packets.ControlPacket, events chan<- *packets.Publish) error {
	l := k.link.Load()
	if l == nil {
		return nil
	}
	switch content := p.Content.(type) {
	case *packets.Publish:
		events <- content
	case *packets.Puback, *packets.Suback, *packets.Unsuback:
		l.answer(p)
	}
	return nil
}

// Ack is called by paho when its callbacks have returned, which is too soon.
func (k *keeper) Ack(*packets.Publish) error { return nil }

func (k *keeper) Close() error { return nil }

func (k *keeper) SetErrorLogger(log.Logger) {}

func (k *keeper) SetDebugLogger(log.Logger) {}

func reasonString(p *packets.Properties) string {
	if p == nil {
		return ""
	}
	return p.ReasonString
}
