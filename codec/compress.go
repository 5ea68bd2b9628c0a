package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// CapZstd is the capability of taking works and reports whose body is
// compressed, see Compress.
const CapZstd = "zstd"

// mediaZstd is the content type of a body that is one Zstandard frame around
// JSON, with the suffix that RFC 8878 registers for that. No decoder of JSON takes it, so
// whoever does not know it refuses the event.
const mediaZstd = event.JSON + "+zstd"

const (
	// compressFrom is how many bytes a body must have to be compressed. Attributes
	// take some 700 bytes of an event and are never compressed, so that of a
	// smaller one not much can be saved.
	compressFrom = 1 << 10

	// worthwhile is the share of an event that compressing it must save.
	worthwhile = 0.25

	// maxExpansion is how many bytes one compressed byte may stand for. Bodies
	// that compress better are padded: what a receiver has to do for an event
	// stays in proportion to what it cost to send.
	maxExpansion = 64
)

// skippable begins a frame of Zstandard that decoders skip (RFC 8878, section
// 3.1.2). The size of its content follows in 4 bytes.
const skippable = 0x184d2a50

// ErrBomb is wrapped by Compressor.Decompress for a body that would take more than
// it may: more bytes than its frame says, more than 64 times its own size, or a
// window over MaxPayload.
var ErrBomb = errors.New("compressed body takes more than it may")

// Compress returns a work or a report with its body compressed, for a receiver
// that named CapZstd, and whether that is worth it: whether it takes a quarter
// off the event. Where it is not, the event may still be smaller than e, or it is
// e. Other events, and those with bodies below 1 KiB, are returned as they are.
func (c *Compressor) Compress(e event.Event) (smaller event.Event, worth bool) {
	if len(e.Data) < compressFrom || !compressible(e.Get(event.Type)) || Compressed(e) {
		return e, false
	}
	frame := padded(c.deflate(e.Data), len(e.Data))
	if len(frame) >= len(e.Data) {
		return e, false
	}
	before := e.Size()
	smaller = withBody(e, frame, mediaZstd)
	saved := float64(before - smaller.Size())
	return smaller, saved >= worthwhile*float64(before)
}

// padded is the frame of a body of this size with a frame behind it that makes
// up for what it lacks to maxExpansion.
func padded(frame []byte, size int) []byte {
	const head = 8
	lacks := (size+maxExpansion-1)/maxExpansion - len(frame)
	if lacks <= 0 {
		return frame
	}
	content := max(0, lacks-head)
	frame = binary.LittleEndian.AppendUint32(frame, skippable)
	frame = binary.LittleEndian.AppendUint32(frame, uint32(content)) //nolint:gosec // Far below MaxPayload.
	return append(frame, make([]byte, content)...)
}

// Compressed says whether the body of an event is compressed. Decode refuses it
// then: see Compressor.
func Compressed(e event.Event) bool {
	media, _, _ := strings.Cut(e.Get(event.DataContentType), ";")
	return strings.EqualFold(strings.TrimSpace(media), mediaZstd)
}

// Between returns the source and the cluster that a work or a report says it is
// between, from nothing but its attributes. Receivers hold them against the
// address before they decompress what may be anybody's.
func Between(e event.Event) (source, cluster string) {
	source = e.Get(event.Source)
	if isReport(e.Get(event.Type)) {
		source = e.Get(attrSource)
	}
	return source, e.Get(attrCluster)
}

// Decompress returns a compressed work or report as it was before Compress. It
// looks at sizes first, and then takes no more memory than the frame says that its
// content has, up to MaxPayload.
//
// The error wraps ErrMalformed, and ErrPayloadTooLarge or ErrBomb beside it for
// what was not decompressed to the end.
func (c *Compressor) Decompress(e event.Event) (event.Event, error) {
	body, err := c.decompress(e)
	if err != nil {
		return event.Event{}, fmt.Errorf("decompress %.100s of %.100q: %w", e.Get(event.Type), e.Get(attrResourceID), asMalformed(err))
	}
	return withBody(e, body, event.JSON), nil
}

func (c *Compressor) decompress(e event.Event) ([]byte, error) {
	if typ := e.Get(event.Type); !compressible(typ) {
		return nil, malformed("events of type %.100q are never compressed", typ)
	}
	size, err := contentSize(e.Data)
	if err != nil {
		return nil, err
	}
	body, err := c.inflate(e.Data, size)
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded),
		errors.Is(err, zstd.ErrFrameSizeExceeded):
		return nil, fmt.Errorf("%w: it is longer than the %d bytes that it says", ErrBomb, size)
	case err != nil:
		return nil, malformed("the body is no Zstandard frame: %.100s", err)
	case len(body) != size:
		return nil, malformed("the body has %d bytes instead of the %d that its frame says", len(body), size)
	}
	return body, nil
}

// contentSize is what a frame says that its content has. It reads nothing but
// the frame's header.
func contentSize(frame []byte) (int, error) {
	if len(frame) > MaxPayload {
		return 0, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrPayloadTooLarge, len(frame), MaxPayload)
	}
	var h zstd.Header
	switch err := h.Decode(frame); {
	case err != nil:
		return 0, malformed("the body is no Zstandard frame: %.100s", err)
	case h.Skippable || !h.HasFCS || h.FrameContentSize == 0:
		return 0, malformed("the body does not begin with a Zstandard frame that says how large its content is")
	case h.DictionaryID != 0:
		return 0, malformed("the body was compressed with a dictionary")
	case h.FrameContentSize > MaxPayload:
		return 0, fmt.Errorf("%w: %d bytes when decompressed, at most %d are allowed", ErrPayloadTooLarge, h.FrameContentSize, MaxPayload)
	case h.WindowSize > MaxPayload:
		return 0, fmt.Errorf("%w: a window of %d bytes, at most %d are allowed", ErrBomb, h.WindowSize, MaxPayload)
	case h.FrameContentSize > uint64(maxExpansion*len(frame)):
		return 0, fmt.Errorf("%w: %d bytes stand for %d, at most %d for each are allowed", ErrBomb, len(frame), h.FrameContentSize, maxExpansion)
	}
	return int(h.FrameContentSize), nil
}

// compressible says whether events of a type may be compressed: those whose
// size is up to people. Others are small, or split.
func compressible(typ string) bool { return isBundle(typ) || isReport(typ) }

func isBundle(typ string) bool {
	switch typ {
	case specCreate, specUpdate, specDelete, specResyncResponse:
		return true
	}
	return false
}

func isReport(typ string) bool { return typ == statusUpdate || typ == statusResyncResponse }

// withBody is the event with another body. It shares nothing that e's owner may
// change but the strings.
func withBody(e event.Event, body []byte, media string) event.Event {
	e.Data = nil
	e = e.Clone()
	e.Data = body
	e.Set(event.DataContentType, media)
	return e
}
