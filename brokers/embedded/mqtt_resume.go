package embedded

import (
	"slices"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// resumptions keep the order of a session's queue, and what is queued for it in
// the moment in which it passes from one connection to the next: mochi copies
// the queue, empties the old one and then names the new owner, and what others
// queue meanwhile goes to the old one and is forgotten.
type resumptions struct {
	mu sync.Mutex
	// last holds the last one of each client ID.
	last map[string]*resumption
}

type resumption struct {
	old, now *mqtt.Client
	// copied is when the events in the copy were created, by number.
	copied map[uint16]int64
	// established says that now has sent again what it had.
	established bool
	// late came for old when it had been copied, or perhaps just before.
	late []packets.Packet
}

// begin is called before mochi copies the queue of old for now.
func (r *resumptions) begin(old, now *mqtt.Client) {
	// Mochi tells the old connection that it is taken over, which can take as
	// long as that one does not read.
	if old.Net.Conn != nil {
		_ = old.Net.Conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// What came late for a connection that never came to be established.
	if before := r.last[now.ID]; before != nil && before.now == old {
		for _, pk := range before.late {
			before.enqueue(pk)
		}
	}
	next := &resumption{old: old, now: now, copied: make(map[uint16]int64)}
	// Mochi sorts by the last 16 bits of Created, so the events are numbered
	// afresh; they stay before all that come later, see mqttHook.OnPublish.
	queue := old.State.Inflight.GetAll(false)
	slices.SortStableFunc(queue, func(a, b packets.Packet) int { return int(a.Created - b.Created) })
	for i, pk := range queue {
		next.copied[pk.PacketID] = pk.Created
		pk.Created = int64(i + 1)
		if _, ok := old.State.Inflight.Get(pk.PacketID); ok {
			old.State.Inflight.Set(pk)
		}
	}
	if r.last == nil {
		r.last = make(map[string]*resumption)
	}
	r.last[now.ID] = next
}

// forward is called with an event that mochi queued for, or removed from, a
// connection that was taken over. It returns the event as it is to be sent to
// the new connection, if it is to be sent now.
func (r *resumptions) forward(old *mqtt.Client, pk packets.Packet) (*mqtt.Client, packets.Packet, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.last[old.ID]
	if last == nil || last.old != old {
		return nil, pk, false
	}
	if !last.established {
		last.late = append(last.late, pk)
		return nil, pk, false
	}
	pk, ok := last.enqueue(pk)
	return last.now, pk, ok
}

// end is called when now has sent again what it had, and returns what came late
// and is still to be sent.
func (r *resumptions) end(now *mqtt.Client) []packets.Packet {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.last[now.ID]
	if last == nil || last.now != now {
		return nil
	}
	var send []packets.Packet
	for _, pk := range last.late {
		if pk, ok := last.enqueue(pk); ok {
			send = append(send, pk)
		}
	}
	last.late, last.established = nil, true
	return send
}

// enqueue adds pk to the queue of the new connection, unless it was copied.
func (r *resumption) enqueue(pk packets.Packet) (packets.Packet, bool) {
	if created, ok := r.copied[pk.PacketID]; ok && created == pk.Created {
		return pk, false
	}
	if have, used := r.now.State.Inflight.Get(pk.PacketID); used {
		if have.Created == pk.Created {
			return pk, false
		}
		id, err := r.now.NextPacketID()
		if err != nil {
			return pk, false
		}
		pk.PacketID = uint16(id) //nolint:gosec // Packet numbers have 16 bits.
	}
	r.now.State.Inflight.Set(pk)
	return pk, true
}

// forget is called when a session has ended.
func (r *resumptions) forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.last, id)
}
