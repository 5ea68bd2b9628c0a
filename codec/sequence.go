package codec

import (
	"fmt"
	"strconv"
	"time"
)

// A Sequence orders the reports of one agent. It is a snowflake number, which
// is what OCM's sources expect of the sequenceid attribute: 41 bits of
// milliseconds since [sequenceEpoch], 10 bits of node, 12 bits of step. All of
// OCM's agents use node 1, and its sources refuse to compare different nodes.
// Zero means none.
type Sequence int64

const (
	sequenceEpoch = 1288834974657 // Milliseconds; the usual snowflake epoch.
	sequenceNode  = 1
	stepBits      = 12
	nodeBits      = 10
	timeBits      = 41
	nodeMask      = 1<<nodeBits - 1
	stepMask      = 1<<stepBits - 1
)

// believed is the first sequence that nobody is believed to have taken: the last
// 4 of the 69 years that sequences have. Above it an agent that numbers a
// thousand reports a second goes on for ten thousand years, whatever its clock.
const believed Sequence = 15 << (timeBits - 4 + nodeBits + stepBits)

// Next returns a sequence greater than s, and not before now. A clock that
// stepped back therefore costs order nothing, as long as s is the highest ever
// issued: persist it.
func (s Sequence) Next(now time.Time) Sequence {
	ms := now.UnixMilli() - sequenceEpoch
	if ms < 0 || ms >= 1<<timeBits {
		ms = 0 // No clock is set like that; s alone counts.
	}
	at := Sequence(ms<<(nodeBits+stepBits) | sequenceNode<<stepBits)
	if at > s {
		return at
	}
	if s&stepMask != stepMask {
		return s + 1
	}
	// The millisecond is used up: step 0 of the next one.
	ms = int64(s)>>(nodeBits+stepBits) + 1
	return Sequence(ms<<(nodeBits+stepBits) | sequenceNode<<stepBits)
}

// Above returns s, raised so that what comes Next is greater than taken, which
// somebody else says to have had from this agent: an agent that lost what it had
// issued learns it so. It is no number of another node than the agent's own, and
// what is beyond all that a clock can have made is not believed, so that no word
// of others uses up the numbers.
func (s Sequence) Above(taken Sequence) Sequence {
	switch {
	case taken <= s, taken >= believed:
		return s
	case int64(taken)>>stepBits&nodeMask == sequenceNode:
		return taken
	}
	ms := int64(taken)>>(nodeBits+stepBits) + 1
	return Sequence(ms<<(nodeBits+stepBits) | sequenceNode<<stepBits)
}

// String is the wire form: decimal.
func (s Sequence) String() string { return strconv.FormatInt(int64(s), 10) }

// ParseSequence reads the wire form. Its error wraps ErrMalformed.
func ParseSequence(text string) (Sequence, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%w: sequenceid %.40q is not a positive number", ErrMalformed, text)
	}
	return Sequence(n), nil
}

// taken is a Sequence in a body: text, as in attributes, since numbers above 2^53
// do not survive every JSON parser.
type taken Sequence

// MarshalText implements encoding.TextMarshaler.
func (t taken) MarshalText() ([]byte, error) { return []byte(Sequence(t).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *taken) UnmarshalText(text []byte) error {
	s, err := ParseSequence(string(text))
	*t = taken(s)
	return err
}
