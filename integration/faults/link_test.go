package faults

import (
	"context"
	"encoding/json"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/stream"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/rs/zerolog"
)

// A link is the network between one program and the servers it talks to, one
// proxy for each. It has one fault at a time.
type link struct {
	t       testing.TB
	proxies []*toxiproxy.Proxy
}

// Directions of a fault, as the program sees them.
const (
	outward = "upstream"
	inward  = "downstream"
)

var registerToxics = sync.OnceFunc(func() {
	toxics.Register("stall", &stall{})
	toxics.Register("forget", &forget{})
})

// newLink listens on ports of its own for each server.
func newLink(t testing.TB, servers ...string) *link {
	t.Helper()
	registerToxics()
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	l := &link{t: t}
	for _, server := range servers {
		p := toxiproxy.NewProxy(api, server, freeAddress(t), server)
		if err := p.Start(); err != nil {
			t.Fatalf("proxy in front of %s: %v", server, err)
		}
		t.Cleanup(p.Stop)
		l.proxies = append(l.proxies, p)
	}
	return l
}

// hosts is what a broker's URL has for its host.
func (l *link) hosts() string {
	all := make([]string, 0, len(l.proxies))
	for _, p := range l.proxies {
		all = append(all, p.Listen)
	}
	return strings.Join(all, ",")
}

// cut closes all connections and refuses new ones, and says so to both ends.
func (l *link) cut() {
	l.t.Helper()
	l.clear()
	for _, p := range l.proxies {
		p.Stop()
	}
}

// freeze is a network that loses every packet of a direction: nobody is told,
// connections stay, and what is still wanted when it ends arrives then.
func (l *link) freeze(directions ...string) {
	l.t.Helper()
	l.clear()
	for _, d := range directions {
		l.add("stall", d, nil)
	}
}

// forget is what a middlebox does that drops its table: connections that there
// are get nothing through any more and nobody is told, new ones work.
func (l *link) forget() {
	l.t.Helper()
	l.clear()
	// Connections begin at this moment at the latest: state is made when the
	// fault begins for those that are there.
	before := time.Now().Add(50 * time.Millisecond).UnixNano()
	for _, d := range []string{outward, inward} {
		l.add("forget", d, map[string]any{"before": before})
	}
}

// slow delays everything by latency, give or take half of it, and lets through
// so many bytes per second in each direction.
func (l *link) slow(latency time.Duration, bytesPerSecond int) {
	l.t.Helper()
	l.clear()
	for _, d := range []string{outward, inward} {
		l.add("latency", d, map[string]any{"latency": latency.Milliseconds(), "jitter": latency.Milliseconds() / 2})
		l.add("bandwidth", d, map[string]any{"rate": max(1, bytesPerSecond/1000)})
	}
}

// heal ends the fault.
func (l *link) heal() {
	l.t.Helper()
	l.clear()
	for _, p := range l.proxies {
		if p.Enabled {
			continue
		}
		if err := p.Start(); err != nil {
			l.t.Fatalf("proxy in front of %s: %v", p.Upstream, err)
		}
	}
}

// flap is up and down in turn, so many times, and ends up.
func (l *link) flap(times int, up, down time.Duration) {
	l.t.Helper()
	for range times {
		l.cut()
		<-time.After(down)
		l.heal()
		<-time.After(up)
	}
}

func (l *link) clear() {
	for _, p := range l.proxies {
		p.Toxics.ResetToxics(context.Background())
	}
}

func (l *link) add(kind, direction string, attributes map[string]any) {
	l.t.Helper()
	if attributes == nil {
		attributes = map[string]any{}
	}
	body, err := json.Marshal(map[string]any{"type": kind, "name": kind + direction, "stream": direction, "toxicity": 1, "attributes": attributes})
	if err != nil {
		l.t.Fatal(err)
	}
	for _, p := range l.proxies {
		if _, err := p.Toxics.AddToxicJson(strings.NewReader(string(body))); err != nil {
			l.t.Fatalf("add %s to the proxy in front of %s: %v", kind, p.Upstream, err)
		}
	}
}

