package embedded

import (
	"errors"
	"slices"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// mqttSessions hand a session from one connection of a client ID to the next as
// a whole, which mochi does piece by piece, while events are published and while
// it still ends the connection before.
type mqttSessions struct {
	// routing is held for reading while an event is put into sessions, and for
	// writing while one of them passes to another connection. No network is
	// waited for with it.
	routing sync.RWMutex

	mu sync.Mutex
	// last holds the connection of each client ID that came last.
	last map[string]*mqttFlow
}

// enter makes f the last connection of a client ID and returns the one before,
// nil if that has ended.
func (s *mqttSessions) enter(id string, f *mqttFlow) *mqttFlow {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		s.last = make(map[string]*mqttFlow)
	}
	before := s.last[id]
	s.last[id] = f
	return before
}

// leave is called when a connection has ended.
func (s *mqttSessions) leave(id string, f *mqttFlow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last[id] == f {
		delete(s.last, id)
	}
}

var errStillThere = errors.New("the connection before did not end in time")

// end disconnects the connection before, and returns when mochi is done with
// it: what mochi does then, under the client's ID, would be done to the next
// connection. It is not disconnected before it has its session, or two
// connections would have it at a time.
func (h *mqttHook) end(before *mqttFlow) error {
	timeout := time.NewTimer(helloTimeout)
	defer timeout.Stop()
	select {
	case <-before.admitted:
	case <-before.ended:
		return nil
	case <-timeout.C:
		return errStillThere
	}
	// The last packet can take as long as the client does not read.
	defer time.AfterFunc(goodbyeTimeout, func() { _ = before.Close() }).Stop()
	_ = h.server.DisconnectClient(before.client, packets.ErrSessionTakenOver) // It repeats the reason.
	select {
	case <-before.ended:
		return nil
	case <-timeout.C:
		return errStillThere
	}
}

// OnSessionEstablish is called before a client takes over its session, if any.
func (h *mqttHook) OnSessionEstablish(cl *mqtt.Client, pk packets.Packet) {
	f := flow(cl)
	if f == nil {
		return
	}
	f.client = cl
	if before := h.sessions.enter(cl.ID, f); before != nil {
		if err := h.end(before); err != nil {
			h.log.Warn("session is taken over all the same, events may be lost", "client", cl.ID, "err", err)
		}
	}
	h.wills.back(cl.ID, pk.Connect.Clean)
	existing, ok := h.server.Clients.Get(cl.ID)
	if !ok {
		return
	}
	h.sessions.routing.Lock()
	f.passing = true
	if !pk.Connect.Clean {
		f.resends(renumber(existing))
	}
}

// renumber has the queue of a session sent in its order, and returns the
// numbers of its packets. Mochi sorts by the last 16 bits of Created; counted
// afresh, events stay before all that come later, see mqttHook.OnPublish.
func renumber(cl *mqtt.Client) map[uint16]bool {
	queue := cl.State.Inflight.GetAll(false)
	slices.SortStableFunc(queue, func(a, b packets.Packet) int { return int(a.Created - b.Created) })
	numbers := make(map[uint16]bool, len(queue))
	for i, pk := range queue {
		numbers[pk.PacketID] = true
		pk.Created = int64(i + 1)
		cl.State.Inflight.Set(pk)
	}
	return numbers
}

// admit is called with the CONNACK packet of a client, which has its session
// then.
func (h *mqttHook) admit(f *mqttFlow) {
	h.passed(f)
	f.admit.Do(func() { close(f.admitted) })
}

func (h *mqttHook) passed(f *mqttFlow) {
	if f.passing {
		f.passing = false
		h.sessions.routing.Unlock()
	}
}

// OnSessionEstablished is called when a client has been sent its queue.
func (h *mqttHook) OnSessionEstablished(cl *mqtt.Client, _ packets.Packet) {
	if f := flow(cl); f != nil {
		f.establish()
	}
	if h.store != nil {
		h.store.putClient(cl)
	}
}

// ended is called when mochi is done with a connection.
func (h *mqttHook) ended(f *mqttFlow) {
	h.passed(f)
	if f.client != nil {
		h.lost(f)
		h.sessions.leave(f.client.ID, f)
	}
	close(f.ended)
}

// routes is called when mochi has confirmed the event that it processes, or
// need not: next, it puts it into sessions.
func (h *mqttHook) routes(f *mqttFlow) {
	if !f.routing {
		h.sessions.routing.RLock()
		f.routing = true
	}
}

// routed is called when the event is in all sessions, or in none.
func (h *mqttHook) routed(f *mqttFlow) {
	f.publishing = false
	if f.routing {
		f.routing = false
		h.sessions.routing.RUnlock()
	}
}
