package mqtt

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
)

// connectTimeout bounds everything up to the broker's CONNACK.
const connectTimeout = 20 * time.Second

// A conn is a network connection that makes few system calls, and that reads
// no packet larger than was announced to the broker. Paho reads a packet's
// header byte by byte, allocates whatever it says, and writes a packet in four
// pieces; around these it holds the lock of a connection that has one.
type conn struct {
	net.Conn

	pulse  *pulse
	in     *bufio.Reader
	header header
	// ended says that the broker closed the connection.
	ended atomic.Bool

	mu sync.Mutex
	// waiting counts those about to write, of whom the last sends everything.
	waiting atomic.Int32
	out     *bufio.Writer
}

// newConn is over c, which is raw or has it below, as TLS does.
func newConn(c net.Conn, raw *pulse, buffer, maxPacket int) *conn {
	return &conn{
		Conn:   c,
		pulse:  raw,
		in:     bufio.NewReaderSize(c, buffer),
		out:    bufio.NewWriterSize(c, buffer),
		header: header{limit: maxPacket},
	}
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	if err := c.header.check(p[:n]); err != nil {
		return 0, err
	}
	// TLS calls it unexpected when the broker says no goodbye there.
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		c.ended.Store(true)
	}
	return n, err
}

// Write must be called with the lock held.
func (c *conn) Write(p []byte) (int, error) { return c.out.Write(p) }

func (c *conn) Lock() {
	c.waiting.Add(1)
	c.mu.Lock()
}

func (c *conn) Unlock() {
	if c.waiting.Add(-1) == 0 {
		if err := c.out.Flush(); err != nil {
			// Whoever wrote has no way to learn it, so the reader must.
			_ = c.Close()
		}
	}
	c.mu.Unlock()
}

// A header follows a stream of packets by their fixed headers.
type header struct {
	limit int

	inLength bool
	length   int
	shift    int
	// body is how much of a packet is still to come.
	body int
}

// check follows the next bytes of the stream.
func (h *header) check(p []byte) error {
	for len(p) > 0 {
		switch {
		case h.body > 0:
			n := min(h.body, len(p))
			h.body -= n
			p = p[n:]
		case !h.inLength: // Type and flags.
			h.inLength, h.length, h.shift = true, 0, 0
			p = p[1:]
		default:
			h.length |= int(p[0]&0x7f) << h.shift
			h.shift += 7
			if last := p[0] < 0x80; last {
				h.inLength, h.body = false, h.length
			} else if h.shift == 28 {
				return errors.New("the broker sent a packet length of more than four bytes")
			}
			if size := 1 + h.shift/7 + h.length; size > h.limit {
				return fmt.Errorf("the broker sent a packet of %d bytes or more, over the %d that it was told to keep to", size, h.limit)
			}
			p = p[1:]
		}
	}
	return nil
}

// dial connects to the broker.
func (t *transport) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	// A source has many peers, an agent shares its machine with the cluster's
	// work.
	buffer := 64 << 10
	if t.config.Role == brokers.RoleAgent {
		buffer = 4 << 10
	}
	dialed, err := (&net.Dialer{}).DialContext(ctx, "tcp", t.address)
	if err != nil {
		return nil, err
	}
	raw := newPulse(dialed)
	c := net.Conn(raw)
	if t.tls {
		config, err := t.credentials.tlsConfig(t.host)
		if err != nil {
			_ = c.Close()
			return nil, err
		}
		secure := tls.Client(c, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = c.Close()
			return nil, fmt.Errorf("TLS handshake: %w", err)
		}
		c = secure
	}
	return newConn(c, raw, buffer, t.maxPacket), nil
}
