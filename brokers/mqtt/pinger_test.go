package mqtt

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

// A slowBroker is one at the other end of a link of 1 kB/s: what it says queues
// up there, and its answers to pings behind that. It lives in a bubble of
// testing/synctest.
type slowBroker struct {
	t    *testing.T
	conn net.Conn

	mu    sync.Mutex
	queue bytes.Buffer
	pings int
	mute  bool // It takes everything and says nothing.
}

// say queues a packet.
func (b *slowBroker) say(p *packets.ControlPacket) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mute {
		return
	}
	if _, err := p.WriteTo(&b.queue); err != nil {
		b.t.Error(err)
	}
}

func (b *slowBroker) read() {
	for {
		p, err := packets.ReadPacket(b.conn)
		if err != nil {
			return
		}
		switch p.Type {
		case packets.CONNECT:
			b.say(packets.NewControlPacket(packets.CONNACK))
		case packets.PINGREQ:
			b.mu.Lock()
			b.pings++
			b.mu.Unlock()
			b.say(packets.NewControlPacket(packets.PINGRESP))
		}
	}
}

// write says what is queued, a hundred bytes in a tenth of a second.
func (b *slowBroker) write(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		b.mu.Lock()
		some := bytes.Clone(b.queue.Next(100))
		b.mu.Unlock()
		if _, err := b.conn.Write(some); err != nil {
			return
		}
	}
}

func (b *slowBroker) backlog() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.queue.Len()
}

// TestSlowLink: a connection over which the answer to a ping takes longer than
// the keepalive is kept for as long as anything comes, and given up soon after
// nothing does.
func TestSlowLink(t *testing.T) {
	const keepalive = 5
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		b := &slowBroker{t: t, conn: theirs}
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(b.read)
		running.Go(func() { b.write(ctx) })

		raw := newPulse(ours)
		failed := make(chan error, 1)
		received := make(chan *paho.Publish, 100)
		client := paho.NewClient(paho.ClientConfig{
			Conn:        newConn(raw, raw, 4<<10, maxPacket),
			PingHandler: &pinger{},
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
				received <- p.Packet
				return true, nil
			}},
			OnClientError: func(err error) { failed <- err },
		})
		if _, err := client.Connect(ctx, &paho.Connect{ClientID: "c1-client", KeepAlive: keepalive, CleanStart: true}); err != nil {
			t.Fatal(err)
		}
		// A minute's worth of events, in the time of which several pings are due.
		const events = 40
		for range events {
			p := &packets.Publish{Topic: "t", Payload: bytes.Repeat([]byte("x"), 1500), Properties: &packets.Properties{}}
			b.say(&packets.ControlPacket{FixedHeader: packets.FixedHeader{Type: packets.PUBLISH}, Content: p})
		}
		for range events {
			select {
			case <-received:
			case err := <-failed:
				t.Fatalf("with %d bytes under way: %v", b.backlog(), err)
			}
		}
		later(time.Hour)
		select {
		case err := <-failed:
			t.Fatalf("in an hour of rest: %v", err)
		default:
		}
		b.mu.Lock()
		b.mute = true
		if b.pings < 700 || b.pings > 740 {
			t.Errorf("%d pings in an hour and a minute, want one in %d s", b.pings, keepalive)
		}
		b.mu.Unlock()
		silent := time.Now()
		<-failed // The fake clock moves as long as nothing else does.
		if took := time.Since(silent); took > 3*keepalive*time.Second {
			t.Errorf("given up after %s of silence, want within three keepalives", took)
		}
		cancel()
		_ = ours.Close()
		_ = theirs.Close()
		<-client.Done()
		running.Wait()
	})
}
