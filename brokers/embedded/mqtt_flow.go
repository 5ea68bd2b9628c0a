package embedded

import (
	"crypto/tls"
	"encoding/binary"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// An mqttFlow is a client's connection that holds back, in order, the events
// beyond the client's Receive Maximum until it has acknowledged others (MQTT 5,
// section 4.9). What is held back is also in the client's session, which bounds
// it; when the connection ends, that is where it is sent from again.
//
// Until its client has been sent its queue, it holds back what is new: mochi
// sends that beside the queue, before the CONNACK packet even.
type mqttFlow struct {
	net.Conn
	traffic *traffic

	// admitted is closed when the client has its session, ended when mochi is
	// done with the connection.
	admitted chan struct{}
	admit    sync.Once
	ended    chan struct{}

	// What follows is for the goroutine that serves the connection, and for
	// others once ended is closed; but client is set before admitted is.
	client *mqtt.Client
	will   *mqttWill // Nil for none, or if the client took it back.
	// passing says that the client's session passes to this connection,
	// publishing that an event of the client is processed, and routing that it
	// is put into sessions.
	passing, publishing, routing bool

	mu sync.Mutex
	// established says that the client has been sent its queue, resend which
	// packets that has, and early holds what came beside it.
	established bool
	resend      map[uint16]bool
	early       []heldEvent
	// most is the Receive Maximum, 0 for a client that sets none: packet numbers
	// are its bound then.
	most int
	// sent holds the numbers of events sent and not acknowledged.
	sent map[uint16]bool
	held []heldEvent
}

type heldEvent struct {
	number uint16
	packet []byte
}

// traffic counts the bytes of all connections.
type traffic struct{ in, out atomic.Int64 }

func newFlow(conn net.Conn, t *traffic) *mqttFlow {
	return &mqttFlow{Conn: conn, traffic: t, admitted: make(chan struct{}), ended: make(chan struct{})}
}

// flow returns the connection of cl, nil for a client that has none.
func flow(cl *mqtt.Client) *mqttFlow {
	f, _ := cl.Net.Conn.(*mqttFlow)
	return f
}

// tls is the connection below if that is TLS, else nil.
func (f *mqttFlow) tls() *tls.Conn {
	if f == nil {
		return nil
	}
	conn, _ := f.Conn.(*tls.Conn)
	return conn
}

func (f *mqttFlow) limit(most uint16) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.most = int(most)
	f.sent = make(map[uint16]bool)
}

func (f *mqttFlow) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	f.traffic.in.Add(int64(n))
	return n, err
}

// resends tells which packets the queue has that is sent next.
func (f *mqttFlow) resends(numbers map[uint16]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resend = numbers
}

// establish sends what was held back while the queue was sent.
func (f *mqttFlow) establish() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.established, f.resend = true, nil
	early := f.early
	f.early = nil
	var send []byte
	for _, e := range early {
		if len(f.held) > 0 || !f.takeLocked(e.number) {
			f.held = append(f.held, e)
			continue
		}
		send = append(send, e.packet...)
	}
	// A failed write is the end of the connection, which its reader finds out.
	_ = f.sendLocked(send)
}

// Write is given whole packets by mochi, one or several at once.
func (f *mqttFlow) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.most == 0 && f.established {
		return len(p), f.sendLocked(p)
	}
	send, all := p, true
	for done := 0; done < len(p); {
		size, number := measure(p[done:])
		packet := p[done : done+size]
		switch {
		case f.keepLocked(packet, number):
			if all {
				send, all = slices.Clone(p[:done]), false
			}
		case !all:
			send = append(send, packet...)
		}
		done += size
	}
	return len(p), f.sendLocked(send)
}

// keepLocked says whether a packet must not be sent now, and sees to it that it
// is later, if it must be.
func (f *mqttFlow) keepLocked(packet []byte, number uint16) bool {
	if !f.established && packet[0]>>4 == packets.Publish {
		const duplicate = 1 << 3 // Mochi sets it on what it sends again.
		switch {
		case packet[0]&duplicate == 0 && number != 0:
			f.early = append(f.early, heldEvent{number, slices.Clone(packet)})
			return true
		case !f.resend[number]:
			// It is new and comes for itself, or need not come at all.
			return true
		}
	}
	if number != 0 && (len(f.held) > 0 || !f.takeLocked(number)) {
		f.held = append(f.held, heldEvent{number, slices.Clone(packet)})
		return true
	}
	return false
}

func (f *mqttFlow) sendLocked(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	n, err := f.Conn.Write(p)
	f.traffic.out.Add(int64(n))
	return err
}

// takeLocked says whether the event of this number may be sent, and counts it.
func (f *mqttFlow) takeLocked(number uint16) bool {
	switch {
	case f.most == 0:
		return true
	case len(f.sent) >= f.most || f.sent[number]:
		return false
	}
	f.sent[number] = true
	return true
}

// acknowledged is told of what the client said of the event of this number, and
// sends what that makes room for.
func (f *mqttFlow) acknowledged(number uint16) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sent, number)
	var send []byte
	n := 0
	for n < len(f.held) && f.takeLocked(f.held[n].number) {
		send = append(send, f.held[n].packet...)
		n++
	}
	clear(f.held[:n])
	f.held = f.held[n:]
	// A failed write is the end of the connection, which its reader finds out.
	_ = f.sendLocked(send)
}

// measure returns the size of the first packet of p, and its number if it is an
// event that will be acknowledged, else 0. What it cannot read is one packet.
func measure(p []byte) (size int, number uint16) {
	remaining, header := 0, 1
	for shift := 0; ; shift += 7 {
		if header == len(p) || shift > 21 {
			return len(p), 0
		}
		b := p[header]
		header++
		remaining |= int(b&0x7f) << shift
		if b < 0x80 {
			break
		}
	}
	size = header + remaining
	if size > len(p) {
		return len(p), 0
	}
	qos := p[0] >> 1 & 3
	if p[0]>>4 != packets.Publish || qos == 0 || remaining < 2 {
		return size, 0
	}
	at := header + 2 + int(binary.BigEndian.Uint16(p[header:]))
	if at+2 > size {
		return size, 0
	}
	return size, binary.BigEndian.Uint16(p[at:])
}
