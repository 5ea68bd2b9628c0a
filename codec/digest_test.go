package codec_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// key is the instance of the golden files: the bytes 0 to 15.
var key = digest.Key{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// gone is a work that the golden files' agent is deleting.
const gone = "71913eda-1478-4abc-a625-69b6114a2f52"

// conversation is one comparison, message by message: the agent holds web-tier
// in generation 3 and deletes another work; its source is at generation 4.
func conversation(t testing.TB) map[string]codec.Message {
	t.Helper()
	contentOf := func(generation int64) digest.Content {
		content, err := newBundle(t, webTier(generation)).Digest()
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	status, err := codec.HashStatus(appliedStatus())
	if err != nil {
		t.Fatal(err)
	}
	held, reported := digest.NewSet(key), digest.NewSet(key)
	held.AddSpec(workID, 3, contentOf(3), false)
	reported.AddStatus(workID, status)
	held.AddSpec(gone, 1, digest.Content{}, true)
	reported.AddStatus(gone, "")
	expected := digest.NewSet(key)
	expected.AddSpec(workID, 4, contentOf(4), false)
	expected.AddSpec(gone, 1, digest.Content{}, true)
	sums := expected.All()
	return map[string]codec.Message{
		"hello": codec.Hello{
			Source: source, Epoch: "5Qm2vXcJ0aE", Term: 3, Capabilities: []string{codec.CapDigest}, Spread: 2 * time.Second,
		},
		"digest": codec.Digest{
			Agent: agent, Instance: key, Epoch: "5Qm2vXcJ0aE", Term: 3, Works: held.Len(),
			Spec: held.Root(), Status: reported.Root(), Capabilities: []string{codec.CapDigest},
		},
		"match": codec.Match{
			Source: source, Instance: key, Term: 3, Spec: held.Root().Short(), Status: reported.Root().Short(), Unclaimed: 1,
			Taken: 2018536199680954368,
		},
		"buckets":       codec.Buckets{Source: source, Instance: key, Term: 3, Works: expected.Len(), Spec: &sums, Taken: 2018536199680954368},
		"buckets-empty": codec.Buckets{Source: source, Instance: key, Term: 3},
		"entries": codec.Entries{
			Agent: agent, Instance: key, Term: 3, Buckets: []uint8{digest.BucketOf(workID)},
			Entries: []codec.Entry{{ID: workID, Name: "web-tier", Generation: 3, Digest: contentOf(3), Status: status}},
		},
		"entries-deleting": codec.Entries{
			Agent: agent, Instance: key, Term: 3, Buckets: []uint8{digest.BucketOf(gone), digest.BucketOf(gone) + 1},
			Entries: []codec.Entry{{ID: gone, Generation: 1, Deleting: true}},
		},
		"presence":         codec.Presence{Agent: agent, Instance: key, Online: true},
		"presence-leaving": codec.Presence{Agent: agent, Instance: key},
	}
}

// TestConversationGolden pins this project's own events, which other
// implementations write and read as docs/protocol.md says.
func TestConversationGolden(t *testing.T) {
	for file, m := range conversation(t) {
		t.Run(file, func(t *testing.T) {
			compareGolden(t, file, m, codec.Announce)
			action, got, err := codec.Decode(goodEvent(t, file))
			if err != nil || action != codec.Announce {
				t.Fatalf("action %q, %v", action, err)
			}
			if b, ok := m.(codec.Buckets); ok && b.Works == 0 {
				b.Spec, b.Status = new([digest.Buckets]digest.Short), new([digest.Buckets]digest.Short)
				m = b
			}
			if diff := cmp.Diff(m, got); diff != "" {
				t.Errorf("(-written +read):\n%s", diff)
			}
		})
	}
	t.Run("spec-resync-capable", func(t *testing.T) {
		compareGolden(t, "spec-resync-capable", codec.SpecResync{
			Agent: agent, Source: source, Cluster: cluster,
			Versions: []codec.Version{{ID: workID, Generation: 3}}, Capabilities: []string{codec.CapDigest, "later"},
		}, codec.ResyncRequest)
	})
}

// TestSizes: agreeing must stay cheap, whatever a later version adds. A wire
// adds the topic and a few bytes of its own.
func TestSizes(t *testing.T) {
	messages := conversation(t)
	d := messages["digest"].(codec.Digest)
	d.Works = 1000
	messages["digest"] = d
	buckets := messages["buckets"].(codec.Buckets)
	buckets.Status = buckets.Spec
	messages["buckets"] = buckets
	for kind, most := range map[string]int{
		"hello": 210, "digest": 350, "match": 240, "presence": 170, "buckets-empty": 160, "buckets": 5800,
	} {
		if n := announced(t, messages[kind]).Size(); n > most {
			t.Errorf("%s takes %d bytes, at most %d are allowed", kind, n, most)
		}
	}
	e := announced(t, sampleEntries())
	if n := e.Size() / 1000; n > 250 {
		t.Errorf("one entry takes %d bytes, at most 250 are allowed", n)
	}
}

// TestOwnAttributes: cluster and source are those of the address, so nothing
// can contradict it.
func TestOwnAttributes(t *testing.T) {
	seen := map[string]bool{}
	for kind, m := range conversation(t) {
		e := announced(t, m)
		var names []string
		for name := range e.All() {
			names = append(names, name)
		}
		if got := strings.Join(names, " "); got != "specversion id source type" {
			t.Errorf("%s has attributes %s", kind, got)
		}
		if id := e.Get(event.ID); len(id) != 11 || seen[id] {
			t.Errorf("%s has ID %q", kind, id)
		}
		seen[e.Get(event.ID)] = true
	}
}

func TestOwnEncodeRefuses(t *testing.T) {
	sums := digest.NewSet(key).All()
	full := sums
	full[0][0] = 1
	entries := func(change func(*codec.Entries)) codec.Message {
		s := conversation(t)["entries"].(codec.Entries)
		change(&s)
		return s
	}
	hello := func(change func(*codec.Hello)) codec.Message {
		h := conversation(t)["hello"].(codec.Hello)
		change(&h)
		return h
	}
	own := func(change func(*codec.Digest)) codec.Message {
		d := conversation(t)["digest"].(codec.Digest)
		change(&d)
		return d
	}
	for _, tc := range []struct {
		reason  string
		message codec.Message
		want    error
	}{
		{"a hello of nobody", hello(func(h *codec.Hello) { h.Source = "" }), codec.ErrMalformed},
		{"a source's name that no object can have", hello(func(h *codec.Hello) { h.Source = long(codec.MaxName) }), codec.ErrMalformed},
		{"a negative term", hello(func(h *codec.Hello) { h.Term = -1 }), codec.ErrMalformed},
		{"a term that not every JSON parser reads", hello(func(h *codec.Hello) { h.Term = codec.MaxTerm + 1 }), codec.ErrMalformed},
		{"an epoch without end", hello(func(h *codec.Hello) { h.Epoch = long(codec.MaxEpoch) }), codec.ErrMalformed},
		{"an epoch with a line break", hello(func(h *codec.Hello) { h.Epoch = "a\nb" }), codec.ErrMalformed},
		{"answers from the past", hello(func(h *codec.Hello) { h.Spread = -1 }), codec.ErrMalformed},
		{"answers that nobody waits for", hello(func(h *codec.Hello) { h.Spread = codec.MaxSpread + 1 }), codec.ErrMalformed},
		{"a capability with a comma", hello(func(h *codec.Hello) { h.Capabilities = []string{"a,b"} }), codec.ErrMalformed},
		{"a capability without a name", hello(func(h *codec.Hello) { h.Capabilities = []string{""} }), codec.ErrMalformed},
		{"a capability in upper case", hello(func(h *codec.Hello) { h.Capabilities = []string{"Digest"} }), codec.ErrMalformed},
		{"a capability with a long name", hello(func(h *codec.Hello) { h.Capabilities = []string{strings.Repeat("a", 33)} }), codec.ErrMalformed},
		{"too many capabilities", hello(func(h *codec.Hello) { h.Capabilities = make([]string, codec.MaxCapabilities+1) }), codec.ErrMalformed},
		{"a question with a capability that is none", codec.SpecResync{Agent: agent, Cluster: cluster, Capabilities: []string{" digest"}}, codec.ErrMalformed},
		{"a digest of no instance", own(func(d *codec.Digest) { d.Instance = digest.Key{} }), codec.ErrMalformed},
		{"a digest of nobody", own(func(d *codec.Digest) { d.Agent = "" }), codec.ErrMalformed},
		{"a digest of specs only", own(func(d *codec.Digest) { d.Status = digest.Root{} }), codec.ErrMalformed},
		{"a digest of statuses only", own(func(d *codec.Digest) { d.Spec = digest.Root{} }), codec.ErrMalformed},
		{"less than no works", own(func(d *codec.Digest) { d.Works = -1 }), codec.ErrMalformed},
		{"more works than anybody has", own(func(d *codec.Digest) { d.Works = codec.MaxListed + 1 }), codec.ErrMalformed},
		{"a match with no instance", codec.Match{Source: source}, codec.ErrMalformed},
		{"a match that leaves less than no works alone", codec.Match{Source: source, Instance: key, Unclaimed: -1}, codec.ErrMalformed},
		{"a match with a sequence that nobody issues", codec.Match{Source: source, Instance: key, Taken: -1}, codec.ErrMalformed},
		{"buckets with a sequence that nobody issues", codec.Buckets{Source: source, Instance: key, Works: 1, Spec: &full, Taken: -1}, codec.ErrMalformed},
		{"buckets that do not differ", codec.Buckets{Source: source, Instance: key, Works: 1}, codec.ErrMalformed},
		{"sums of no works", codec.Buckets{Source: source, Instance: key, Spec: &full}, codec.ErrMalformed},
		{"buckets of no instance", codec.Buckets{Source: source, Works: 1, Spec: &full}, codec.ErrMalformed},
		{"entries of no bucket", entries(func(s *codec.Entries) { s.Buckets = nil }), codec.ErrMalformed},
		{"buckets out of order", entries(func(s *codec.Entries) { s.Buckets = []uint8{2, 1} }), codec.ErrMalformed},
		{"a bucket twice", entries(func(s *codec.Entries) { s.Buckets = []uint8{1, 1} }), codec.ErrMalformed},
		{"an entry of another bucket", entries(func(s *codec.Entries) { s.Buckets[0]++ }), codec.ErrMalformed},
		{"an entry twice", entries(func(s *codec.Entries) { s.Entries = append(s.Entries, s.Entries[0]) }), codec.ErrMalformed},
		{"an entry without ID", entries(func(s *codec.Entries) { s.Entries[0].ID = "" }), codec.ErrMalformed},
		{"an ID that no key can hold", entries(func(s *codec.Entries) { s.Entries[0].ID = long(codec.MaxID) }), codec.ErrMalformed},
		{"a name that no object can have", entries(func(s *codec.Entries) { s.Entries[0].Name = long(codec.MaxName) }), codec.ErrMalformed},
		{"a negative generation", entries(func(s *codec.Entries) { s.Entries[0].Generation = -1 }), codec.ErrGenerationRange},
		{"a deletion with content", entries(func(s *codec.Entries) { s.Entries[0].Deleting = true }), codec.ErrMalformed},
		{"a status that is an essay", entries(func(s *codec.Entries) { s.Entries[0].Status = long(128) }), codec.ErrMalformed},
		{"entries for more than one page", entries(func(s *codec.Entries) { s.Entries = make([]codec.Entry, codec.MaxEntries+1) }), codec.ErrPayloadTooLarge},
		{"a presence of no instance", codec.Presence{Agent: agent}, codec.ErrMalformed},
		{"a presence of nobody", codec.Presence{Instance: key}, codec.ErrMalformed},
	} {
		action := codec.Announce
		if _, ok := tc.message.(codec.SpecResync); ok {
			action = codec.ResyncRequest
		}
		if _, err := tc.message.Encode(action); !errors.Is(err, tc.want) {
			t.Errorf("%s: error %v, want %v", tc.reason, err, tc.want)
		}
	}
	for kind, m := range conversation(t) {
		if _, err := m.Encode(codec.Update); err == nil {
			t.Errorf("%s was encoded as an update", kind)
		}
	}
}

func TestOwnDecodeRefuses(t *testing.T) {
	const (
		instance = `"instance":"AAECAwQFBgcICQoLDA0ODw"`
		types    = "io.fleetcast."
	)
	oneBucket := fmt.Sprint(digest.BucketOf(workID))
	for _, tc := range []struct {
		reason, file, body string
		want               error
	}{
		{"no body", "hello", ``, codec.ErrMalformed},
		{"a list", "hello", `[]`, codec.ErrMalformed},
		{"a body cut short", "hello", `{"term":`, codec.ErrMalformed},
		{"a body that is not UTF-8", "hello", "{\"a\":\"\xff\"}", codec.ErrMalformed},
		{"a body that would exhaust a recursive reader", "hello", strings.Repeat(`{"a":`, 300) + "1" + strings.Repeat("}", 300), codec.ErrMalformed},
		{"a summary of a megabyte", "hello", `{"a":"` + strings.Repeat("a", 1<<20) + `"}`, codec.ErrPayloadTooLarge},
		{"a spread that overflows", "hello", `{"spreadMillis":9223372036854775807}`, codec.ErrMalformed},
		{"a spread in words", "hello", `{"spreadMillis":"2s"}`, codec.ErrMalformed},
		{"a term with a fraction", "hello", `{"term":1.5}`, codec.ErrMalformed},
		{"a term over 64 bits", "hello", `{"term":18446744073709551616}`, codec.ErrMalformed},
		{"one capability that is no list", "hello", `{"capabilities":"digest"}`, codec.ErrMalformed},
		{"no instance", "presence", `{"online":true}`, codec.ErrMalformed},
		{"an instance cut short", "presence", `{"instance":"AAEC"}`, codec.ErrMalformed},
		{"no roots", "digest", `{` + instance + `,"works":1}`, codec.ErrMalformed},
		{"a root in hexadecimal", "digest", `{` + instance + `,"spec":"` + strings.Repeat("a", 64) + `"}`, codec.ErrMalformed},
		{"neither half", "buckets", `{` + instance + `,"works":1}`, codec.ErrMalformed},
		{"sums cut short", "buckets", `{` + instance + `,"works":1,"spec":"AAAA"}`, codec.ErrMalformed},
		{"sums that are not base64url", "buckets", `{` + instance + `,"works":1,"spec":"` + strings.Repeat("+", 2731) + `"}`, codec.ErrMalformed},
		{"sums with a line break, which decoders skip", "buckets", `{` + instance + `,"works":1,"spec":"` + strings.Repeat("A", 2729) + `\r\n"}`, codec.ErrMalformed},
		{"sums of no works", "buckets", `{` + instance + `,"works":0,"spec":"B` + strings.Repeat("A", 2730) + `"}`, codec.ErrMalformed},
		{"a sequence as a number, of which parsers lose digits", "match", `{` + instance + `,"taken":2018536199680954368}`, codec.ErrMalformed},
		{"a sequence over 63 bits", "match", `{` + instance + `,"taken":"9223372036854775808"}`, codec.ErrMalformed},
		{"a negative sequence", "match", `{` + instance + `,"taken":"-1"}`, codec.ErrMalformed},
		{"a sequence without digits", "buckets", `{` + instance + `,"works":0,"taken":""}`, codec.ErrMalformed},
		{"a bucket that is none", "entries", `{` + instance + `,"buckets":[256],"entries":[]}`, codec.ErrMalformed},
		{"buckets as base64", "entries", `{` + instance + `,"buckets":"AAEC","entries":[]}`, codec.ErrMalformed},
		{"more buckets than there are", "entries", `{` + instance + `,"buckets":[` + strings.Repeat("0,", 256) + `0]}`, codec.ErrMalformed},
		{"an entry that is none", "entries", `{` + instance + `,"buckets":[` + oneBucket + `],"entries":[1]}`, codec.ErrMalformed},
		{"an entry's generation over 32 bits", "entries", `{` + instance + `,"buckets":[` + oneBucket + `],"entries":[{"id":"` + workID + `","generation":2147483648}]}`, codec.ErrMalformed},
		{"entries without end", "entries", `{` + instance + `,"buckets":[1],"entries":[` + strings.Repeat("0,", 6*codec.MaxEntries) + `0]}`, codec.ErrMalformed},
	} {
		e := goodEvent(t, tc.file)
		e.Data = []byte(tc.body)
		_, m, err := codec.Decode(e)
		if !errors.Is(err, tc.want) || !errors.Is(err, codec.ErrMalformed) {
			t.Errorf("%s: error %v, want %v", tc.reason, err, tc.want)
		}
		if m != nil {
			t.Errorf("%s: a message beside the error: %v", tc.reason, m)
		}
		if err != nil && len(err.Error()) > 600 {
			t.Errorf("%s: an error of %d bytes", tc.reason, len(err.Error()))
		}
	}
	for _, tc := range []struct {
		reason, attribute, value string
		want                     error
	}{
		{"a later version", event.Type, types + "v2.hello", codec.ErrUnsupportedVersion},
		{"a later version of what is unknown here", event.Type, types + "v17.batch", codec.ErrUnsupportedVersion},
		{"a version before the first", event.Type, types + "v1alpha1.hello", codec.ErrUnsupportedVersion},
		{"another version of CloudEvents", event.SpecVersion, "2.0", codec.ErrUnsupportedVersion},
		{"a kind that a later release may have", event.Type, types + "v1.batch", codec.ErrUnknownType},
		{"a further segment", event.Type, types + "v1.hello.there", codec.ErrUnknownType},
		{"no kind", event.Type, types + "v1", codec.ErrUnknownType},
		{"no version", event.Type, types + "hello", codec.ErrUnknownType},
		{"a kind with an empty version", event.Type, types + ".hello", codec.ErrUnknownType},
		{"a body of another format", event.DataContentType, "application/cbor", codec.ErrMalformed},
		{"nobody", event.Source, "", codec.ErrMalformed},
		{"no ID", event.ID, "", codec.ErrMalformed},
	} {
		e := goodEvent(t, "hello")
		e.Set(tc.attribute, tc.value)
		if _, m, err := codec.Decode(e); !errors.Is(err, tc.want) || m != nil {
			t.Errorf("%s: %v, error %v, want %v", tc.reason, m, err, tc.want)
		}
	}
}

func TestOwnDecodeTakes(t *testing.T) {
	e := goodEvent(t, "hello")
	e.Data = []byte(`{"capabilities":["digest","zstd-2"],"later":{"a":[1]}}`)
	e.Set("clustername", "somebody-else")
	_, m, err := codec.Decode(e)
	want := codec.Hello{Source: source, Capabilities: []string{"digest", "zstd-2"}}
	if diff := cmp.Diff(codec.Message(want), m); err != nil || diff != "" {
		t.Errorf("what a later version adds is ignored: %v\n%s", err, diff)
	}
	for text, want := range map[string][]string{"": nil, "digest": {"digest"}, "later,digest": {"later", "digest"}} {
		e := goodEvent(t, "spec-resync")
		e.Set("fleetcast", text)
		_, m, err := codec.Decode(e)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, m.(codec.SpecResync).Capabilities); diff != "" {
			t.Errorf("capabilities %q (-want +got):\n%s", text, diff)
		}
	}
	for reason, text := range map[string]string{
		"an empty capability": "digest,", "a space": "digest, later", "a flood": strings.Repeat("a,", 1<<15),
	} {
		e := goodEvent(t, "spec-resync")
		e.Set("fleetcast", text)
		if _, _, err := codec.Decode(e); !errors.Is(err, codec.ErrMalformed) {
			t.Errorf("%s: error %v", reason, err)
		}
	}
}

// TestSpreadRoundsUp: no fleet answers faster than it was asked to.
func TestSpreadRoundsUp(t *testing.T) {
	_, m, err := codec.Decode(announced(t, codec.Hello{Source: source, Spread: time.Second + 1}))
	if err != nil {
		t.Fatal(err)
	}
	if got := m.(codec.Hello).Spread; got != 1001*time.Millisecond {
		t.Errorf("spread of %v", got)
	}
}
