package embedded

import (
	"crypto/tls"
	"encoding/binary"
	"net"
	"slices"
	"sync"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// An mqttFlow is a client's connection that holds back, in order, the events
// beyond the client's Receive Maximum until it has acknowledged others (MQTT 5,
// section 4.9). What is held back is also in the client's session, which bounds
// it; when the connection ends, that is where it is sent from again.
type mqttFlow struct {
	net.Conn

	mu sync.Mutex
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

// Write is given whole packets by mochi, one or several at once.
func (f *mqttFlow) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.most == 0 {
		return f.Conn.Write(p)
	}
	send, all := p, true
	for done := 0; done < len(p); {
		size, number := measure(p[done:])
		packet := p[done : done+size]
		switch {
		case number != 0 && (len(f.held) > 0 || !f.takeLocked(number)):
			f.held = append(f.held, heldEvent{number, slices.Clone(packet)})
			if all {
				send, all = slices.Clone(p[:done]), false
			}
		case !all:
			send = append(send, packet...)
		}
		done += size
	}
	if len(send) > 0 {
		if _, err := f.Conn.Write(send); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// takeLocked says whether the event of this number may be sent, and counts it.
func (f *mqttFlow) takeLocked(number uint16) bool {
	if len(f.sent) >= f.most || f.sent[number] {
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
	if len(send) > 0 {
		// A failed write is the end of the connection, which its reader finds
		// out.
		_, _ = f.Conn.Write(send)
	}
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
