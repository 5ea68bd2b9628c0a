package mqtt

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

func TestHeader(t *testing.T) {
	event, err := encode("topic", valid())
	if err != nil {
		t.Fatal(err)
	}
	event.Payload = bytes.Repeat([]byte("x"), 70_000)
	var wire bytes.Buffer
	for range 3 {
		if _, err := event.Packet().WriteTo(&wire); err != nil {
			t.Fatal(err)
		}
		if _, err := packets.NewControlPacket(packets.PINGRESP).WriteTo(&wire); err != nil {
			t.Fatal(err)
		}
	}
	check := func(limit, step int) error {
		h := header{limit: limit}
		for part := range slices.Chunk(wire.Bytes(), step) {
			if err := h.check(part); err != nil {
				return err
			}
		}
		return nil
	}
	for _, step := range []int{1, 2, 3, 1000, wire.Len()} {
		if err := check(packetSize(event), step); err != nil {
			t.Errorf("in steps of %d: %v", step, err)
		}
		if err := check(packetSize(event)-1, step); err == nil || !strings.Contains(err.Error(), "over the") {
			t.Errorf("in steps of %d: a packet over the limit: %v", step, err)
		}
	}
	h := header{limit: maxPacket}
	if err := h.check([]byte{0x30, 0xff, 0xff, 0xff, 0xff, 0x01}); err == nil {
		t.Error("a length of five bytes is accepted")
	}
}

// Packets of many writers arrive whole, without anybody being left to flush.
func TestConn(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	raw := newPulse(ours)
	c := newConn(raw, raw, 4<<10, maxPacket)
	defer c.Close()
	const writers, each = 20, 50
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range each {
				p, err := encode(fmt.Sprintf("%d/%d", w, n), valid())
				if err != nil {
					t.Error(err)
					return
				}
				p.Payload = bytes.Repeat([]byte("x"), 10*n)
				if _, err := p.Packet().WriteTo(c); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	_ = theirs.SetReadDeadline(time.Now().Add(time.Minute))
	next := make(map[string]int)
	for range writers * each {
		p, err := packets.ReadPacket(theirs)
		if err != nil {
			t.Fatal(err)
		}
		writer, number, _ := strings.Cut(p.Content.(*packets.Publish).Topic, "/")
		if number != fmt.Sprint(next[writer]) {
			t.Errorf("packet %s of writer %s came, want %d", number, writer, next[writer])
		}
		next[writer]++
	}
	wg.Wait()
}
