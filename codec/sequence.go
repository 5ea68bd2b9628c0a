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
	stepMask      = 1<<stepBits - 1
)

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
