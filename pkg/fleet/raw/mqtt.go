package raw

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"golang.org/x/sync/errgroup"
)

// MQTT sends n events of so many bytes through the broker at address, each to one
// of topics in turn, and receives them over one subscription.
func MQTT(ctx context.Context, address string, topics []string, n, size int) (Rate, error) {
	out, err := connect(ctx, address, "raw-publisher")
	if err != nil {
		return Rate{}, err
	}
	defer out.close()
	in, err := connect(ctx, address, "raw-subscriber")
	if err != nil {
		return Rate{}, err
	}
	defer in.close()
	if err := in.subscribe(topics); err != nil {
		return Rate{}, err
	}
	rate, began, free := Rate{Events: n, Size: size}, time.Now(), make(chan struct{}, window)
	group, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { out.close(); in.close() })()
	group.Go(func() error { return out.publish(ctx, topics, n, make([]byte, size), free) })
	group.Go(func() error { // Confirmations.
		for range n {
			if _, err := packets.ReadPacket(out.Reader); err != nil {
				return fmt.Errorf("read a confirmation: %w", err)
			}
			<-free
		}
		rate.Published = since(began)
		return nil
	})
	group.Go(func() error {
		err := in.receive(n)
		rate.Received = since(began)
		return err
	})
	return rate, group.Wait()
}

func (l *link) subscribe(topics []string) error {
	for i, topic := range topics {
		p := &packets.Subscribe{PacketID: uint16(i + 1), Properties: &packets.Properties{}, Subscriptions: []packets.SubOptions{{Topic: topic, QoS: 1}}}
		if err := errors.Join(l.write(p), l.Flush()); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
		if _, err := packets.ReadPacket(l.Reader); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
	}
	return nil
}

// publish waits for a place in free for each event.
func (l *link) publish(ctx context.Context, topics []string, n int, payload []byte, free chan<- struct{}) error {
	for i := range n {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		p := &packets.Publish{Topic: topics[i%len(topics)], QoS: 1, PacketID: uint16(i%60_000 + 1), Payload: payload, Properties: &packets.Properties{}}
		if err := l.write(p); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		if len(free) == cap(free) || i == n-1 {
			if err := l.Flush(); err != nil {
				return fmt.Errorf("publish: %w", err)
			}
		}
	}
	return nil
}

// receive acknowledges what it receives, all at once that has come.
func (l *link) receive(n int) error {
	for i := range n {
		packet, err := packets.ReadPacket(l.Reader)
		if err != nil {
			return fmt.Errorf("receive event %d of %d: %w", i+1, n, err)
		}
		if err := l.write(&packets.Puback{PacketID: packet.PacketID(), Properties: &packets.Properties{}}); err != nil {
			return fmt.Errorf("acknowledge: %w", err)
		}
		if l.Reader.Buffered() == 0 {
			if err := l.Flush(); err != nil {
				return fmt.Errorf("acknowledge: %w", err)
			}
		}
	}
	return nil
}

// A link is a connection with buffers.
type link struct {
	*bufio.Reader
	*bufio.Writer

	conn net.Conn
}

func connect(ctx context.Context, address, id string) (*link, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	const buffer = 64 << 10
	l := &link{bufio.NewReaderSize(c, buffer), bufio.NewWriterSize(c, buffer), c}
	most := uint16(window)
	hello := &packets.Connect{ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: id, CleanStart: true, Properties: &packets.Properties{ReceiveMaximum: &most}}
	err = errors.Join(l.write(hello), l.Flush())
	if err == nil {
		_, err = packets.ReadPacket(l.Reader)
	}
	if err != nil {
		l.close()
		return nil, fmt.Errorf("connect %s to %s: %w", id, address, err)
	}
	return l, nil
}

func (l *link) write(p packets.Packet) error {
	_, err := p.WriteTo(l.Writer)
	return err
}

func (l *link) close() { _ = l.conn.Close() }
