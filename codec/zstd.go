package codec

import (
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// window is how far back the encoder looks for repetitions, in bytes. It bounds
// what an encoder holds: 0.6 MB, of which the tables are the most. Larger ones
// make works of several megabytes no smaller, whose manifests resemble their
// neighbours.
const window = 128 << 10

// A Compressor compresses and decompresses the bodies of events. It is safe for
// concurrent use; as many calls as there are processors run at a time, others
// wait. What it holds between calls, some 0.6 MB for each encoder and 0.3 MB for
// each decoder, is collected as garbage when it is idle.
type Compressor struct {
	encoders, decoders sync.Pool
	// slots bounds how many of them are in use.
	slots chan struct{}
}

// NewCompressor returns a Compressor. It starts no goroutine.
func NewCompressor() *Compressor {
	return &Compressor{
		encoders: sync.Pool{New: func() any {
			return must(zstd.NewWriter(nil,
				zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(window),
				zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
				zstd.WithAllLitEntropyCompression(true))) // Certificates and the like are base64.
		}},
		decoders: sync.Pool{New: func() any {
			return must(zstd.NewReader(nil,
				zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true),
				zstd.WithDecoderMaxMemory(MaxPayload), zstd.WithDecoderMaxWindow(MaxPayload)))
		}},
		slots: make(chan struct{}, runtime.GOMAXPROCS(0)),
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // The options above are constants.
	}
	return v
}

// lend lends a coder to do. One that panics is not used again.
func lend[T any](c *Compressor, from *sync.Pool, do func(T)) {
	c.slots <- struct{}{}
	defer func() { <-c.slots }()
	coder, _ := from.Get().(T) // It holds nothing else.
	do(coder)
	from.Put(coder)
}

// deflate returns the body as one frame that says how large the body is and has
// a checksum.
func (c *Compressor) deflate(body []byte) (frame []byte) {
	lend(c, &c.encoders, func(e *zstd.Encoder) {
		// Manifests become an eighth, as a rule; the frame grows if need be.
		frame = e.EncodeAll(body, make([]byte, 0, len(body)/8+compressFrom))
	})
	return frame
}

// inflate returns the content of a frame, which has no more than size bytes.
func (c *Compressor) inflate(frame []byte, size int) (body []byte, err error) {
	lend(c, &c.decoders, func(d *zstd.Decoder) {
		body, err = d.DecodeAll(frame, make([]byte, 0, size))
	})
	return body, err
}
