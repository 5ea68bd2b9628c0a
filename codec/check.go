package codec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	kjson "k8s.io/apimachinery/pkg/util/json"

	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// hashDigits is how many hex digits a status hash has.
const hashDigits = 64

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...))
}

// check says what keeps the bundle from being sent. It holds for every bundle
// that Decode returns.
func (b Bundle) check() error {
	if err := checkNames(
		named{attrResourceID, b.ID, MaxID}, named{event.Source, b.Source, MaxName}, named{attrCluster, b.Cluster, MaxName},
	); err != nil {
		return err
	}
	if err := checkGeneration(b.Generation); err != nil {
		return err
	}
	if b.Deleting() {
		if err := checkDeletion(b.DeletedAt); err != nil {
			return err
		}
	} else if len(b.Payload) == 0 {
		return malformed("it has no manifests, and is no deletion")
	}
	return checkContent(b.Metadata, b.Payload, b.Trace)
}

// check says what keeps the report from being sent. It holds for every report
// that Decode returns.
func (r Report) check() error {
	if err := checkNames(
		named{attrResourceID, r.ID, MaxID}, named{event.Source, r.Agent, MaxID},
		named{attrSource, r.Source, MaxName}, named{attrCluster, r.Cluster, MaxName},
	); err != nil {
		return err
	}
	if err := checkGeneration(r.Generation); err != nil {
		return err
	}
	if r.Sequence <= 0 {
		return malformed("it has no %s", attrSequence)
	}
	if r.Hash != "" && !isHash(r.Hash) {
		return malformed("%s is not %d hex digits", attrHash, hashDigits)
	}
	if len(r.Payload) == 0 {
		return malformed("it has no status")
	}
	return checkContent(r.Metadata, r.Payload, r.Trace)
}

// A named value is one that identifies something, of at most max bytes.
type named struct {
	name, value string
	max         int
}

// checkNames requires names that every peer and broker can carry.
func checkNames(names ...named) error {
	for _, n := range names {
		if n.value == "" {
			return malformed("it has no %s", n.name)
		}
		if err := checkName(n); err != nil {
			return err
		}
	}
	return nil
}

// checkName is checkNames for a name that may be empty.
func checkName(n named) error { return checkTextOf(n.name, n.value, n.max) }

func checkText(name, value string) error { return checkTextOf(name, value, event.MaxValue) }

func checkTextOf(name, value string, most int) error {
	if len(value) > most {
		return malformed("%s has %d bytes, at most %d are allowed", name, len(value), most)
	}
	if !event.IsText(value) {
		return malformed("%s holds control characters or is not UTF-8", name)
	}
	return nil
}

func checkGeneration(n int64) error {
	if n < 0 || n > math.MaxInt32 {
		return fmt.Errorf("%w: %d is not between 0 and %d", ErrGenerationRange, n, math.MaxInt32)
	}
	return nil
}

// checkDeletion refuses years that RFC 3339 cannot spell. The zero time is
// taken: it means that there is no deletion.
func checkDeletion(t time.Time) error {
	if y := t.UTC().Year(); t.IsZero() || y < 0 || y > 9999 {
		return malformed("%s is in the year %d", attrDeletion, y)
	}
	return nil
}

// checkContent looks at what costs little: sizes and first bytes.
func checkContent(metadata, payload []byte, trace string) error {
	if len(metadata) > event.MaxValue {
		return fmt.Errorf("%w: %d bytes, at most %d can be sent", ErrMetadataTooLarge, len(metadata), event.MaxValue)
	}
	if len(payload) > MaxPayload {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrPayloadTooLarge, len(payload), MaxPayload)
	}
	if len(metadata) > 0 && !startsObject(metadata) {
		return malformed("%s is not a JSON object", attrMetadata)
	}
	if len(payload) > 0 && !startsObject(payload) {
		return malformed("the body is not a JSON object")
	}
	if trace == "" {
		return nil
	}
	if !startsObject([]byte(trace)) {
		return malformed("%s is not a JSON object", attrTrace)
	}
	return checkText(attrTrace, trace)
}

// checkObject requires a JSON object of at most this depth.
func checkObject(what string, text []byte, depth int) error {
	if err := checkShape(what, text, depth); err != nil {
		return err
	}
	if !json.Valid(text) {
		return malformed("%s is not JSON", what)
	}
	return nil
}

// checkShape requires what makes text safe to parse, in order of cost. The
// parser then says whether it is JSON.
func checkShape(what string, text []byte, depth int) error {
	switch {
	case !startsObject(text):
		return malformed("%s is not a JSON object", what)
	case event.Depth(text) > depth:
		return malformed("%s is nested deeper than %d levels", what, depth)
	case !utf8.Valid(text):
		return malformed("%s is not UTF-8", what)
	}
	return nil
}

// parseBody parses a body of a peer into the value that into points to. What
// the parser says may quote the body, so it is cut short.
func parseBody(body []byte, into any) error {
	if len(body) > MaxPayload {
		return malformed("the body has %d bytes, at most %d are allowed", len(body), MaxPayload)
	}
	return parseObject("the body", body, into)
}

func parseObject(what string, text []byte, into any) error {
	if err := checkShape(what, text, MaxDepth); err != nil {
		return err
	}
	if err := kjson.Unmarshal(text, into); err != nil {
		return malformed("%s: %.200s", what, err)
	}
	return nil
}

func startsObject(text []byte) bool {
	text = bytes.TrimLeft(text, " \t\r\n")
	return len(text) > 0 && text[0] == '{'
}

func isHash(s string) bool {
	if len(s) != hashDigits {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
