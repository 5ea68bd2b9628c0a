package mqtt

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/fleetcast-io/fleetcast/brokers"
)

// A broker that hangs up on a large event without having said so is not sent it
// again, and smaller ones are unaffected.
func TestLearnsSizeLimit(t *testing.T) {
	tr, l, _ := connectedTransport(t, 64)
	answers := make(chan packets.ControlPacket, 3)
	for _, size := range []int{1000, 5000, 3000} {
		p := &packets.Publish{}
		if err := tr.keeper.AddToSession(outgoing{l, size}.context(context.Background()), p, answers); err != nil {
			t.Fatal(err)
		}
	}
	_ = tr.keeper.ConnectionLost(&packets.Disconnect{ReasonCode: packetTooLarge, Properties: &packets.Properties{}})
	if _, most, err := tr.usable(); most != 4999 || !errors.Is(err, brokers.ErrUnavailable) {
		t.Errorf("limit is %d, error %v; want 4999, ErrUnavailable", most, err)
	}
	for range 3 {
		if a := <-answers; a.Type != 0 {
			t.Errorf("answer of type %d to an unconfirmed event, want the sign of a lost connection", a.Type)
		}
	}
	e := valid()
	e.Data = bytes.Repeat([]byte("x"), 5000)
	if err := tr.Publish(context.Background(), brokers.Topic{Lane: brokers.ToAllClusters, Source: "s"}, e); !errors.Is(err, brokers.ErrTooLarge) {
		t.Errorf("publish over the limit: %v, want ErrTooLarge", err)
	}
}

// A call that comes late, with the connection it means gone, does nothing to
// the next.
func TestLateRequest(t *testing.T) {
	tr, old, _ := connectedTransport(t, 64)
	_ = tr.keeper.ConnectionLost(nil)
	if err := tr.keeper.ConAckReceived(io.Discard, nil, &packets.Connack{}); err != nil {
		t.Fatal(err)
	}
	late := outgoing{old, 100}.context(context.Background())
	if err := tr.keeper.AddToSession(late, &packets.Publish{}, make(chan packets.ControlPacket, 1)); err == nil {
		t.Error("a packet for the previous connection was added to the next")
	}
	now := tr.keeper.link.Load()
	if n := len(now.window); n != 0 {
		t.Errorf("%d places of the window are taken, want none", n)
	}
}

// The window is what the broker allows, and a place is free when the broker has
// confirmed, not when the caller has given up waiting.
func TestWindow(t *testing.T) {
	tr, _, _ := connectedTransport(t, 64)
	_ = tr.keeper.ConnectionLost(nil)
	two := uint16(2)
	if err := tr.keeper.ConAckReceived(io.Discard, nil, &packets.Connack{Properties: &packets.Properties{ReceiveMaximum: &two}}); err != nil {
		t.Fatal(err)
	}
	l := tr.keeper.link.Load()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	publish := func() (uint16, error) {
		p := &packets.Publish{}
		err := tr.keeper.AddToSession(outgoing{l, 1}.context(ended), p, make(chan packets.ControlPacket, 1))
		return p.PacketID, err
	}
	var numbers []uint16
	for len(numbers) < 2 {
		// The context has ended, so either may happen while there is room.
		if n, err := publish(); err == nil {
			numbers = append(numbers, n)
		}
	}
	if _, err := publish(); !errors.Is(err, context.Canceled) {
		t.Errorf("a third event with a window of two: %v, want context.Canceled", err)
	}
	_ = tr.keeper.PacketReceived(&packets.ControlPacket{FixedHeader: packets.FixedHeader{Type: packets.PUBACK}, Content: &packets.Puback{PacketID: numbers[0]}}, nil)
	if n := len(l.window); n != 1 {
		t.Errorf("%d places are taken after one of two confirmations, want 1", n)
	}
	_ = tr.keeper.PacketReceived(&packets.ControlPacket{FixedHeader: packets.FixedHeader{Type: packets.PUBACK}, Content: &packets.Puback{PacketID: 999}}, nil)
	if n := len(l.window); n != 1 {
		t.Errorf("%d places are taken after a confirmation of nothing, want 1", n)
	}
}

func TestStuckBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(io.Discard, false, 10, 1000)
		stuck := make(chan struct{})
		var done sync.WaitGroup
		done.Go(func() { l.serve(time.Minute, func() { close(stuck) }) })
		later(time.Hour)
		select {
		case <-stuck:
			t.Fatal("a broker that has nothing to confirm is said to be stuck")
		default:
		}
		p := &packets.Publish{}
		if err := l.request(context.Background(), p, 1, make(chan packets.ControlPacket, 1)); err != nil {
			t.Fatal(err)
		}
		<-stuck // The fake clock moves as long as nothing else does.
		l.end(errConnectionLost)
		done.Wait()
	})
}
