package raw

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// NATS sends n events of so many bytes through a stream on files at url, each to
// one of subjects in turn, and receives them over one consumer that acknowledges.
func NATS(ctx context.Context, url string, subjects []string, n, size int) (Rate, error) {
	conn, err := nats.Connect(url)
	if err != nil {
		return Rate{}, fmt.Errorf("connect to %s: %w", url, err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(window))
	if err != nil {
		return Rate{}, err
	}
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "raw", Subjects: subjects, Storage: jetstream.FileStorage, MaxBytes: 1 << 30})
	if err != nil {
		return Rate{}, fmt.Errorf("create a stream: %w", err)
	}
	defer func() { _ = js.DeleteStream(context.WithoutCancel(ctx), "raw") }() // It holds nothing that anybody wants.
	consumer, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: window})
	if err != nil {
		return Rate{}, fmt.Errorf("create a consumer: %w", err)
	}
	rate, began := Rate{Events: n, Size: size}, time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		payload := make([]byte, size)
		for i := range n {
			if _, err := js.PublishAsync(subjects[i%len(subjects)], payload, jetstream.WithStallWait(time.Minute)); err != nil {
				return fmt.Errorf("publish: %w", err)
			}
		}
		select {
		case <-js.PublishAsyncComplete():
		case <-ctx.Done():
			return fmt.Errorf("wait for confirmations: %w", ctx.Err())
		}
		rate.Published = since(began)
		return nil
	})
	group.Go(func() error {
		messages, err := consumer.Messages(jetstream.PullMaxMessages(window))
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		defer messages.Stop()
		defer context.AfterFunc(ctx, messages.Stop)()
		for i := range n {
			m, err := messages.Next()
			if err != nil {
				return fmt.Errorf("receive event %d of %d: %w", i+1, n, err)
			}
			if err := m.Ack(); err != nil {
				return fmt.Errorf("acknowledge: %w", err)
			}
		}
		rate.Received = since(began)
		return nil
	})
	return rate, group.Wait()
}
