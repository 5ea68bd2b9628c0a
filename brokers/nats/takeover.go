package nats

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetcast-io/fleetcast/brokers"
)

const (
	// instanceKey is where a consumer records which process uses it.
	instanceKey = "fleetcast.instance"

	// Whoever lost its consumer to another process waits this long at least
	// before it takes it back, and ever longer if that goes on.
	takenOverFirst = time.Minute
	takenOverMost  = 30 * time.Minute
)

// errTakenOver is wrapped when another process has replaced the consumer of an
// established subscription.
var errTakenOver = errors.New("another process uses this identity")

// takenOverPause is how long to wait after being replaced n times. It is
// jittered, so that two processes that were started together do not keep pace.
func takenOverPause(n int) time.Duration {
	bound := takenOverMost
	if shift := max(n, 1) - 1; shift < 5 {
		bound = min(takenOverFirst<<shift, takenOverMost)
	}
	return bound + rand.N(bound)
}

// checkTakeover returns errTakenOver if the consumer of a lane was replaced by
// another process after this subscription had it. A process that was just
// started takes over at once: the consumer may be what it left behind itself.
func (s *subscription) checkTakeover(ctx context.Context, l *link, lane brokers.Lane, name string) error {
	if !s.mine[lane] {
		return nil
	}
	found, err := s.findConsumer(ctx, l, s.t.settings.stream(lane), name)
	if err != nil || found == nil || s.t.uses(found) {
		return err
	}
	// The next attempt, after a pause, takes it back.
	s.mine[lane] = false
	return errTakenOver
}

// uses says whether this process was the last to establish a consumer.
func (t *transport) uses(c jetstream.Consumer) bool {
	return c.CachedInfo().Config.Metadata[instanceKey] == t.instance
}

// giveWay waits so that another process with this identity can work meanwhile.
func (s *subscription) giveWay(ctx context.Context) {
	s.takeovers++
	wait := takenOverPause(s.takeovers)
	if s.takeovers == 1 {
		s.t.log.Warn("another process uses this cluster's identity and took over its consumer: stop it, or give it another --broker-client-id",
			"identity", s.t.config.Identity(), "trying_again_after", wait.Round(time.Second))
	}
	pause(ctx, wait)
}

// adopt records in a consumer that the server kept that this process uses it now.
func (s *subscription) adopt(ctx context.Context, l *link, lane brokers.Lane, found jetstream.Consumer) (jetstream.Consumer, error) {
	if s.t.uses(found) {
		return found, nil
	}
	if s.mine[lane] {
		s.tellShared(lane)
	}
	cfg := found.CachedInfo().Config
	cfg.Metadata = maps.Clone(cfg.Metadata)
	cfg.Metadata[instanceKey] = s.t.instance
	return s.createConsumer(ctx, l, s.t.settings.stream(lane), cfg)
}

// watchShared looks now and then whether another process has adopted the
// consumer. Each of the two gets some of the events only, and neither notices.
func (s *subscription) watchShared(ctx context.Context, l *link, lane brokers.Lane, name string) {
	check := time.NewTicker(checkInterval)
	defer check.Stop()
	for {
		select {
		case <-check.C:
		case <-ctx.Done():
			return
		}
		found, err := s.findConsumer(ctx, l, s.t.settings.stream(lane), name)
		if err == nil && found != nil && !s.t.uses(found) {
			s.tellShared(lane)
			return
		}
	}
}

func (s *subscription) tellShared(lane brokers.Lane) {
	if s.t.once("shared " + s.t.settings.stream(lane)) {
		s.t.log.Warn("another process uses this identity, and each gets some of the events only: stop it, or give it another identity",
			"identity", s.t.config.Identity(), "stream", s.t.settings.stream(lane))
	}
}
