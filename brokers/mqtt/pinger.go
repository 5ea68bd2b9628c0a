package mqtt

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/log"
)

// A pulse notes when the network last brought anything, for a pinger.
type pulse struct {
	net.Conn
	begun time.Time
	last  atomic.Int64 // A time.Duration since then.
}

func newPulse(c net.Conn) *pulse { return &pulse{Conn: c, begun: time.Now()} }

func (p *pulse) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if n > 0 {
		p.last.Store(int64(time.Since(p.begun)))
	}
	return n, err
}

func (p *pulse) heard() time.Time { return p.begun.Add(time.Duration(p.last.Load())) }

// A pinger asks for a sign of life when there was none for the keepalive, as
// paho's own does, and gives the connection up when none comes for as long again.
// Paho's takes nothing but a PINGRESP for one, and asks at once: on a link that
// takes longer than the keepalive to bring what waits in front of that, each
// connection is given up, and the next begins with the same. Here every byte
// from the broker counts. What it can bring counts on the other side: a broker
// hangs up on who sent it no packet for one and a half times the keepalive
// (MQTT 5, section 3.1.2.10).
type pinger struct {
	mu   sync.Mutex
	sent time.Time // The last packet, as far as paho knows.
}

var _ paho.Pinger = (*pinger)(nil)

// Run implements paho.Pinger for a connection that dial made.
func (p *pinger) Run(ctx context.Context, c net.Conn, keepalive uint16) error {
	own, ok := c.(*conn)
	if !ok {
		return fmt.Errorf("ping over a %T, which tells no sign of life", c)
	}
	interval := time.Duration(keepalive) * time.Second
	if interval == 0 {
		return nil // The broker wants no pings.
	}
	p.PacketSent()
	written := make(chan error, 1)
	writing := false
	var asked time.Time // Without a sign of life since; zero if there was one.
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-written:
			if writing = false; err != nil {
				return fmt.Errorf("send PINGREQ: %w", err)
			}
			continue
		case <-timer.C:
		}
		now, heard := time.Now(), own.pulse.heard()
		if !heard.Before(asked) {
			asked = time.Time{}
		}
		due := p.lastSent()
		if heard.Before(due) {
			due = heard
		}
		due = due.Add(interval)
		switch {
		case !asked.IsZero() && now.Sub(asked) >= interval:
			return fmt.Errorf("nothing came from the broker for %s", now.Sub(heard).Round(time.Second))
		case !asked.IsZero():
			timer.Reset(asked.Add(interval).Sub(now))
		case now.Before(due):
			timer.Reset(due.Sub(now))
		default:
			asked = now
			p.PacketSent()
			timer.Reset(interval)
			if writing {
				continue // The one before is still on its way out.
			}
			writing = true
			go func() {
				// On a slow link it may wait for its turn. The end of the connection
				// ends that.
				_, err := packets.NewControlPacket(packets.PINGREQ).WriteTo(c)
				written <- err
			}()
		}
	}
}

func (p *pinger) lastSent() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

// PacketSent implements paho.Pinger.
func (p *pinger) PacketSent() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = time.Now()
}

// PacketReceived implements paho.Pinger. The pulse knows earlier.
func (p *pinger) PacketReceived() {}

// PingResp implements paho.Pinger. The pulse knows earlier.
func (p *pinger) PingResp() {}

// SetDebug implements paho.Pinger.
func (p *pinger) SetDebug(log.Logger) {}
