package embedded

import (
	"bytes"
	"net"
	"slices"
	"testing"

	"github.com/eclipse/paho.golang/packets"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// A sentLog is a connection that keeps what is written.
type sentLog struct {
	net.Conn
	bytes.Buffer
}

func (s *sentLog) Write(p []byte) (int, error) { return s.Buffer.Write(p) }
func (s *sentLog) Read([]byte) (int, error)    { return 0, net.ErrClosed }

// However packets are written together and acknowledged, the client gets all of
// them unharmed, events in order, and never more of those than it asked for.
func TestMQTTFlow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var log sentLog
		most := rapid.IntRange(1, 5).Draw(t, "receive maximum")
		f := newFlow(&log, new(traffic))
		f.limit(uint16(most))
		f.establish()

		var events, others, came, unacknowledged []uint16
		otherCame := 0
		next := uint16(0)
		write := func(n int) {
			var wire bytes.Buffer
			for range n {
				next++
				p := packets.NewControlPacket(packets.PUBACK)
				if kind := rapid.IntRange(0, 3).Draw(t, "kind"); kind == 0 {
					p.Content.(*packets.Puback).PacketID = next
					others = append(others, next)
				} else {
					p = packets.NewControlPacket(packets.PUBLISH)
					publish := p.Content.(*packets.Publish)
					publish.Topic, publish.QoS, publish.PacketID = "t", 1, next
					publish.Payload = bytes.Repeat([]byte("x"), rapid.SampledFrom([]int{0, 10, 119, 120, 121, 20_000}).Draw(t, "size"))
					events = append(events, next)
				}
				if _, err := p.WriteTo(&wire); err != nil {
					t.Fatal(err)
				}
			}
			before := slices.Clone(wire.Bytes())
			if n, err := f.Write(wire.Bytes()); n != wire.Len() || err != nil {
				t.Fatalf("Write returned %d, %v for %d bytes", n, err, wire.Len())
			}
			if !bytes.Equal(before, wire.Bytes()) {
				t.Fatal("Write changed its argument")
			}
		}
		read := func() {
			for log.Len() > 0 {
				p, err := packets.ReadPacket(&log.Buffer)
				if err != nil {
					t.Fatalf("the client cannot read: %v", err)
				}
				if p.Type == packets.PUBLISH {
					came, unacknowledged = append(came, p.PacketID()), append(unacknowledged, p.PacketID())
				} else {
					otherCame++
				}
			}
			if len(unacknowledged) > most {
				t.Fatalf("%d events unacknowledged, the client takes %d", len(unacknowledged), most)
			}
		}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			write(rapid.IntRange(0, 5).Draw(t, "packets"))
			read()
			if otherCame != len(others) {
				t.Fatalf("%d of %d other packets came", otherCame, len(others))
			}
			for range rapid.IntRange(0, len(unacknowledged)).Draw(t, "acknowledged") {
				f.acknowledged(unacknowledged[0])
				unacknowledged = unacknowledged[1:]
				read()
			}
		}
		for len(unacknowledged) > 0 {
			f.acknowledged(unacknowledged[0])
			unacknowledged = unacknowledged[1:]
			read()
		}
		if diff := cmp.Diff(events, came); diff != "" {
			t.Errorf("events (-written +came):\n%s", diff)
		}
	})
}

// Mochi writes whole packets; anything else passes as it is.
func TestMQTTFlowPassesWhatItCannotRead(t *testing.T) {
	for _, test := range []struct{ reason, wire string }{
		{"no length", "\x32"},
		{"a length without end", "\x32\xff\xff\xff\xff\xff"},
		{"longer than what there is", "\x32\x0a\x00\x01t"},
		{"an event without room for a number", "\x32\x03\x00\x01t"},
		{"an event without room for its topic", "\x32\x03\x00\x09t"},
		{"an event without anything", "\x32\x00"},
		{"QoS 0", "\x30\x05\x00\x01t\x00\x01"},
	} {
		var log sentLog
		f := newFlow(&log, new(traffic))
		f.limit(1)
		f.establish()
		for range 2 {
			if _, err := f.Write([]byte(test.wire)); err != nil {
				t.Fatal(err)
			}
		}
		if log.String() != test.wire+test.wire {
			t.Errorf("%s: %q came, want %q twice", test.reason, log.String(), test.wire)
		}
	}
}
