package mqtt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho/session"
)

var errConnectionLost = errors.New("connection lost")

// A disconnectError is a DISCONNECT that the broker sent.
type disconnectError struct {
	code byte
	said string
}

func (e *disconnectError) Error() string {
	return "the broker disconnected: " + describe(e.code, e.said)
}

// A link is one connection to the broker, from its CONNACK to its end. What
// belongs to a connection, packet numbers above all, is here, so that nothing
// of it reaches the next.
type link struct {
	conn io.Writer
	// ctx ends with the connection; its cause says why.
	ctx    context.Context
	cancel context.CancelCauseFunc

	// resumed says that the broker kept the session.
	resumed bool
	// maxPacket is what the broker takes, in bytes.
	maxPacket int
	// window has an element for every event sent and not confirmed.
	window chan struct{}

	mu      sync.Mutex
	pending map[uint16]request
	last    uint16
	// progress is when the broker last confirmed an event, or when the window
	// was last empty.
	progress time.Time

	// acks are the numbers of events to acknowledge, in order of arrival.
	acks   []uint16
	wake   chan struct{}
	writes sync.Mutex // Keeps acknowledgements in order.

	// Under the transport's lock: unacked are the events received and not
	// acknowledged, in order of arrival; relief is the timer that gives up the
	// oldest; forgotten says that the connection is over.
	unacked   []*message
	relief    *time.Timer
	forgotten bool
	// renewing is why the driver ends the connection itself. Under the
	// transport's lock.
	renewing string
}

// A request is a packet sent that the broker will answer.
type request struct {
	answer chan<- packets.ControlPacket
	// size is the packet's size if it is an event, else 0.
	size int
}

func newLink(conn io.Writer, resumed bool, window, maxPacket int) *link {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &link{
		conn: conn, ctx: ctx, cancel: cancel,
		resumed: resumed, maxPacket: maxPacket,
		window:  make(chan struct{}, window),
		pending: make(map[uint16]request, window),
		wake:    make(chan struct{}, 1),
	}
}

// request numbers p and remembers who waits for its answer. The size is 0 for
// what is not an event.
func (l *link) request(ctx context.Context, p session.Packet, size int, answer chan<- packets.ControlPacket) error {
	if size > 0 {
		select {
		case l.window <- struct{}{}:
		case <-l.ctx.Done():
			return session.ErrNoConnection
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending == nil {
		return session.ErrNoConnection
	}
	// The window is smaller than the range of numbers, so that one is free
	// unless there are as many SUBSCRIBE packets.
	if len(l.pending) == math.MaxUint16 {
		if size > 0 {
			<-l.window
		}
		return session.ErrPacketIdentifiersExhausted
	}
	for {
		l.last++
		if _, used := l.pending[l.last]; l.last != 0 && !used {
			break
		}
	}
	if len(l.pending) == 0 {
		l.progress = time.Now()
	}
	l.pending[l.last] = request{answer: answer, size: size}
	p.SetIdentifier(l.last)
	return nil
}

// answer hands a packet to whoever waits for it.
func (l *link) answer(p *packets.ControlPacket) {
	l.mu.Lock()
	r, ok := l.pending[p.PacketID()]
	if ok {
		delete(l.pending, p.PacketID())
		l.progress = time.Now()
	}
	l.mu.Unlock()
	if !ok {
		return
	}
	r.answer <- *p // Has room for the one answer that it gets.
	if r.size > 0 {
		<-l.window
	}
}

// end tells all who wait that the connection is gone.
func (l *link) end(err error) {
	l.cancel(err)
	l.mu.Lock()
	pending := l.pending
	l.pending = nil
	l.mu.Unlock()
	for _, r := range pending {
		r.answer <- packets.ControlPacket{} // Paho's sign for a lost connection.
	}
}

// cut says whether the broker ended the connection of a session that it had
// kept, rather than this end or the network.
func (l *link) cut() bool {
	c, ok := l.conn.(*conn)
	return ok && l.resumed && c.ended.Load()
}

// alive says whether the connection is up, as far as is known.
func (l *link) alive() bool { return l.ctx.Err() == nil }

// stalled says for how long the broker has confirmed nothing of what it was
// given.
func (l *link) stalled(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) == 0 {
		return 0
	}
	return now.Sub(l.progress)
}

// largest is the size of the largest unconfirmed event, 0 without one.
func (l *link) largest() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	most := 0
	for _, r := range l.pending {
		most = max(most, r.size)
	}
	return most
}

// acknowledge has the broker forget the event of this number. The caller keeps
// the order of arrival, which MQTT requires (section 4.6).
func (l *link) acknowledge(number uint16) {
	l.mu.Lock()
	l.acks = append(l.acks, number)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// flush writes the acknowledgements that are due, all at once.
func (l *link) flush() error {
	l.writes.Lock()
	defer l.writes.Unlock()
	l.mu.Lock()
	acks := l.acks
	l.acks = nil
	l.mu.Unlock()
	if len(acks) == 0 || !l.alive() {
		return nil
	}
	// A PUBACK without reason code means success (MQTT 5, section 3.4.2.1).
	buf := make([]byte, 0, 4*len(acks))
	for _, number := range acks {
		buf = binary.BigEndian.AppendUint16(append(buf, packets.PUBACK<<4, 2), number)
	}
	if lock, ok := l.conn.(sync.Locker); ok {
		lock.Lock()
		defer lock.Unlock()
	}
	if _, err := l.conn.Write(buf); err != nil {
		return fmt.Errorf("acknowledge %d events: %w", len(acks), err)
	}
	return nil
}

// serve writes acknowledgements until the connection ends, and calls stuck
// once if the broker stops confirming events.
func (l *link) serve(patience time.Duration, stuck func()) {
	tick := time.NewTicker(patience / 4)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.wake:
			// A failed write is the end of the connection, which its reader
			// finds out.
			_ = l.flush()
		case <-tick.C:
			if l.stalled(time.Now()) > patience {
				stuck()
				return
			}
		}
	}
}

// drain waits until the broker has confirmed all events sent. If it has, no
// other is sent any more.
func (l *link) drain(ctx context.Context) error {
	for taken := range cap(l.window) {
		var err error
		select {
		case l.window <- struct{}{}:
		case <-l.ctx.Done():
			err = context.Cause(l.ctx)
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			for range taken {
				<-l.window
			}
			return err
		}
	}
	return nil
}

// disconnect ends the connection and leaves the session with the broker. It
// waits, until ctx ends, for the broker to hang up: then it has seen the last
// acknowledgements, and will not send those events to the next connection.
func (l *link) disconnect(ctx context.Context, reason byte) {
	// A connection that is stuck must not outlive ctx, writes included.
	defer context.AfterFunc(ctx, l.hangUp)()
	_ = l.flush()
	if _, err := (&packets.Disconnect{ReasonCode: reason, Properties: &packets.Properties{}}).WriteTo(l.conn); err == nil {
		select {
		case <-l.ctx.Done():
		case <-ctx.Done():
		}
	}
	l.hangUp()
}

// hangUp closes the connection, so that everything that reads or writes on it
// returns.
func (l *link) hangUp() {
	if c, ok := l.conn.(io.Closer); ok {
		_ = c.Close()
	}
}
