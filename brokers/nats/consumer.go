package nats

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetcast-io/fleetcast/brokers"
)

const (
	// ackWait is when the server delivers again what is not settled. A
	// redelivery of what the subscriber still holds is not handed over, so this
	// bounds only how long a crash of this process delays its events.
	ackWait = 30 * time.Second
	// inactive is how long the server keeps the consumer of an agent that is
	// away. One that starts from a position of its own needs it for nothing, and
	// its end tells sources that the agent is gone.
	inactive         = 10 * time.Minute
	inactivePosition = 90 * time.Second
	// sourceUnsettled bounds the unsettled reports of a source.
	sourceUnsettled = 2048

	// prefetch bounds what the client holds in memory before it is handled.
	prefetch = 128

	// A pull request that stays without a sign of life from the server for two
	// heartbeats has lost its consumer.
	pullExpiry    = 30 * time.Second
	pullHeartbeat = 5 * time.Second

	// replicaLag is longer than a replica needs to catch up, as a rule.
	replicaLag = time.Second

	// filtersKey is where a consumer records what it was made for.
	filtersKey = "fleetcast.filters"
)

// A consumer delivers the events of one stored lane to one subscription.
type consumer struct {
	t       *transport
	nc      *natsgo.Conn
	pull    jetstream.Consumer
	filters []brokers.Filter
	// place is what positions have in common; its stream is empty where
	// positions make no sense.
	place position
	held  *held
	kept  bool // By the server, for whoever asks for it by name.
}

// consumerName is what the server knows the consumer of some filters of one
// lane by. That of an agent's own cluster, and of a source's own reports, can
// be told from the identity alone, so that it can be authorised.
func consumerName(c brokers.Config, f brokers.Filter, filters []brokers.Filter) string {
	own := c.Role == brokers.RoleAgent && f.Lane == brokers.ToCluster && f.Cluster == c.Name ||
		c.Role == brokers.RoleSource && f.Lane == brokers.ToSource && f.Source == c.Name
	if own {
		return assetName(c)
	}
	return assetName(c) + "-" + digest(filters)
}

// digest tells sets of filters apart.
func digest(filters []brokers.Filter) string {
	lines := make([]string, 0, len(filters))
	for _, f := range filters {
		lines = append(lines, fmt.Sprintf("%d %q %q", f.Lane, f.Source, f.Cluster))
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(lines), "\n")))
	return hex.EncodeToString(sum[:6])
}

// consumerConfig is how the consumer of a subscription is made.
func (s *subscription) consumerConfig(name string, filters []brokers.Filter) jetstream.ConsumerConfig {
	cfg := jetstream.ConsumerConfig{
		Name:          name,
		FilterSubject: pattern(s.t.settings.prefix, cover(filters)),
		DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       ackWait,
		MaxDeliver:    -1,
		MaxAckPending: sourceUnsettled,
		Metadata:      map[string]string{filtersKey: digest(filters), instanceKey: s.t.instance},
	}
	if s.t.config.Role == brokers.RoleAgent {
		cfg.MaxAckPending = s.t.settings.window
	}
	if s.t.config.Role == brokers.RoleSource && s.Resume == nil {
		cfg.Durable = name
		return cfg
	}
	// There may be one of these for each of many thousand clusters. A
	// replicated one would be a Raft group of its own.
	cfg.MemoryStorage = true
	cfg.Replicas = 1
	cfg.InactiveThreshold = inactive
	if s.Resume != nil {
		cfg.InactiveThreshold = inactivePosition
	}
	return cfg
}

// openConsumer makes or finds the consumer for filters of one lane, and says
// whether it goes on where the subscriber left off.
func (s *subscription) openConsumer(ctx context.Context, l *link, filters []brokers.Filter) (*consumer, bool, error) {
	lane := filters[0].Lane
	stream := s.t.settings.stream(lane)
	identity, err := s.t.identify(ctx, l.nc, lane)
	if err != nil {
		return nil, false, err
	}
	cfg := s.consumerConfig(s.name(lane, filters), filters)
	c := &consumer{t: s.t, nc: l.nc, filters: filters}
	if identity != "" {
		c.place.stream = identity + "/" + digest(filters)
	}
	var resumed bool
	if s.Resume != nil {
		resumed, err = s.fromPosition(ctx, l, c, &cfg)
	} else {
		resumed, err = s.fromServer(ctx, l, c, cfg)
	}
	if err != nil {
		return nil, false, fmt.Errorf("consumer %s of stream %s: %w", cfg.Name, stream, err)
	}
	s.places[lane] = c.place.stream
	s.mine[lane] = true
	return c, resumed, nil
}

