package sources

import (
	"context"
	"fmt"
	"testing"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

// A memo is a source that lists nothing and has an answer to each question in
// turn.
type memo struct {
	Source

	answers []func() (codec.Bundle, bool, error)
}

func (m *memo) Bundle(context.Context, Key) (codec.Bundle, bool, error) {
	answer := m.answers[0]
	m.answers = m.answers[1:]
	return answer()
}

func tombstone() (codec.Bundle, bool, error) { return codec.Bundle{ID: "w", Generation: 9}, true, nil }

func nothing() (codec.Bundle, bool, error) { return codec.Bundle{}, false, nil }

// TestTombstoneWrittenMeanwhile: the source learns of the deletion after it was
// asked, and says so before the work is excused.
func TestTombstoneWrittenMeanwhile(t *testing.T) {
	src, k := &memo{}, Key{"c1", "w"}
	d := NewDispatcher("hub1", src, nil, Options{})
	src.answers = []func() (codec.Bundle, bool, error){
		func() (codec.Bundle, bool, error) {
			d.unexcuse(k) // As Changed does.
			return nothing()
		},
		tombstone,
	}
	d.askSource(t.Context(), k, codec.Entry{ID: "w", Generation: 1})
	if n := len(d.peerLocked("c1").excuses); n > 0 || d.works.Len() != 1 {
		t.Errorf("%d excuses, %d works to publish; want only the deletion", n, d.works.Len())
	}
}

// TestTombstonesCountAmongManyUnclaimedWorks: however many works the source does
// not know, the deletion of one that it does is published.
func TestTombstonesCountAmongManyUnclaimedWorks(t *testing.T) {
	src := &memo{answers: []func() (codec.Bundle, bool, error){tombstone, nothing}}
	d := NewDispatcher("hub1", src, nil, Options{})
	p := d.peerLocked("c1")
	for i := range MaxUnclaimed {
		p.excuseLocked(fmt.Sprint(i), excuse{cause: causeUnclaimed, has: codec.Entry{Digest: digest.Content{1}}})
	}
	if n := len(p.excuses); n != MaxUnclaimed {
		t.Fatalf("%d excuses, want %d", n, MaxUnclaimed)
	}
	for _, id := range []string{"w", "unknown"} {
		d.askSource(t.Context(), Key{"c1", id}, codec.Entry{ID: id, Generation: 1})
	}
	if d.works.Len() != 1 || len(p.excuses) != MaxUnclaimed {
		t.Errorf("%d works to publish, %d excuses; want the deletion, and no more excuses", d.works.Len(), len(p.excuses))
	}
}
