package mqtt

import (
	"strings"
	"testing"
	"time"
)

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
	for _, least := range []time.Duration{takenOverFirst, 2 * takenOverFirst, 4 * takenOverFirst, 8 * takenOverFirst, 16 * takenOverFirst, takenOverMost, takenOverMost} {
		p.up(now)
		p.takenOver(now.Add(2 * takenOverFirst))
		if d := p.next(now); d < least || d > 2*least+longestPause {
			t.Errorf("after the session was taken over again it waits %s, want at least %s", d, least)
		}
	}
	p.up(now)
	p.takenOver(now.Add(takenOverMost))
	if d := p.next(now); d > 2*takenOverFirst+longestPause {
		t.Errorf("after the session was taken over once in a long time it waits %s", d)
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

func TestPacerCut(t *testing.T) {
	now := time.Now()
	var p pacer
	p.next(now)
	cut := func(after time.Duration) time.Duration {
		p.up(now)
		now = now.Add(after)
		return p.cut(now)
	}
	for range 100 {
		cut(time.Second)
		if d := cut(steady); d != 0 {
			t.Fatalf("connections that are cut short now and then are waited for %s", d)
		}
		cut(time.Second)
		p.unreachable()
	}
	for n := range cutsToSuspect - 1 {
		if d := cut(time.Second); d != 0 {
			t.Fatalf("after %d connections that were cut short it waits %s", n+1, d)
		}
	}
	// Once there is another client, it comes back after its own pause.
	longest := 2*takenOverFirst + longestPause
	for _, after := range []time.Duration{time.Second, time.Second, 2 * steady, longest, longest, time.Second} {
		d := cut(after)
		if d < takenOverFirst || d > 2*takenOverFirst {
			t.Errorf("another client is given %s", d)
		}
		if next := p.next(now); next < d {
			t.Errorf("the next connection is after %s, want %s at least", next, d)
		}
	}
	// Nobody wanted the session for longer than that.
	for _, after := range []time.Duration{unshared, time.Second, time.Second, unshared, 29 * time.Minute} {
		if d := cut(after); d != 0 {
			t.Errorf("a connection that was cut after %s is waited for %s, as if there were another client", after, d)
		}
	}
	for range cutsToSuspect {
		cut(time.Second)
	}
	p.next(now)
	p.up(now)
	now = now.Add(unshared)
	p.next(now) // It ended in another way.
	if d := cut(time.Second); d != 0 {
		t.Errorf("a cut some time after a good connection is waited for %s", d)
	}
	if longest >= unshared {
		t.Errorf("a client that gives another one %s takes it for gone", longest)
	}
}

// TestPacersInTurns: of two clients that take a session from each other one
// leaves it to the other again and again, for as long as both are there.
func TestPacersInTurns(t *testing.T) {
	now := time.Now()
	var pacers [2]pacer
	for i := range pacers {
		pacers[i].next(now)
	}
	pacers[0].up(now)
	var held [2]time.Duration // By the last two connections.
	for turn := range 1000 {
		holder, comes := turn%2, (turn+1)%2
		pacers[comes].up(now)
		pacers[holder].cut(now)
		held[turn%2] = pacers[holder].next(now)
		now = now.Add(held[turn%2])
		if turn > 4*cutsToSuspect && held[0] < takenOverFirst && held[1] < takenOverFirst {
			t.Fatalf("in turn %d the session is held for %s, and was for %s before", turn, held[turn%2], held[(turn+1)%2])
		}
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