// fromPosition makes the consumer anew, so that it starts after the position
// that the subscriber keeps, with nothing of what it delivered in vain before.
func (s *subscription) fromPosition(ctx context.Context, l *link, c *consumer, cfg *jetstream.ConsumerConfig) (bool, error) {
	lane := c.filters[0].Lane
	stream := s.t.settings.stream(lane)
	if err := s.checkTakeover(ctx, l, lane, cfg.Name); err != nil {
		return false, err
	}
	resumed := false
	if kept := s.Resume(); kept != "" {
		p, err := parsePosition(kept)
		switch {
		case err != nil:
			s.t.log.Warn("starting from the beginning of the stream", "stream", stream, "reason", err)
		case p.stream != c.place.stream:
			s.t.log.Info("starting from the beginning of the stream: it is another one than before, or for other sources", "stream", stream)
		default:
			if resumed, err = s.reaches(ctx, l, lane, cfg.FilterSubject, p.sequence); err != nil {
				return false, err
			}
			if resumed {
				cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, p.sequence+1
			}
		}
	}
	if err := s.deleteConsumer(ctx, l, stream, cfg.Name); err != nil {
		return false, err
	}
	c.held = s.newHeld(lane)
	ctx, done := s.t.api(ctx, join("$JS.API.CONSUMER.CREATE", stream, cfg.Name, cfg.FilterSubject))
	defer done()
	var err error
	// It is never shared: if another process was faster, this fails.
	if c.pull, err = l.js.CreateConsumer(ctx, stream, *cfg); err != nil {
		return false, fmt.Errorf("create: %w", cause(ctx, noStream(err, stream)))
	}
	return resumed, nil
}

// reaches says whether the stream still has what a position refers to, or
// something newer. A server that lost the end of its log, or was restored from
// a backup, counts from an earlier sequence. A replica that lags behind may seem
// to, so it is asked twice.
func (s *subscription) reaches(ctx context.Context, l *link, lane brokers.Lane, pattern string, sequence uint64) (bool, error) {
	for attempt := 1; ; attempt++ {
		last, err := s.t.last(ctx, l.nc, lane, pattern)
		if err != nil {
			return false, err
		}
		if last != nil {
			found, err := strconv.ParseUint(last.Get(sequenceHeader), 10, 64)
			if err != nil {
				return false, fmt.Errorf("read sequence of stream %s: %w", s.t.settings.stream(lane), err)
			}
			if found >= sequence {
				return true, nil
			}
		}
		if attempt == 2 {
			s.t.log.Info("starting from the beginning of the stream: it has lost its end, or forgotten the deletion that was read last",
				"stream", s.t.settings.stream(lane))
			return false, nil
		}
		pause(ctx, replicaLag)
	}
}

// fromServer continues with the consumer that the server keeps, if there is one.
func (s *subscription) fromServer(ctx context.Context, l *link, c *consumer, cfg jetstream.ConsumerConfig) (bool, error) {
	lane := c.filters[0].Lane
	stream := s.t.settings.stream(lane)
	c.kept = true
	found, err := s.findConsumer(ctx, l, stream, cfg.Name)
	if err != nil {
		return false, err
	}
	// A stream that is the same delivers all that it has to a new consumer, so
	// nothing is missed.
	resumed := c.place.stream != "" && s.places[lane] == c.place.stream
	if found != nil {
		have := found.CachedInfo().Config
		if have.FilterSubject == cfg.FilterSubject && have.Metadata[filtersKey] == cfg.Metadata[filtersKey] && have.MaxAckPending == cfg.MaxAckPending {
			if c.pull, err = s.adopt(ctx, l, lane, found); err != nil {
				return false, err
			}
			c.held = s.keptHeld(lane, found.CachedInfo().Created)
			c.held.resend()
			return true, nil
		}
		if err := s.deleteConsumer(ctx, l, stream, cfg.Name); err != nil {
			return false, err
		}
	}
	c.pull, err = s.createConsumer(ctx, l, stream, cfg)
	if err != nil {
		return false, err
	}
	c.held = s.keptHeld(lane, c.pull.CachedInfo().Created)
	return resumed, nil
}

func (s *subscription) findConsumer(ctx context.Context, l *link, stream, name string) (jetstream.Consumer, error) {
	ctx, done := s.t.api(ctx, join("$JS.API.CONSUMER.INFO", stream, name))
	defer done()
	c, err := l.js.Consumer(ctx, stream, name)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("find: %w", cause(ctx, noStream(err, stream)))
	}
	return c, nil
}

