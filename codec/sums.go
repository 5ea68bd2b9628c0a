package codec

import (
	"encoding/base64"

	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

// sums are those of all buckets in order, as one text: the unpadded base64url of
// 2048 bytes. As a list of texts they would take a third more.
type sums [digest.Buckets]digest.Short

// sumsSize is the length of the sums in bytes.
const sumsSize = len(sums{}) * len(digest.Short{})

// MarshalText implements encoding.TextMarshaler.
func (s *sums) MarshalText() ([]byte, error) {
	flat := make([]byte, 0, sumsSize)
	for _, sum := range s {
		flat = append(flat, sum[:]...)
	}
	return base64.RawURLEncoding.AppendEncode(nil, flat), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *sums) UnmarshalText(text []byte) error {
	if want := base64.RawURLEncoding.EncodedLen(sumsSize); len(text) != want {
		return malformed("sums of %d characters, want %d", len(text), want)
	}
	flat := make([]byte, sumsSize)
	// The decoder skips line breaks, which make the result shorter.
	if n, err := base64.RawURLEncoding.Strict().Decode(flat, text); err != nil || n != sumsSize {
		return malformed("the sums are not base64url")
	}
	for i := range s {
		copy(s[i][:], flat[i*len(digest.Short{}):])
	}
	return nil
}
