package codec_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ce "github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

const mediaZstd = "application/json+zstd"

// deployments is a work of about this size: Deployments that resemble each other
// as those of one team do.
func deployments(t testing.TB, size int) codec.Bundle {
	t.Helper()
	r := rand.New(rand.NewSource(1))
	var body strings.Builder
	body.WriteString(`{"manifests":[`)
	for i := 0; i == 0 || body.Len() < size-400; i++ {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"svc-%[1]d","namespace":"team-%[2]d",`+
			`"labels":{"app.kubernetes.io/name":"svc-%[1]d","app.kubernetes.io/version":"1.%[3]d.%[4]d","app.kubernetes.io/managed-by":"Helm"}},`+
			`"spec":{"replicas":%[2]d,"selector":{"matchLabels":{"app.kubernetes.io/name":"svc-%[1]d"}},"template":{"metadata":{"labels":`+
			`{"app.kubernetes.io/name":"svc-%[1]d"}},"spec":{"containers":[{"name":"main","image":"registry.example.com/team/svc-%[1]d@sha256:%032[5]x%032[6]x",`+
			`"ports":[{"containerPort":8080,"name":"http"}],"resources":{"requests":{"cpu":"%[4]dm","memory":"%[3]dMi"}},`+
			`"readinessProbe":{"httpGet":{"path":"/readyz","port":"http"}},"env":[{"name":"TOKEN","value":"%016[5]x"}]}]}}}}`,
			i, r.Intn(9), r.Intn(500), r.Intn(900), r.Uint64(), r.Uint64())
	}
	body.WriteString(`]}`)
	b := newBundle(t, webTier(3))
	b.Payload = []byte(body.String())
	return b
}

func compressed(t testing.TB, e event.Event) event.Event {
	t.Helper()
	small, worth := codec.NewCompressor().Compress(e)
	if !worth || !codec.Compressed(small) {
		t.Fatalf("an event of %d bytes is not worth compressing", e.Size())
	}
	return small
}

func attributesOf(e event.Event) map[string]string { return maps.Collect(e.All()) }

// TestCompressInverse: what was compressed is afterwards what it was before, in
// its attributes and in each byte of its body, and so is its digest.
func TestCompressInverse(t *testing.T) {
	c := codec.NewCompressor()
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Repeat(rapid.StringN(1, 200, -1).Draw(t, "text"), rapid.IntRange(1, 3000).Draw(t, "times"))
		body, err := json.Marshal(map[string]string{"manifests": text})
		if err != nil {
			t.Fatal(err)
		}
		m := rapid.SampledFrom([]codec.Message{
			codec.Bundle{ID: "a", Source: source, Cluster: cluster, Generation: 1, Payload: body},
			codec.Report{ID: "a", Source: source, Cluster: cluster, Agent: agent, Sequence: 1, Payload: body},
		}).Draw(t, "message")
		e, err := m.Encode(codec.Update)
		if err != nil {
			t.Fatal(err)
		}
		small, worth := c.Compress(e)
		if !codec.Compressed(small) {
			if worth || !bytes.Equal(small.Data, body) {
				t.Fatal("an event that is not compressed is not what it was")
			}
			return
		}
		if small.Size() >= e.Size() {
			t.Fatalf("%d bytes became %d", e.Size(), small.Size())
		}
		if 64*len(small.Data) < len(body) {
			t.Fatalf("%d bytes stand for %d, which no receiver takes", len(small.Data), len(body))
		}
		plain, err := c.Decompress(small)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(attributesOf(e), attributesOf(plain)); diff != "" {
			t.Fatalf("attributes (-before +after):\n%s", diff)
		}
		if _, got, err := codec.Decode(plain); err != nil || !cmp.Equal(m, got) {
			t.Fatalf("%v: (-before +after):\n%s", err, cmp.Diff(m, got))
		}
	})
}

func TestCompressWorth(t *testing.T) {
	noise := make([]byte, 40_000)
	_, _ = rand.New(rand.NewSource(1)).Read(noise) // Never fails.
	incompressible := deployments(t, 2000)
	incompressible.Payload = []byte(`{"manifests":["` + base64.StdEncoding.EncodeToString(noise) + `"]}`)
	tombstone := newBundle(t, deletedWebTier())
	for _, tc := range []struct {
		reason     string
		e          event.Event
		worth, any bool
	}{
		{"a small work", encoded(t, newBundle(t, webTier(3))), false, false},
		{"a work of 2 KB", encoded(t, deployments(t, 2<<10)), true, true},
		{"a work of 20 KB", encoded(t, deployments(t, 20<<10)), true, true},
		{"random bytes in base64 lose a quarter of the body, and less of the event", encoded(t, incompressible), false, true},
		{"a deletion has no body", encoded(t, tombstone), false, false},
		{"digests are not compressed", announced(t, sampleEntries()), false, false},
	} {
		small, worth := codec.NewCompressor().Compress(tc.e)
		if worth != tc.worth || codec.Compressed(small) != tc.any {
			t.Errorf("%s: worth it: %v, compressed: %v, %d bytes became %d", tc.reason, worth, codec.Compressed(small), tc.e.Size(), small.Size())
		}
	}
}

// TestCompressTwice: the second time does nothing.
func TestCompressTwice(t *testing.T) {
	small := compressed(t, encoded(t, deployments(t, 20<<10)))
	if again, worth := codec.NewCompressor().Compress(small); worth || !bytes.Equal(again.Data, small.Data) {
		t.Error("it was compressed twice")
	}
}

// frame is a Zstandard frame as somebody else's encoder makes one.
func frame(t testing.TB, content []byte, o ...zstd.EOption) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, o...)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(content, nil)
}

// stream is a frame that does not say how large its content is.
func stream(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	for part := range bytes.Lines(bytes.ReplaceAll(content, []byte(","), []byte(",\n"))) {
		if _, err := w.Write(part); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// claiming is a frame of one segment whose header says that its content has this
// size (RFC 8878, section 3.1.1.1).
func claiming(size uint32, blocks []byte) []byte {
	f := []byte{0x28, 0xb5, 0x2f, 0xfd, 0b1010_0000}
	return append(binary.LittleEndian.AppendUint32(f, size), blocks...)
}

// rle is a last block that stands for n times a byte, in four bytes.
func rle(b byte, n uint32, last bool) []byte {
	head := n<<3 | 1<<1
	if last {
		head |= 1
	}
	return append(binary.LittleEndian.AppendUint32(nil, head)[:3], b)
}

// bomb is a frame of blocks of 128 KiB each, at four bytes for a block.
func bomb(size uint32, blocks int) []byte {
	var b []byte
	for i := range blocks {
		b = append(b, rle(' ', 128<<10, i == blocks-1)...)
	}
	return claiming(size, b)
}

func TestDecompressRefuses(t *testing.T) {
	e := encoded(t, deployments(t, 20<<10))
	body := e.Data
	good := compressed(t, e)
	with := func(data []byte) event.Event {
		out := good.Clone()
		out.Data = data
		return out
	}
	flipped := bytes.Clone(good.Data)
	flipped[len(flipped)/2] ^= 0x10
	dictionary := bytes.Clone(good.Data)
	dictionary[4] |= 1 // A dictionary's ID of one byte follows.
	large := bytes.Repeat([]byte(`{"a":1}`), codec.MaxPayload/7+1)
	typ := with(good.Data)
	typ.Set(event.Type, codec.DataType+".spec.resync_request")
	window := []byte{0x28, 0xb5, 0x2f, 0xfd, 0b1000_0000, 0b1_0000_000}
	window = append(binary.LittleEndian.AppendUint32(window, 100), rle(' ', 100, true)...)
	for _, tc := range []struct {
		reason string
		e      event.Event
		want   error // Beside ErrMalformed, which all wrap.
	}{
		{"plain bytes that say to be compressed", with(body), nil},
		{"nothing", with(nil), nil},
		{"the magic number alone", with(good.Data[:4]), nil},
		{"a frame cut short in its header", with(good.Data[:6]), nil},
		{"a frame cut short by half", with(good.Data[:len(good.Data)/2]), nil},
		{"a frame without its checksum", with(good.Data[:len(good.Data)-4]), nil},
		{"a bit that was changed", with(flipped), nil},
		{"a frame that needs a dictionary", with(dictionary), nil},
		{"a frame that does not say its size", with(stream(t, body)), nil},
		{"a frame that is skipped", with([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}), nil},
		{"text behind the frame", with(append(bytes.Clone(good.Data), "more"...)), nil},
		{"another frame behind it", with(append(bytes.Clone(good.Data), good.Data...)), codec.ErrBomb},
		{"a type that is never compressed", typ, nil},
		{"more than a body may have", with(frame(t, large)), codec.ErrPayloadTooLarge},
		{"more than a body may have, compressed", with(make([]byte, codec.MaxPayload+1)), codec.ErrPayloadTooLarge},
		{"8 MiB in 300 bytes", with(bomb(8<<20, 64)), codec.ErrBomb},
		{"8 MiB that say to be one", with(bomb(16<<10, 64)), codec.ErrBomb},
		{"2 GiB that say to be nothing much", with(bomb(1<<20, 1<<14)), codec.ErrBomb},
		{"a window of 64 MiB", with(window), codec.ErrBomb},
	} {
		plain, err := codec.NewCompressor().Decompress(tc.e)
		if !errors.Is(err, codec.ErrMalformed) || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: got %d bytes and error %v, want %v", tc.reason, len(plain.Data), err, tc.want)
		}
		if tc.want == nil && (errors.Is(err, codec.ErrBomb) || errors.Is(err, codec.ErrPayloadTooLarge)) {
			t.Errorf("%s is no bomb: %v", tc.reason, err)
		}
		if err != nil && len(err.Error()) > 500 {
			t.Errorf("%s: an error of %d bytes", tc.reason, len(err.Error()))
		}
	}
}

// TestDecompressForeign: frames of other encoders are read, whatever their level
// and window.
func TestDecompressForeign(t *testing.T) {
	e := encoded(t, deployments(t, 300<<10))
	small := compressed(t, e)
	for _, level := range []zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBestCompression} {
		for _, o := range [][]zstd.EOption{
			nil, {zstd.WithWindowSize(8 << 20)}, {zstd.WithEncoderCRC(false)}, {zstd.WithEncoderPadding(4096)}, {zstd.WithSingleSegment(true)},
		} {
			small.Data = frame(t, e.Data, append(o, zstd.WithEncoderLevel(level))...)
			plain, err := codec.NewCompressor().Decompress(small)
			if err != nil || !bytes.Equal(plain.Data, e.Data) {
				t.Errorf("level %v: %v", level, err)
			}
		}
	}
}

// TestCompressedIsRefused: whoever does not know the capability, or forgets to
// decompress, refuses the event for its content type, whatever it says besides.
// That goes for Decode, and for the CloudEvents SDK, which OCM's peers read data
// with. Which work it is about can be told all the same.
func TestCompressedIsRefused(t *testing.T) {
	b := deployments(t, 20<<10)
	small := compressed(t, encoded(t, b))
	if _, _, err := codec.Decode(small); !errors.Is(err, codec.ErrUnknownEncoding) || !errors.Is(err, codec.ErrMalformed) {
		t.Errorf("Decode: %v", err)
	}
	if id, generation, ok := codec.Identify(small); !ok || id != b.ID || generation != b.Generation {
		t.Errorf("Identify: %q, %d, %v", id, generation, ok)
	}
	if from, to := codec.Between(small); from != source || to != cluster {
		t.Errorf("Between: %q, %q", from, to)
	}
	text, err := small.FormatStructured()
	if err != nil {
		t.Fatal(err)
	}
	var theirs ce.Event
	if err := json.Unmarshal(text, &theirs); err != nil {
		t.Fatal(err)
	}
	var manifests map[string]any
	if err := theirs.DataAs(&manifests); err == nil || !strings.Contains(err.Error(), mediaZstd) {
		t.Errorf("the CloudEvents SDK read %v: %v", manifests, err)
	}
	back, err := event.ParseStructured(event.StructuredJSON, text)
	if err != nil || !bytes.Equal(back.Data, small.Data) {
		t.Errorf("in structured mode its bytes do not stay the same: %v", err)
	}
	if from, _ := codec.Between(encoded(t, newReport(t, b, appliedStatus(), 1))); from != source {
		t.Errorf("a report is on a work of source %q", from)
	}
}

// TestCompressorIsShared uses one from many goroutines, with bombs among what it
// reads.
func TestCompressorIsShared(t *testing.T) {
	c := codec.NewCompressor()
	e := encoded(t, deployments(t, 20<<10))
	small := compressed(t, e)
	hostile := small.Clone()
	hostile.Data = bomb(8<<10, 64)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				if _, err := c.Decompress(hostile); !errors.Is(err, codec.ErrBomb) {
					t.Errorf("bomb: %v", err)
				}
				again, _ := c.Compress(e)
				if plain, err := c.Decompress(again); err != nil || !bytes.Equal(plain.Data, e.Data) {
					t.Errorf("it is not what it was: %v", err)
				}
			}
		})
	}
	all.Wait()
}

// A zstdGolden is a compressed event as it is on the wire of MQTT.
type zstdGolden struct {
	ContentType string            `json:"contentType"`
	Properties  map[string]string `json:"userProperties"`
	Payload     []byte            `json:"payloadBase64"`
}

// TestCompressedGolden: the golden event is bundle.json, and the example of the
// protocol's page. Encoders may make other frames of the same body.
func TestCompressedGolden(t *testing.T) {
	path := filepath.FromSlash("testdata/zstd/bundle.json")
	want := readGolden(t, "testdata/bundle.json").event(t)
	want.Data = compact(t, want.Data)
	if *update {
		g := zstdGolden{mediaZstd, goldenOf(want).Properties, frame(t, want.Data)}
		text, err := json.MarshalIndent(g, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(text, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var g zstdGolden
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatal(err)
	}
	small, err := event.FromProperties(g.ContentType, maps.All(g.Properties), g.Payload)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := codec.NewCompressor().Decompress(small)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(attributesOf(want), attributesOf(plain)); diff != "" || !bytes.Equal(want.Data, plain.Data) {
		t.Errorf("body %s; attributes (-bundle.json +decompressed):\n%s", plain.Data, diff)
	}
	page, err := os.ReadFile(filepath.FromSlash("../docs/protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n### Compression\n")
	section, _, _ = strings.Cut(section, "\n#")
	found := examples(section)
	if len(found) != 1 {
		t.Fatalf("%d examples of a compressed event", len(found))
	}
	if diff := cmp.Diff(shortened(t, text), shortened(t, []byte(found[0]))); diff != "" {
		t.Errorf("the page's example (-golden +page):\n%s", diff)
	}
}

// FuzzDecompress: whatever a body holds, it is refused in one of the known ways,
// or it is a frame of what came out.
func FuzzDecompress(f *testing.F) {
	e := encoded(f, deployments(f, 3000))
	good := compressed(f, e)
	f.Add(good.Data)
	f.Add(good.Data[:20])
	f.Add(bomb(8<<10, 3))
	f.Add(bomb(128<<10, 1))
	f.Add(frame(f, []byte(`{}`)))
	f.Add(append(frame(f, []byte(`{}`)), frame(f, []byte(`{}`))...))
	f.Fuzz(func(t *testing.T, data []byte) {
		small := good.Clone()
		small.Data = data
		plain, err := codec.NewCompressor().Decompress(small)
		if err != nil {
			if !errors.Is(err, codec.ErrMalformed) {
				t.Fatalf("error %v is of no kind", err)
			}
			return
		}
		if len(plain.Data) == 0 || len(plain.Data) > min(codec.MaxPayload, 64*len(data)) {
			t.Fatalf("%d bytes became %d", len(data), len(plain.Data))
		}
		r, err := zstd.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if want, err := io.ReadAll(r); err != nil || !bytes.Equal(want, plain.Data) {
			t.Fatalf("another reader has %d bytes, not %d: %v", len(want), len(plain.Data), err)
		}
	})
}