func (s *subscription) deleteConsumer(ctx context.Context, l *link, stream, name string) error {
	ctx, done := s.t.api(ctx, join("$JS.API.CONSUMER.DELETE", stream, name))
	defer done()
	err := l.js.DeleteConsumer(ctx, stream, name)
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("delete: %w", cause(ctx, noStream(err, stream)))
	}
	return nil
}

func (s *subscription) createConsumer(ctx context.Context, l *link, stream string, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	ctx, done := s.t.api(ctx, join("$JS.API.CONSUMER.CREATE", stream, cfg.Name, cfg.FilterSubject))
	defer done()
	c, err := l.js.CreateOrUpdateConsumer(ctx, stream, cfg)
	if err != nil {
		return nil, fmt.Errorf("create: %w", cause(ctx, noStream(err, stream)))
	}
	return c, nil
}

// api bounds a request to the server, and ends it when the server refuses it.
func (t *transport) api(ctx context.Context, subject string) (context.Context, func()) {
	ctx, done := t.refusals.guard(ctx, subject)
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	return ctx, func() {
		cancel()
		done()
	}
}

// noStream adds errNoStream to what the server and the client say for it.
func noStream(err error, stream string) error {
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("%w: %s", errNoStream, stream)
	}
	return err
}

// feed hands events to out until ctx ends, and then returns nil, or until the
// consumer is lost.
func (c *consumer) feed(ctx context.Context, out chan<- brokers.Delivery) error {
	messages, err := c.pull.Messages(
		jetstream.PullMaxMessages(min(prefetch, c.pull.CachedInfo().Config.MaxAckPending)),
		jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullHeartbeat),
	)
	if err != nil {
		return fmt.Errorf("pull from %s: %w", c.pull.CachedInfo().Name, err)
	}
	defer c.release(messages)
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if ctx.Err() != nil {
			if err == nil {
				giveBack(m)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("consumer %s was lost: %w", c.pull.CachedInfo().Name, err)
		}
		d, ok := c.accept(m)
		if !ok {
			continue
		}
		select {
		case out <- d:
		case <-ctx.Done():
			d.Done(errNotHandled)
			return nil
		}
	}
}

var errNotHandled = errors.New("subscription ended before the event was handled")

// release gives back what the client has and the subscriber never saw, so that
// the server need not wait for it. Without a connection that is done when
// there is one again.
func (c *consumer) release(messages jetstream.MessagesContext) {
	defer messages.Stop()
	if c.nc.IsConnected() {
		messages.Drain()
		ctx, cancel := context.WithTimeout(c.t.ctx, time.Second)
		defer cancel()
		for {
			m, err := messages.Next(jetstream.NextContext(ctx))
			if err != nil {
				return
			}
			giveBack(m)
		}
	}
	for {
		m, err := messages.Next(jetstream.NextMaxWait(10 * time.Millisecond))
		if err != nil {
			return
		}
		c.held.leave(m)
	}
}

// giveBack fails only without a connection, and then the server finds out by
// itself that the message was not settled.
func giveBack(m jetstream.Msg) { _ = m.Nak() }

// accept turns a message into a delivery, unless it is none for the subscriber.
func (c *consumer) accept(m jetstream.Msg) (brokers.Delivery, bool) {
	meta, err := m.Metadata()
	if err != nil {
		c.t.log.Warn("message without JetStream metadata ignored", "subject", m.Subject(), "err", err)
		return brokers.Delivery{}, false
	}
	from, err := topic(c.t.settings.prefix, m.Subject())
	if err != nil {
		c.discard(m, dropTopic, err)
		return brokers.Delivery{}, false
	}
	if !matches(c.filters, from) {
		_ = m.Ack()
		return brokers.Delivery{}, false
	}
	e, err := parse(m.Headers(), m.Data())
	if err != nil {
		c.discard(m, dropInvalid, err)
		return brokers.Delivery{}, false
	}
	if !c.held.add(meta.Sequence.Stream, m) {
		return brokers.Delivery{}, false
	}
	received.Inc()
	var p position
	// A question is gone in a while. Its place would then seem to be behind the
	// end of what the stream has for this subscriber.
	if !isQuestion(e) {
		p = c.place
		p.sequence = meta.Sequence.Stream
	}
	settled := c.held
	return brokers.NewDelivery(from, e, p.String(), func(err error) { settled.settle(meta.Sequence.Stream, err) }), true
}

// discard drops for good what is no event of ours.
func (c *consumer) discard(m jetstream.Msg, reason string, err error) {
	c.t.discard(m.Subject(), reason, err)
	_ = m.Term()
}

func matches(filters []brokers.Filter, t brokers.Topic) bool {
	return slices.ContainsFunc(filters, func(f brokers.Filter) bool { return f.Matches(t) })
}