// stall keeps what it is given until it is removed. Of a connection that its
// sender has given up by then nothing arrives: its packets would find no one.
type stall struct{}

func (*stall) Pipe(stub *toxics.ToxicStub) {
	var kept []*stream.StreamChunk
	over := false
	input := stub.Input
	for {
		select {
		case <-stub.Interrupt:
			if over {
				stub.Close()
				return
			}
			for _, c := range kept {
				// Whoever should read may have gone while nothing passed.
				if err := stub.WriteOutput(c, time.Second); err != nil {
					return
				}
			}
			return
		case c := <-input:
			if c == nil {
				over, input = true, nil
				continue
			}
			kept = append(kept, c)
		}
	}
}

// forget lets nothing through of connections from before a moment, not even
// that they end.
type forget struct {
	Before int64 `json:"before"` // In nanoseconds since 1970.
}

// NewState implements toxics.StatefulToxic: it is asked when a connection begins.
func (*forget) NewState() any { return time.Now().UnixNano() }

func (f *forget) Pipe(stub *toxics.ToxicStub) {
	begun, ok := stub.State.(int64)
	if !ok || begun > f.Before {
		new(toxics.NoopToxic).Pipe(stub)
		return
	}
	input := stub.Input
	for {
		select {
		case <-stub.Interrupt:
			return
		case c := <-input:
			if c == nil {
				input = nil
			}
		}
	}
}

// Cleanup implements toxics.CleanupToxic: what was forgotten ends with the
// fault, since bytes of it are missing.
func (f *forget) Cleanup(stub *toxics.ToxicStub) {
	if begun, ok := stub.State.(int64); ok && begun <= f.Before {
		stub.Close()
	}
}

// TestLink holds the proxy to what the cases take for granted of each fault.
func TestLink(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	accepted := make(chan net.Conn, 10)
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	l := newLink(t, server.Addr().String())
	dial := func() (client, served net.Conn) {
		t.Helper()
		c, err := net.Dial("tcp", l.hosts())
		if err != nil {
			t.Fatal(err)
		}
		s := <-accepted
		t.Cleanup(func() { _, _ = c.Close(), s.Close() })
		return c, s
	}
	send := func(c net.Conn, text string) {
		t.Helper()
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	gets := func(c net.Conn, want string) {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(patience))
		b := make([]byte, len(want))
		for n := 0; n < len(b); {
			m, err := c.Read(b[n:])
			if err != nil {
				t.Fatalf("read %q, then: %v", b[:n], err)
			}
			n += m
		}
		if string(b) != want {
			t.Fatalf("read %q, want %q", b, want)
		}
	}
	ended := func(c net.Conn) {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if n, err := c.Read(make([]byte, 1)); err == nil || n > 0 {
			t.Fatal("something came over a connection that should have ended")
		}
	}

	// A freeze of one direction holds that one back, and loses nothing.
	c, s := dial()
	send(c, "a")
	gets(s, "a")
	l.freeze(outward)
	send(c, "b")
	send(s, "c")
	gets(c, "c")
	l.heal()
	gets(s, "b")

	// What was given up during a freeze never arrives.
	l.freeze(outward, inward)
	send(c, "d")
	_ = c.Close()
	// The proxy has seen the end of it when it has it of a connection after it.
	l.heal()

	// A forgotten connection is dead, a new one is not.
	c, s = dial()
	l.forget()
	tick := time.NewTicker(100 * time.Millisecond)
	<-tick.C
	tick.Stop()
	send(c, "e")
	c2, s2 := dial()
	send(c2, "f")
	gets(s2, "f")
	l.heal()
	ended(s)

	// A cut ends connections and refuses new ones.
	l.cut()
	ended(c2)
	if c, err := net.Dial("tcp", l.hosts()); err == nil {
		_ = c.Close()
		t.Fatal("a cut link takes connections")
	}
	l.heal()
	c, s = dial()
	send(c, "g")
	gets(s, "g")
}
