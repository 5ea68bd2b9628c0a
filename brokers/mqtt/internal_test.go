package mqtt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/brokers"
)

// An ackLog is a connection that remembers which events were acknowledged.
type ackLog struct {
	mu   sync.Mutex
	acks []int
}

func (a *ackLog) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for r := bytes.NewReader(p); r.Len() > 0; {
		packet, err := packets.ReadPacket(r)
		if err != nil {
			return 0, err
		}
		a.acks = append(a.acks, int(packet.PacketID()))
	}
	return len(p), nil
}

func (a *ackLog) all() []int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.acks)
}

// connectedTransport is a transport with a connection that is already there.
func connectedTransport(t *testing.T, receiveMaximum int) (*transport, *link, *ackLog) {
	t.Helper()
	o, err := parseURL(mustParse(t, fmt.Sprintf("mqtt://broker?receive-maximum=%d", receiveMaximum)), brokers.RoleAgent)
	if err != nil {
		t.Fatal(err)
	}
	c := brokers.Config{Role: brokers.RoleAgent, Name: "c"}
	tr := newTransport(o, c, newCredentials(o, c))
	acks := &ackLog{}
	if err := tr.keeper.ConAckReceived(acks, nil, &packets.Connack{SessionPresent: true}); err != nil {
		t.Fatal(err)
	}
	l := tr.keeper.link.Load()
	t.Cleanup(func() {
		_ = tr.keeper.ConnectionLost(nil)
		tr.background.Wait()
	})
	return tr, l, acks
}

// later lets time pass in a synctest bubble.
func later(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func incoming(t *testing.T, number int, lane brokers.Lane) *paho.Publish {
	t.Helper()
	topic := brokers.Topic{Lane: lane, Source: "s"}
	if lane.HasCluster() {
		topic.Cluster = "c"
	}
	p, err := encode(ocm.topic(topic), valid())
	if err != nil {
		t.Fatal(err)
	}
	p.PacketID = uint16(number)
	return p
}

func newSubscription(lane brokers.Lane) *subscription {
	f := brokers.Filter{Lane: lane, Source: brokers.Any}
	if lane.HasCluster() {
		f.Cluster = "c"
	}
	return &subscription{
		Subscription: brokers.Subscription{Filters: []brokers.Filter{f}},
		wake:         make(chan struct{}, 1), held: make(map[*message]int),
	}
}

// take hands over everything that is queued.
func take(tr *transport, s *subscription) []brokers.Delivery {
	var all []brokers.Delivery
	for {
		d, ok := tr.next(s)
		if !ok {
			return all
		}
		all = append(all, d)
	}
}

// MQTT wants acknowledgements in the order of arrival (section 4.6).
func TestAcknowledgementsKeepOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, _, acks := connectedTransport(t, 64)
		s := newSubscription(brokers.ToCluster)
		tr.add(s)
		for n := 1; n <= 5; n++ {
			tr.receive(incoming(t, n, brokers.ToCluster))
		}
		got := take(tr, s)
		for _, step := range []struct {
			settle int
			err    error
			want   []int
		}{
			{2, nil, nil},
			{4, brokers.ErrReject, nil},
			{1, nil, []int{1, 2}},
			{1, nil, []int{1, 2}}, // Twice: Done is to be called once.
			{3, nil, []int{1, 2, 3, 4}},
			{5, nil, []int{1, 2, 3, 4, 5}},
		} {
			got[step.settle-1].Done(step.err)
			synctest.Wait()
			if diff := cmp.Diff(step.want, acks.all()); diff != "" {
				t.Fatalf("after event %d was settled, acknowledged (-want +got):\n%s", step.settle, diff)
			}
		}
	})
}

func TestRedelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, l, acks := connectedTransport(t, 64)
		s := newSubscription(brokers.ToCluster)
		tr.add(s)
		tr.receive(incoming(t, 1, brokers.ToCluster))
		first := take(tr, s)[0]
		first.Done(errors.New("disk full"))
		if again := take(tr, s); len(again) > 0 {
			t.Error("the event came again without a pause")
		}
		later(longestPause)
		again := take(tr, s)
		if len(again) != 1 {
			t.Fatalf("the event came %d times after a pause, want once", len(again))
		}
		first.Done(nil)
		synctest.Wait()
		if len(acks.all()) > 0 {
			t.Error("the second delivery was settled by the first one's Done")
		}
		again[0].Done(errors.New("disk full"))

		// The broker sends it again on the next connection, so it must not come
		// from here too, nor may its acknowledgement go to the next connection.
		_ = tr.keeper.ConnectionLost(nil)
		later(longestPause)
		if late := take(tr, s); len(late) > 0 {
			t.Error("the event came again after the end of its connection")
		}
		again[0].Done(nil)
		if l.alive() || len(acks.all()) > 0 {
			t.Errorf("acknowledged %v after the end of the connection", acks.all())
		}
	})
}

func TestOneEventForTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, _, acks := connectedTransport(t, 64)
		a, b := newSubscription(brokers.ToCluster), newSubscription(brokers.ToCluster)
		tr.add(a)
		tr.add(b)
		tr.receive(incoming(t, 1, brokers.ToCluster))
		first, second := take(tr, a), take(tr, b)
		if len(first) != 1 || len(second) != 1 {
			t.Fatalf("subscriptions to the same got %d and %d events, want one each", len(first), len(second))
		}
		first[0].Done(errors.New("disk full"))
		second[0].Done(nil)
		synctest.Wait()
		if len(acks.all()) > 0 {
			t.Error("acknowledged before the first subscription could keep it")
		}
		later(longestPause)
		take(tr, a)[0].Done(nil)
		synctest.Wait()
		if diff := cmp.Diff([]int{1}, acks.all()); diff != "" {
			t.Errorf("acknowledged (-want +got):\n%s", diff)
		}
	})
}

// What a subscription leaves waits for the next, in the order of arrival.
func TestEndedSubscriptionLeavesEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, _, acks := connectedTransport(t, 64)
		ended := newSubscription(brokers.ToCluster)
		tr.receive(incoming(t, 1, brokers.ToCluster)) // Before anybody was there.
		tr.add(ended)
		tr.receive(incoming(t, 2, brokers.ToCluster))
		tr.receive(incoming(t, 3, brokers.ToCluster))
		held := []brokers.Delivery{first(tr, ended), first(tr, ended)}
		held[1].Done(nil)
		tr.remove(ended)
		held[0].Done(nil) // Too late.
		tr.receive(incoming(t, 4, brokers.ToCluster))
		synctest.Wait()
		if got := acks.all(); len(got) > 0 {
			t.Fatalf("acknowledged %v, though the first event is unsettled", got)
		}

		next := newSubscription(brokers.ToCluster)
		tr.add(next)
		got := take(tr, next)
		if len(got) != 3 {
			t.Fatalf("the next subscription got %d events, want the 3 unsettled", len(got))
		}
		for _, d := range got {
			d.Done(nil)
		}
		synctest.Wait()
		if diff := cmp.Diff([]int{1, 2, 3, 4}, acks.all()); diff != "" {
			t.Errorf("acknowledged (-want +got):\n%s", diff)
		}
	})
}

func first(tr *transport, s *subscription) brokers.Delivery {
	d, _ := tr.next(s)
	return d
}

// Events that nobody asks for do not stop those that somebody does.
func TestUnclaimedEventsGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = 4
		tr, _, acks := connectedTransport(t, window)
		for n := 1; n <= window; n++ {
			tr.receive(incoming(t, n, brokers.ToAllClusters))
		}
		later(time.Hour)
		if got := acks.all(); len(got) > 0 {
			t.Fatalf("acknowledged %v, though nobody is there who is held up", got)
		}
		s := newSubscription(brokers.ToCluster)
		tr.add(s)
		tr.receive(incoming(t, window+1, brokers.ToCluster)) // The broker sends no more than the window until some are acknowledged.
		synctest.Wait()
		if diff := cmp.Diff([]int{1, 2}, acks.all()); diff != "" {
			t.Fatalf("given up to make room in the window (-want +got):\n%s", diff)
		}
		take(tr, s)[0].Done(nil)

		tr.receive(incoming(t, window+2, brokers.ToAllClusters))
		late := newSubscription(brokers.ToAllClusters)
		synctest.Wait()
		given := acks.all()
		tr.add(late)
		if got := len(take(tr, late)) + len(given); got != window+1 {
			t.Errorf("a late subscription got what was not given up: together %d events, want %d", got, window+1)
		}
	})
}

func TestUnclaimedEventsWaitFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = 2
		tr, _, acks := connectedTransport(t, window)
		s := newSubscription(brokers.ToCluster)
		tr.add(s)
		tr.receive(incoming(t, 1, brokers.ToAllClusters))
		tr.receive(incoming(t, 2, brokers.ToCluster))
		take(tr, s)[0].Done(nil)
		later(unclaimedFor - time.Second)
		if got := acks.all(); len(got) > 0 {
			t.Fatalf("acknowledged %v at once: who asks for it may be about to come", got)
		}
		later(2 * time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]int{1, 2}, acks.all()); diff != "" {
			t.Errorf("given up by itself after a while (-want +got):\n%s", diff)
		}
	})
}

func TestUnreadableEventsAreAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, _, acks := connectedTransport(t, 64)
		s := newSubscription(brokers.ToCluster)
		tr.add(s)
		junk := incoming(t, 1, brokers.ToCluster)
		junk.Properties.User = nil
		elsewhere := incoming(t, 2, brokers.ToCluster)
		elsewhere.Topic = "sources/s/consumers/c/sourceevents"
		retained := incoming(t, 3, brokers.ToCluster)
		retained.Retain = true
		for _, p := range []*paho.Publish{junk, elsewhere, retained, incoming(t, 4, brokers.ToCluster)} {
			tr.receive(p)
		}
		got := take(tr, s)
		if len(got) != 1 {
			t.Fatalf("%d events were handed over, want the one that is one", len(got))
		}
		got[0].Done(nil)
		synctest.Wait()
		if diff := cmp.Diff([]int{1, 2, 3, 4}, acks.all()); diff != "" {
			t.Errorf("acknowledged (-want +got):\n%s", diff)
		}
	})
}

// QoS 0 has no Receive Maximum, so a peer that uses it could fill the memory.
func TestUnacknowledgedEventsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, _, acks := connectedTransport(t, 8)
		s := newSubscription(brokers.ToCluster)
		tr.add(s)
		for range 100 {
			p := incoming(t, 0, brokers.ToCluster)
			p.QoS = 0
			tr.receive(p)
		}
		got := take(tr, s)
		if len(got) != 8 {
			t.Errorf("%d events of QoS 0 are queued, want 8", len(got))
		}
		got[0].Done(nil)
		got[1].Done(errors.New("disk full"))
		later(longestPause)
		if len(acks.all()) > 0 {
			t.Errorf("acknowledged %v, want nothing for QoS 0", acks.all())
		}
	})
}

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

func TestPacer(t *testing.T) {
	now := time.Now()
	var p pacer
	if d := p.next(now); d != 0 {
		t.Errorf("the first attempt waits %s", d)
	}
	for failures := range 100 {
		if d, most := p.next(now), backoff(failures); d > most || d > longestPause {
			t.Errorf("after %d failures it waits %s, want at most %s", failures, d, most)
		}
	}
	p.atLeast(takenOverPause)
	if d := p.next(now); d < takenOverPause || d > takenOverPause+longestPause {
		t.Errorf("after the session was taken over it waits %s", d)
	}
	p.up(now)
	if p.next(now.Add(time.Second)); p.failures < 50 {
		t.Error("a connection that lasted a second counts as a success, so two clients with one ID would fight")
	}
	p.up(now)
	if d := p.next(now.Add(steady)); d > firstPause {
		t.Errorf("after a good connection it waits %s", d)
	}
	p.atOnce()
	if d := p.next(now); d != 0 {
		t.Errorf("a renewed connection waits %s", d)
	}
	if p.next(now); p.failures == 0 {
		t.Error("only one pause is left out")
	}
}

func TestInventory(t *testing.T) {
	var i inventory
	i.connected(false, true)
	if i.subscribed([]string{"a"}) {
		t.Error("a new session is said to have collected")
	}
	i.connected(true, false)
	if !i.subscribed([]string{"a"}) {
		t.Error("a session that was kept is said not to have collected")
	}
	if i.subscribed([]string{"a", "b"}) {
		t.Error("a filter that is new to a session of this process is said to have collected")
	}
	i.connected(false, false)
	if i.subscribed([]string{"a"}) {
		t.Error("a session that was lost is said to have collected")
	}
	var inherited inventory
	inherited.connected(true, true)
	if !inherited.subscribed([]string{"a"}) {
		t.Error("an earlier process's session is said not to have collected")
	}
}

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
	c := newConn(ours, 4<<10, maxPacket)
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

func TestDescribe(t *testing.T) {
	for _, test := range []struct {
		code byte
		said string
		want string
	}{
		{0x87, "", "not authorized (0x87)"},
		{0x87, "not authorized", "not authorized (0x87)"},
		{0x97, "ask again in May", "quota exceeded (0x97): ask again in May"},
		{0xff, "", "unknown reason (0xFF)"},
	} {
		if got := describe(test.code, test.said); got != test.want {
			t.Errorf("reason is described as %q, want %q", got, test.want)
		}
	}
	if got := describe(0x80, strings.Repeat("x", 1000)); len(got) > 200 {
		t.Errorf("a broker fills the log with %d bytes", len(got))
	}
}
