package sources_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/memory"
)

// picky is a source that cannot, or may not, give some works away.
type picky struct {
	*memory.Source

	mu  sync.Mutex
	err map[string]error // By ID.
}

func (s *picky) set(id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = map[string]error{id: err}
}

func (s *picky) Bundle(ctx context.Context, k sources.Key) (codec.Bundle, bool, error) {
	b, held, err := s.Source.Bundle(ctx, k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if why := s.err[k.ID]; why != nil {
		return codec.Bundle{Generation: b.Generation}, false, why
	}
	return b, held, err
}

func (s *picky) Held(ctx context.Context, cluster string) ([]sources.Held, error) {
	held, err := s.Source.Held(ctx, cluster)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range held {
		held[i].Withheld = errors.Is(s.err[held[i].ID], sources.ErrWithheld)
	}
	return held, err
}

func TestWhatIsNotSentIsExcused(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		err    error
	}{
		"withheld": {"a deletion waits for its confirmation", fmt.Errorf("breaker: %w", sources.ErrWithheld)},
		"refused":  {"the newest state cannot be sent", fmt.Errorf("encode: %w", codec.ErrMetadataTooLarge)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, f := &picky{Source: memory.New(sourceID)}, &fakeTransport{}
				d := run(t, src, f, sources.Options{})
				src.Notify(d.Changed)
				f.ready()
				a := newScripted(t, f, "c1")
				a.takes(put(t, src.Source, "c1", "w"))
				a.syncs()
				src.set(id("c1", "w"), tc.err)
				gone := remove(t, src.Source, "c1", "w")
				pass(time.Second)
				a.talk()
				expectTalk(t, tc.reason+", and the cluster is in sync", a.talk(), "match, 0 unclaimed")
				// The reason goes away; nothing of the work changes.
				src.set("", nil)
				d.Changed(sources.Key{Cluster: "c1", ID: gone.ID})
				pass(time.Second)
				expectTalk(t, "now it is sent", a.talk(), "differs", gone.ID+"@2 deleted")
			})
		})
	}
}

// TestConfirmedWhileAway: the deletion is withheld, its cluster goes away, and
// it is confirmed. The cluster gets it when it returns.
func TestConfirmedWhileAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := &picky{Source: memory.New(sourceID)}, &fakeTransport{}
		d := run(t, src, f, sources.Options{})
		src.Notify(d.Changed)
		f.ready()
		a := newScripted(t, f, "c1")
		a.takes(put(t, src.Source, "c1", "w"))
		a.syncs()
		src.set(id("c1", "w"), sources.ErrWithheld)
		gone := remove(t, src.Source, "c1", "w")
		pass(time.Second)
		a.talk()
		a.beats(false)
		src.set("", nil)
		d.Changed(sources.Key{Cluster: "c1", ID: gone.ID})
		pass(time.Minute)
		expectTalk(t, "when it returns", a.talk(), "differs", gone.ID+"@2 deleted")
	})
}

// TestTooLargeIsExcusedForTheSession: another session may have other limits.
func TestTooLargeIsExcusedForTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := memory.New(sourceID)
		var small sync.Mutex
		limit := true
		f := &fakeTransport{publish: func(_ brokers.Topic, m codec.Message) error {
			small.Lock()
			defer small.Unlock()
			if _, ok := m.(codec.Bundle); ok && limit {
				return brokers.ErrTooLarge
			}
			return nil
		}}
		start(t, src, f, sources.Options{})
		a := newScripted(t, f, "c1")
		b := put(t, src, "c1", "w")
		pass(time.Second)
		a.talk()
		expectTalk(t, "what cannot be sent does not keep it from being in sync", a.talk(), "match, 0 unclaimed")
		small.Lock()
		limit = false
		small.Unlock()
		f.sub.Ready(brokers.Session{})
		pass(time.Second)
		expectTalk(t, "in another session", a.talk(), "differs", b.ID+"@1")
		a.syncs()
	})
}

// TestReportOnARefusedWork: the newest version cannot be sent, and what the
// cluster said of the version that it has got lost.
func TestReportOnARefusedWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := memory.New(sourceID), &fakeTransport{}
		f.publish = func(_ brokers.Topic, m codec.Message) error {
			if b, ok := m.(codec.Bundle); ok && b.Generation == 2 {
				return fmt.Errorf("%w: big", brokers.ErrTooLarge)
			}
			return nil
		}
		start(t, src, f, sources.Options{})
		b := put(t, src, "c1", "w")
		a := newScripted(t, f, "c1")
		a.syncs()
		a.reports(b)
		a.syncs()
		put(t, src, "c1", "w")
		pass(time.Minute)
		a.syncs()
		e := a.holds[b.ID]
		e.Status = "ab12"
		a.holds[b.ID] = e
		expectTalk(t, "its report is asked for", a.talk(), "differs", b.ID+" status?")
	})
}
