package codec_test

import (
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// name is what names of all kinds may be: any text that an attribute can hold.
var name = rapid.StringMatching(`[^\x00-\x1f\x7f-\x9f]{1,40}`).Filter(event.IsText)

var generation = rapid.OneOf(rapid.Int64Range(0, 3), rapid.Int64Range(0, math.MaxInt32))

// object makes any JSON object that a few levels can hold.
var object = rapid.Custom(func(t *rapid.T) []byte {
	text, err := json.Marshal(rapid.MapOf(rapid.String(), value(2)).Draw(t, "object"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}).Filter(func(text []byte) bool { return event.IsText(string(text)) })

func value(depth int) *rapid.Generator[any] {
	plain := []*rapid.Generator[any]{
		rapid.Just(any(nil)), rapid.Bool().AsAny(), rapid.String().AsAny(), rapid.Int64().AsAny(), rapid.Float64().AsAny(),
	}
	if depth > 0 {
		plain = append(plain,
			rapid.SliceOfN(value(depth-1), 0, 3).AsAny(),
			rapid.MapOfN(rapid.String(), value(depth-1), 0, 3).AsAny())
	}
	return rapid.OneOf(plain...)
}

var trace = rapid.Custom(func(t *rapid.T) string {
	fields := rapid.MapOfN(rapid.String(), rapid.String(), 0, 3).Draw(t, "trace")
	if len(fields) == 0 {
		return ""
	}
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}).Filter(event.IsText)

// instant is any time that RFC 3339 can spell, but the zero time.
var instant = rapid.Custom(func(t *rapid.T) time.Time {
	first := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	last := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
	return time.Unix(rapid.Int64Range(first, last).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds")).UTC()
}).Filter(func(at time.Time) bool { return !at.IsZero() })

var messages = map[string]struct {
	actions []codec.Action
	message *rapid.Generator[codec.Message]
}{
	"bundle": {
		[]codec.Action{codec.Create, codec.Update, codec.Delete, codec.ResyncResponse},
		rapid.Custom(func(t *rapid.T) codec.Message {
			b := codec.Bundle{
				ID: name.Draw(t, "id"), Source: name.Draw(t, "source"), Cluster: name.Draw(t, "cluster"),
				Generation: generation.Draw(t, "generation"), Trace: trace.Draw(t, "trace"),
			}
			if rapid.Bool().Draw(t, "has metadata") {
				b.Metadata = object.Draw(t, "metadata")
			}
			if rapid.Bool().Draw(t, "deleting") {
				b.DeletedAt = instant.Draw(t, "deleted at")
			} else {
				b.Payload = object.Draw(t, "payload")
			}
			return b
		}),
	},
	"report": {
		[]codec.Action{codec.Update, codec.ResyncResponse},
		rapid.Custom(func(t *rapid.T) codec.Message {
			r := codec.Report{
				ID: name.Draw(t, "id"), Source: name.Draw(t, "source"), Cluster: name.Draw(t, "cluster"),
				Generation: generation.Draw(t, "generation"), Agent: name.Draw(t, "agent"),
				Sequence: codec.Sequence(rapid.Int64Range(1, math.MaxInt64).Draw(t, "sequence")),
				Hash:     rapid.StringMatching(`([0-9a-f]{64})?`).Draw(t, "hash"),
				Payload:  object.Draw(t, "payload"), Trace: trace.Draw(t, "trace"),
			}
			if rapid.Bool().Draw(t, "has metadata") {
				r.Metadata = object.Draw(t, "metadata")
			}
			return r
		}),
	},
	"spec resync": {
		[]codec.Action{codec.ResyncRequest},
		rapid.Custom(func(t *rapid.T) codec.Message {
			return codec.SpecResync{
				Agent: name.Draw(t, "agent"), Cluster: name.Draw(t, "cluster"),
				Source: rapid.OneOf(rapid.Just(""), name).Draw(t, "source"),
				Versions: rapid.SliceOf(rapid.Custom(func(t *rapid.T) codec.Version {
					return codec.Version{ID: name.Draw(t, "id"), Generation: rapid.Int64Range(0, math.MaxInt64).Draw(t, "generation")}
				})).Draw(t, "versions"),
				Capabilities: capabilities.Draw(t, "capabilities"),
			}
		}),
	},
	"status resync": {
		[]codec.Action{codec.ResyncRequest},
		rapid.Custom(func(t *rapid.T) codec.Message {
			return codec.StatusResync{
				Source: name.Draw(t, "source"), Cluster: rapid.OneOf(rapid.Just(""), name).Draw(t, "cluster"),
				Hashes: rapid.SliceOf(rapid.Custom(func(t *rapid.T) codec.StatusHash {
					return codec.StatusHash{ID: name.Draw(t, "id"), Hash: rapid.StringMatching(`[0-9a-f]{0,64}`).Draw(t, "hash")}
				})).Draw(t, "hashes"),
			}
		}),
	},
}

// own are this project's own messages.
var own = map[string]*rapid.Generator[codec.Message]{
	"hello": rapid.Custom(func(t *rapid.T) codec.Message {
		return codec.Hello{
			Source: name.Draw(t, "source"), Epoch: epoch.Draw(t, "epoch"), Term: term.Draw(t, "term"),
			Capabilities: capabilities.Draw(t, "capabilities"),
			Spread:       time.Duration(rapid.Int64Range(0, codec.MaxSpread.Milliseconds()).Draw(t, "spread")) * time.Millisecond,
		}
	}),
	"digest": rapid.Custom(func(t *rapid.T) codec.Message {
		return codec.Digest{
			Agent: name.Draw(t, "agent"), Instance: instance.Draw(t, "instance"),
			Epoch: epoch.Draw(t, "epoch"), Term: term.Draw(t, "term"), Works: works.Draw(t, "works"),
			Spec: root.Draw(t, "spec"), Status: root.Draw(t, "status"), Capabilities: capabilities.Draw(t, "capabilities"),
		}
	}),
	"match": rapid.Custom(func(t *rapid.T) codec.Message {
		return codec.Match{
			Source: name.Draw(t, "source"), Instance: instance.Draw(t, "instance"), Term: term.Draw(t, "term"),
			Spec: root.Draw(t, "spec").Short(), Status: root.Draw(t, "status").Short(), Unclaimed: works.Draw(t, "unclaimed"),
			Taken: sequence.Draw(t, "taken"),
		}
	}),
	"buckets": rapid.Custom(func(t *rapid.T) codec.Message {
		b := codec.Buckets{
			Source: name.Draw(t, "source"), Instance: instance.Draw(t, "instance"), Term: term.Draw(t, "term"),
			Works: works.Draw(t, "works"), Taken: sequence.Draw(t, "taken"),
		}
		halves := rapid.IntRange(1, 3).Draw(t, "halves")
		if b.Works == 0 {
			b.Spec, b.Status = new([digest.Buckets]digest.Short), new([digest.Buckets]digest.Short)
			return b
		}
		if halves&1 != 0 {
			b.Spec = sums.Draw(t, "spec")
		}
		if halves&2 != 0 {
			b.Status = sums.Draw(t, "status")
		}
		return b
	}),
	"entries": rapid.Custom(func(t *rapid.T) codec.Message {
		s := codec.Entries{
			Agent: name.Draw(t, "agent"), Instance: instance.Draw(t, "instance"), Term: term.Draw(t, "term"),
			Buckets: rapid.SliceOfDistinct(rapid.Uint8(), rapid.ID).Draw(t, "buckets"),
			Entries: rapid.SliceOfDistinct(entry, func(e codec.Entry) string { return e.ID }).Draw(t, "entries"),
		}
		for _, e := range s.Entries {
			s.Buckets = append(s.Buckets, digest.BucketOf(e.ID))
		}
		if len(s.Buckets) == 0 {
			s.Buckets = []uint8{0}
		}
		slices.Sort(s.Buckets)
		s.Buckets = slices.Compact(s.Buckets)
		return s
	}),
	"presence": rapid.Custom(func(t *rapid.T) codec.Message {
		return codec.Presence{
			Agent: name.Draw(t, "agent"), Instance: instance.Draw(t, "instance"), Online: rapid.Bool().Draw(t, "online"),
		}
	}),
}

var (
	epoch        = rapid.StringMatching(`[A-Za-z0-9_-]{0,64}`)
	term         = rapid.Int64Range(0, codec.MaxTerm)
	sequence     = rapid.Custom(func(t *rapid.T) codec.Sequence { return codec.Sequence(rapid.Int64Min(0).Draw(t, "sequence")) })
	works        = rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(0, codec.MaxListed))
	capabilities = rapid.SliceOfN(rapid.StringMatching(`[a-z0-9-]{1,32}`), 0, codec.MaxCapabilities)
	instance     = rapid.Custom(func(t *rapid.T) digest.Key {
		return digest.Key(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "key"))
	}).Filter(func(k digest.Key) bool { return k != digest.Key{} })
	root = rapid.Custom(func(t *rapid.T) digest.Root {
		return digest.Root(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "root"))
	}).Filter(func(r digest.Root) bool { return r != digest.Root{} })
	sums = rapid.Custom(func(t *rapid.T) *[digest.Buckets]digest.Short {
		set := digest.NewSet(digest.Key{1})
		for _, id := range rapid.SliceOf(name).Draw(t, "ids") {
			set.AddStatus(id, "")
		}
		all := set.All()
		return &all
	})
	entry = rapid.Custom(func(t *rapid.T) codec.Entry {
		e := codec.Entry{
			ID: name.Draw(t, "id"), Name: rapid.OneOf(rapid.Just(""), name).Draw(t, "name"),
			Generation: generation.Draw(t, "generation"), Deleting: rapid.Bool().Draw(t, "deleting"),
			Status: rapid.StringMatching(`([0-9a-f]{64})?`).Draw(t, "status"),
		}
		if !e.Deleting {
			e.Digest = digest.Content(root.Draw(t, "digest"))
		}
		return e
	})
)

// TestInverse: what is written reads as what was written, for messages of all
// kinds and every action that goes with them.
func TestInverse(t *testing.T) {
	for kind, g := range messages {
		t.Run(kind, func(t *testing.T) { checkInverse(t, g.message, g.actions...) })
	}
	for kind, g := range own {
		t.Run(kind, func(t *testing.T) { checkInverse(t, g, codec.Announce) })
	}
}

func checkInverse(t *testing.T, message *rapid.Generator[codec.Message], actions ...codec.Action) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		want := message.Draw(t, "message")
		action := rapid.SampledFrom(actions).Draw(t, "action")
		e, err := want.Encode(action)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Validate(); err != nil {
			t.Fatal(err)
		}
		gotAction, got, err := codec.Decode(e)
		if err != nil {
			t.Fatal(err)
		}
		if gotAction != action {
			t.Fatalf("action %q became %q", action, gotAction)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-written +read):\n%s", diff)
		}
	})
}
