package codec

import (
	"bytes"
	"encoding/json"
	"fmt"

	kjson "k8s.io/apimachinery/pkg/util/json"

	"github.com/fleetcast-io/fleetcast/pkg/digest"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// Entries is an agent's answer to Buckets: everything that it holds in these
// buckets. What it does not list there, it does not hold. An agent may answer
// in several events, each complete for its own buckets and of at most MaxEntries
// works.
type Entries struct {
	// Agent answers in this Instance of its process; Term is the newest that it
	// heard of the source.
	Agent    string
	Instance digest.Key
	Term     int64
	// Buckets are those that are listed, in ascending order.
	Buckets []uint8
	// Entries are the works in these buckets, each once.
	Entries []Entry
}

// An Entry is one work that an agent holds.
type Entry struct {
	ID string `json:"id"`
	// Name is that of the ManifestWork, for people; it may be empty.
	Name       string `json:"name,omitempty"`
	Generation int64  `json:"generation"`
	// Deleting says that the agent is deleting the work.
	Deleting bool `json:"deleting,omitempty"`
	// Digest is Bundle.Digest of the work; zero on a deletion.
	Digest digest.Content `json:"digest,omitzero"`
	// Status is the hash of the status last reported; empty if none was.
	Status string `json:"status,omitempty"`
}

type entriesBody struct {
	Instance digest.Key `json:"instance"`
	Term     int64      `json:"term,omitempty"`
	Buckets  numbers    `json:"buckets"`
	Entries  entryList  `json:"entries"`
}

// numbers are bytes that JSON has as a list of numbers, not as base64.
type numbers []uint8

// MarshalJSON implements json.Marshaler.
func (n numbers) MarshalJSON() ([]byte, error) {
	wide := make([]uint16, len(n))
	for i := range n {
		wide[i] = uint16(n[i])
	}
	return json.Marshal(wide)
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *numbers) UnmarshalJSON(text []byte) error {
	if bytes.Count(text, []byte{','}) >= digest.Buckets {
		return malformed("more than %d buckets", digest.Buckets)
	}
	var wide []uint16
	if err := json.Unmarshal(text, &wide); err != nil {
		return malformed("buckets: %.100s", err)
	}
	*n = make(numbers, len(wide))
	for i := range wide {
		if wide[i] >= digest.Buckets {
			return malformed("there is no bucket %d", wide[i])
		}
		(*n)[i] = uint8(wide[i])
	}
	return nil
}

// entryList are the entries of one page.
type entryList []Entry

// UnmarshalJSON implements json.Unmarshaler. The shortest values there are take
// two bytes with their comma, an Entry in memory fifty times that. So they are
// counted before they are parsed.
func (l *entryList) UnmarshalJSON(text []byte) error {
	if len(*l) > 0 {
		return malformed("it has two lists of entries")
	}
	if elements(text, MaxEntries) > MaxEntries {
		return malformed("it lists more than %d works", MaxEntries)
	}
	var entries []Entry
	if err := kjson.Unmarshal(text, &entries); err != nil {
		return malformed("entries: %.100s", err)
	}
	*l = entries
	return nil
}

// elements counts the elements of a JSON list, up to one more than most; an
// empty list counts as one. The text must be valid JSON.
func elements(text []byte, most int) int {
	n, depth, quoted := 1, 0, false
	for i := 0; i < len(text) && n <= most; i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			depth--
		case c == ',' && depth == 1:
			n++
		}
	}
	return n
}

// Encode implements Message; the action is Announce.
func (s Entries) Encode(a Action) (event.Event, error) {
	entries := s.Entries
	if entries == nil {
		entries = []Entry{}
	}
	return announce(a, kindEntries, s.Agent, s.check(), entriesBody{s.Instance, s.Term, s.Buckets, entries})
}

func (s Entries) check() error {
	if err := checkFrom(s.Agent, MaxID, s.Instance); err != nil {
		return err
	}
	if err := checkTerm(s.Term); err != nil {
		return err
	}
	if len(s.Buckets) == 0 {
		return malformed("it names no bucket")
	}
	var listed [digest.Buckets]bool
	for i, bucket := range s.Buckets {
		if i > 0 && bucket <= s.Buckets[i-1] {
			return malformed("bucket %d comes after %d", bucket, s.Buckets[i-1])
		}
		listed[bucket] = true
	}
	if len(s.Entries) > MaxEntries {
		return fmt.Errorf("%w: %d works, at most %d are allowed", ErrPayloadTooLarge, len(s.Entries), MaxEntries)
	}
	seen := make(map[string]struct{}, len(s.Entries))
	for i := range s.Entries {
		entry := &s.Entries[i]
		if err := entry.check(); err != nil {
			return err
		}
		if bucket := digest.BucketOf(entry.ID); !listed[bucket] {
			return malformed("%.100q is in bucket %d, which it does not list", entry.ID, bucket)
		}
		if _, twice := seen[entry.ID]; twice {
			return malformed("%.100q is listed twice", entry.ID)
		}
		seen[entry.ID] = struct{}{}
	}
	return nil
}

func (e *Entry) check() error {
	if err := checkNames(named{"id", e.ID, MaxID}); err != nil {
		return err
	}
	if err := checkName(named{"name", e.Name, MaxName}); err != nil {
		return err
	}
	if err := checkGeneration(e.Generation); err != nil {
		return fmt.Errorf("%.100q: %w", e.ID, err)
	}
	if e.Deleting && e.Digest != (digest.Content{}) {
		return malformed("%.100q is being deleted, and has a digest", e.ID)
	}
	if len(e.Status) > maxHash || !event.IsText(e.Status) {
		return malformed("status of %.100q is no hash", e.ID)
	}
	return nil
}

func decodeEntries(e event.Event) (Message, error) {
	var body entriesBody
	if err := parseAnnounced(e, MaxPayload, &body); err != nil {
		return nil, err
	}
	s := Entries{e.Get(event.Source), body.Instance, body.Term, body.Buckets, body.Entries}
	return s, s.check()
}
