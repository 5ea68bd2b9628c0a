package mqtt

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
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
	<-time.After(d)
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

func subscriptionTo(lane brokers.Lane) *subscription {
	f := brokers.Filter{Lane: lane, Source: brokers.Any}
	if lane.HasCluster() {
		f.Cluster = "c"
	}
	return newSubscription(brokers.Subscription{Filters: []brokers.Filter{f}})
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
		s := subscriptionTo(brokers.ToCluster)
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
		s := subscriptionTo(brokers.ToCluster)
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
		a, b := subscriptionTo(brokers.ToCluster), subscriptionTo(brokers.ToCluster)
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
		ended := subscriptionTo(brokers.ToCluster)
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

		next := subscriptionTo(brokers.ToCluster)
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
		s := subscriptionTo(brokers.ToCluster)
		tr.add(s)
		tr.receive(incoming(t, window+1, brokers.ToCluster)) // The broker sends no more than the window until some are acknowledged.
		synctest.Wait()
		if diff := cmp.Diff([]int{1, 2}, acks.all()); diff != "" {
			t.Fatalf("given up to make room in the window (-want +got):\n%s", diff)
		}
		take(tr, s)[0].Done(nil)

		tr.receive(incoming(t, window+2, brokers.ToAllClusters))
		late := subscriptionTo(brokers.ToAllClusters)
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
		s := subscriptionTo(brokers.ToCluster)
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

// A subscription that ends with the whole window unsettled leaves the others
// without events for half a minute, not for ever.
func TestEndedSubscriptionGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = 2
		tr, _, acks := connectedTransport(t, window)
		ended, other := subscriptionTo(brokers.ToAllClusters), subscriptionTo(brokers.ToCluster)
		tr.add(ended)
		tr.add(other)
		for n := 1; n <= window; n++ {
			tr.receive(incoming(t, n, brokers.ToAllClusters))
		}
		tr.remove(ended)
		later(unclaimedFor - time.Second)
		if got := acks.all(); len(got) > 0 {
			t.Fatalf("acknowledged %v at once: the next subscription may be about to come", got)
		}
		later(2 * time.Second)
		if diff := cmp.Diff([]int{1}, acks.all()); diff != "" {
			t.Errorf("given up to make room in the window (-want +got):\n%s", diff)
		}
	})
}

func TestUnreadableEventsAreAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, _, acks := connectedTransport(t, 64)
		s := subscriptionTo(brokers.ToCluster)
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
		s := subscriptionTo(brokers.ToCluster)
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

// about is an event about an object, and none if that is "".
func about(t *testing.T, number int, object string) *paho.Publish {
	t.Helper()
	p := incoming(t, number, brokers.ToCluster)
	for i, u := range p.Properties.User {
		if u.Key == prefix+event.ID {
			p.Properties.User[i].Value = strconv.Itoa(number)
		}
	}
	if object != "" {
		p.Properties.User.Add(prefix+objectAttribute, object)
	}
	return p
}

// handed takes what is queued, and returns the IDs.
func handed(tr *transport, s *subscription) (all []brokers.Delivery, ids []string) {
	all = take(tr, s)
	for _, d := range all {
		ids = append(ids, d.Event.Get(event.ID))
	}
	return all, ids
}

func wantHanded(t *testing.T, when string, tr *transport, s *subscription, want ...string) []brokers.Delivery {
	t.Helper()
	all, ids := handed(tr, s)
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Fatalf("handed over %s (-want +got):\n%s", when, diff)
	}
	return all
}

// What fails is not overtaken by what came later about the same object, however
// often it fails; other objects are not held up.
func TestFailedEventIsNotOvertaken(t *testing.T) {
	for _, object := range []string{"nginx", ""} {
		t.Run("object="+object, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr, _, acks := connectedTransport(t, 64)
				s := subscriptionTo(brokers.ToCluster)
				tr.add(s)
				tr.receive(about(t, 1, object))
				failing := wantHanded(t, "at first", tr, s, "1")[0]
				tr.receive(about(t, 2, object)) // Queued when the first fails.
				for attempt := range 3 {
					failing.Done(errors.New("disk full"))
					tr.receive(about(t, 3+2*attempt, object))
					tr.receive(about(t, 4+2*attempt, "other"))
					wantHanded(t, "during the pause", tr, s, strconv.Itoa(4+2*attempt))[0].Done(nil)
					later(longestPause)
					failing = wantHanded(t, "after the pause", tr, s, "1")[0]
				}
				failing.Done(nil)
				for _, d := range wantHanded(t, "when the first was settled", tr, s, "2", "3", "5", "7") {
					d.Done(nil)
				}
				synctest.Wait()
				if diff := cmp.Diff([]int{1, 2, 3, 4, 5, 6, 7, 8}, acks.all()); diff != "" {
					t.Errorf("acknowledged (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// A subscriber that holds several events of one object and then fails to keep an
// older one sees the newer ones again after it, whether settled or not, so that
// the newest is still the last that it sees.
func TestFailureComesBeforeNewerEventsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, _, acks := connectedTransport(t, 64)
		s := subscriptionTo(brokers.ToCluster)
		tr.add(s)
		for n := 1; n <= 5; n++ {
			tr.receive(about(t, n, "nginx"))
		}
		held := wantHanded(t, "at first", tr, s, "1", "2", "3", "4", "5")
		held[0].Done(nil)
		held[2].Done(nil)
		held[3].Done(brokers.ErrReject)
		held[4].Done(errors.New("disk full"))
		held[1].Done(errors.New("disk full"))
		held[4].Done(nil) // Of the hand-over before the failure.
		synctest.Wait()
		if diff := cmp.Diff([]int{1}, acks.all()); diff != "" {
			t.Fatalf("acknowledged (-want +got):\n%s", diff)
		}
		later(longestPause)
		wantHanded(t, "after the pause", tr, s, "2")[0].Done(nil)
		later(longestPause)
		for _, d := range wantHanded(t, "after the failed event", tr, s, "3", "5") {
			d.Done(nil)
		}
		later(longestPause)
		if diff := cmp.Diff([]int{1, 2, 3, 4, 5}, acks.all()); diff != "" {
			t.Errorf("acknowledged (-want +got):\n%s", diff)
		}
		if len(s.held) > 0 || len(s.stalled) > 0 {
			t.Errorf("%d events and %d orders are kept after all was acknowledged", len(s.held), len(s.stalled))
		}
	})
}

// What waits behind a failed event stays with the broker when the subscription
// ends, as does what was settled before its time.
func TestEndedSubscriptionLeavesWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, _, acks := connectedTransport(t, 64)
		ended := subscriptionTo(brokers.ToCluster)
		tr.add(ended)
		for n := 1; n <= 3; n++ {
			tr.receive(about(t, n, "nginx"))
		}
		held := wantHanded(t, "at first", tr, ended, "1", "2", "3")
		held[1].Done(nil)
		held[0].Done(errors.New("disk full"))
		tr.remove(ended)
		later(longestPause)

		next := subscriptionTo(brokers.ToCluster)
		tr.add(next)
		for _, d := range wantHanded(t, "to the next subscription", tr, next, "1", "2", "3") {
			d.Done(nil)
		}
		synctest.Wait()
		if diff := cmp.Diff([]int{1, 2, 3}, acks.all()); diff != "" {
			t.Errorf("acknowledged (-want +got):\n%s", diff)
		}
	})
}
