// Package digest sums up which works a source wants a cluster to run, and what
// a cluster holds, so that both ends can find out with a few hundred bytes
// whether they agree, and with a few kilobytes where they do not.
//
// A [Set] holds one keyed hash per work, added up in one of [Buckets] buckets
// that the work's ID alone chooses. Addition makes the sum independent of the
// order, and lets one work be taken out or replaced without looking at the
// others. The key is chosen by whoever asks, anew for each conversation
// partner, so that nobody can prepare works whose hashes cancel out.
//
// It imports nothing but the standard library and does no input or output.
// docs/protocol.md has the exact bytes, for other implementations.
package digest

import (
	"encoding/base64"
	"errors"
	"fmt"
)

// Buckets is how many buckets a set has.
const Buckets = 256

// ErrMalformed is wrapped by the UnmarshalText methods for a text that is not
// the unpadded base64url of exactly as many bytes as the type has.
var ErrMalformed = errors.New("malformed digest")

// Lengths in bytes.
const (
	keySize     = 16
	rootSize    = 32
	shortSize   = 8
	contentSize = 32
)

type (
	// A Key keys the hashes of a set. Sets of different keys cannot be compared.
	Key [keySize]byte
	// A Root stands for a whole set: two sets of one key are equal if and only
	// if their roots are, but for a chance that no attacker can improve.
	Root [rootSize]byte
	// A Short is the beginning of a root or of a bucket's sum, as it travels
	// where the whole is not needed. The zero value is that of an empty bucket.
	Short [shortSize]byte
	// A Content is the SHA-256 of what a work says. The zero value is that of a
	// deletion, which has no content.
	Content [contentSize]byte
)

// Short is the beginning of the root.
func (r Root) Short() Short { return Short(r[:shortSize]) }

// String is the unpadded base64url of the key.
func (k Key) String() string { return text(k[:]) }

// String is the unpadded base64url of the root.
func (r Root) String() string { return text(r[:]) }

// String is the unpadded base64url of the sum.
func (s Short) String() string { return text(s[:]) }

// String is the unpadded base64url of the content's hash.
func (c Content) String() string { return text(c[:]) }

// MarshalText implements encoding.TextMarshaler with what String returns.
func (k Key) MarshalText() ([]byte, error) { return marshal(k[:]), nil }

// MarshalText implements encoding.TextMarshaler with what String returns.
func (r Root) MarshalText() ([]byte, error) { return marshal(r[:]), nil }

// MarshalText implements encoding.TextMarshaler with what String returns.
func (s Short) MarshalText() ([]byte, error) { return marshal(s[:]), nil }

// MarshalText implements encoding.TextMarshaler with what String returns.
func (c Content) MarshalText() ([]byte, error) { return marshal(c[:]), nil }

// UnmarshalText reads what MarshalText writes. The error wraps ErrMalformed.
func (k *Key) UnmarshalText(text []byte) error { return unmarshal("key", k[:], text) }

// UnmarshalText reads what MarshalText writes. The error wraps ErrMalformed.
func (r *Root) UnmarshalText(text []byte) error { return unmarshal("root", r[:], text) }

// UnmarshalText reads what MarshalText writes. The error wraps ErrMalformed.
func (s *Short) UnmarshalText(text []byte) error { return unmarshal("sum", s[:], text) }

// UnmarshalText reads what MarshalText writes. The error wraps ErrMalformed.
func (c *Content) UnmarshalText(text []byte) error { return unmarshal("content", c[:], text) }

// encoding is strict: each value has one text only.
var encoding = base64.RawURLEncoding.Strict()

func text(b []byte) string { return encoding.EncodeToString(b) }

func marshal(b []byte) []byte { return encoding.AppendEncode(nil, b) }

// unmarshal leaves into as it was when it fails.
func unmarshal(what string, into, text []byte) error {
	if len(text) != encoding.EncodedLen(len(into)) {
		return fmt.Errorf("%w: a %s of %d characters, want %d", ErrMalformed, what, len(text), encoding.EncodedLen(len(into)))
	}
	var bytes [rootSize]byte
	// DecodedLen of a text of the right length is that of into; the decoder
	// skips line breaks, which make the result shorter.
	n, err := encoding.Decode(bytes[:], text)
	if err != nil || n != len(into) {
		return fmt.Errorf("%w: the %s is not base64url", ErrMalformed, what)
	}
	copy(into, bytes[:n])
	return nil
}
