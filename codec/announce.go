package codec

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/fleetcast-io/fleetcast/pkg/digest"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// ownType begins the types of this project's own events: the type and the kind
// of message.
const (
	ownVersion = "v1"
	ownType    = ownFamily + ownVersion
)

// Kinds of this project's own events.
const (
	kindHello    = "hello"
	kindDigest   = "digest"
	kindMatch    = "match"
	kindBuckets  = "buckets"
	kindEntries  = "entries"
	kindPresence = "presence"
)

// CapDigest is the capability of taking part in the comparison of digests:
// Hello, Digest, Match, Buckets, Entries and Presence.
const CapDigest = "digest"

// Limits of this project's own events.
const (
	// MaxCapabilities is how many capabilities a peer may name.
	MaxCapabilities = 32
	// MaxEpoch is how many bytes an epoch may have.
	MaxEpoch = 64
	// MaxTerm is the greatest term: the greatest integer that every JSON parser
	// reads without loss.
	MaxTerm = 1<<53 - 1
	// MaxSpread is the longest time over which a source may ask its clusters to
	// spread their answers.
	MaxSpread = time.Hour

	// maxCapability is how many bytes the name of one capability may have.
	maxCapability = 32
	// maxSummary is how many bytes the body of an event may have that lists no
	// works. Two halves of Buckets take 5.5 KB.
	maxSummary = 16 << 10
)

// decodeOwn reads one of this project's own events.
func decodeOwn(e event.Event, kind string) (Action, Message, error) {
	var decode func(event.Event) (Message, error)
	switch kind {
	case kindHello:
		decode = decodeHello
	case kindDigest:
		decode = decodeDigest
	case kindMatch:
		decode = decodeMatch
	case kindBuckets:
		decode = decodeBuckets
	case kindEntries:
		decode = decodeEntries
	case kindPresence:
		decode = decodePresence
	default:
		return "", nil, unknown(e.Get(event.Type))
	}
	m, err := decodeAs(e, decode)
	if err != nil {
		return "", nil, fmt.Errorf("decode %s of %.100q: %w", kind, e.Get(event.Source), err)
	}
	return Announce, m, nil
}

// announce writes one of this project's own events. It has no attributes but
// those that CloudEvents requires: cluster and source are those of its address,
// and its body is JSON always.
func announce(a Action, kind, from string, check error, body any) (event.Event, error) {
	e, err := announced(a, kind, from, check, body)
	if err != nil {
		return event.Event{}, fmt.Errorf("encode %s of %.100q: %w", kind, from, err)
	}
	return e, nil
}

func announced(a Action, kind, from string, check error, body any) (event.Event, error) {
	if a != Announce {
		return event.Event{}, fmt.Errorf("action %q does not go with it", a)
	}
	if check != nil {
		return event.Event{}, check
	}
	data, err := json.Marshal(body)
	if err != nil {
		return event.Event{}, fmt.Errorf("write body: %w", err)
	}
	if len(data) > MaxPayload {
		return event.Event{}, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrPayloadTooLarge, len(data), MaxPayload)
	}
	return event.Of(
		data,
		event.Attribute{Name: event.SpecVersion, Value: event.Version},
		event.Attribute{Name: event.ID, Value: shortID()},
		event.Attribute{Name: event.Source, Value: from},
		event.Attribute{Name: event.Type, Value: ownType + "." + kind},
	), nil
}

// shortID is random enough to tell apart the events that are under way.
func shortID() string {
	var id [8]byte
	// Read never fails: it ends the program instead.
	_, _ = rand.Read(id[:])
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// parseAnnounced reads the body of one of this project's own events of at most
// this size.
func parseAnnounced(e event.Event, most int, into any) error {
	if len(e.Data) > most {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrPayloadTooLarge, len(e.Data), most)
	}
	if err := checkMedia(e); err != nil {
		return err
	}
	return parseBody(e.Data, into)
}

// checkFrom requires what every one of this project's own events has: who says
// it, and in which instance's conversation.
func checkFrom(from string, most int, instance digest.Key) error {
	if err := checkNames(named{event.Source, from, most}); err != nil {
		return err
	}
	if instance == (digest.Key{}) {
		return malformed("it has no instance")
	}
	return nil
}

func checkTerm(term int64) error {
	if term < 0 || term > MaxTerm {
		return malformed("term %d is not between 0 and %d", term, int64(MaxTerm))
	}
	return nil
}

// checkCapabilities takes any capability that can be spelled in a list with
// commas: which ones there are is for each version to say.
func checkCapabilities(capabilities []string) error {
	if len(capabilities) > MaxCapabilities {
		return malformed("it names %d capabilities, at most %d are allowed", len(capabilities), MaxCapabilities)
	}
	for _, c := range capabilities {
		if !isCapability(c) {
			return malformed("%.40q is no name of a capability", c)
		}
	}
	return nil
}

// isCapability says whether the name is of 1 to maxCapability lower-case
// letters, digits and hyphens.
func isCapability(name string) bool {
	if name == "" || len(name) > maxCapability {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}
