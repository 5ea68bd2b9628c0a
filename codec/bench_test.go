package codec_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// sampleBundle is a work of one ConfigMap with a body of 2 KiB.
func sampleBundle(t testing.TB) codec.Bundle {
	t.Helper()
	const size = 2048
	w := webTier(3333)
	raw := string(w.Spec.Workload.Manifests[0].Raw)
	pad := size - len(newBundle(t, w).Payload)
	w.Spec.Workload.Manifests[0].Raw = []byte(strings.Replace(raw, "blue", "blue"+strings.Repeat("x", pad), 1))
	b := newBundle(t, w)
	if len(b.Payload) != size {
		t.Fatalf("the body has %d bytes", len(b.Payload))
	}
	return b
}

func sampleReport(t testing.TB) codec.Report {
	t.Helper()
	return newReport(t, newBundle(t, webTier(3333)), appliedStatus(), 2018536199680954368)
}

func encoded(t testing.TB, m codec.Message) event.Event {
	t.Helper()
	e, err := m.Encode(codec.Update)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func benchmarkEncode(b *testing.B, m codec.Message) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Encode(codec.Update); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkDecode(b *testing.B, e event.Event) {
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := codec.Decode(e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSpecEncode(b *testing.B)   { benchmarkEncode(b, sampleBundle(b)) }
func BenchmarkSpecDecode(b *testing.B)   { benchmarkDecode(b, encoded(b, sampleBundle(b))) }
func BenchmarkStatusEncode(b *testing.B) { benchmarkEncode(b, sampleReport(b)) }
func BenchmarkStatusDecode(b *testing.B) { benchmarkDecode(b, encoded(b, sampleReport(b))) }

func BenchmarkNewBundle(b *testing.B) {
	w := webTier(3)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := codec.NewBundle(source, w); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewReport(b *testing.B) {
	bundle, s := newBundle(b, webTier(3)), appliedStatus()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := codec.NewReport(bundle, s); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHashStatus(b *testing.B) {
	s := appliedStatus()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := codec.HashStatus(s); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReportDeleted(b *testing.B) {
	r := sampleReport(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Deleted(); err != nil {
			b.Fatal(err)
		}
	}
}

// sampleEntries are the 1000 works of a whole cluster.
func sampleEntries() codec.Entries {
	s := codec.Entries{Agent: agent, Instance: key, Term: 3}
	for i := range digest.Buckets {
		s.Buckets = append(s.Buckets, uint8(i))
	}
	for i := range 1000 {
		s.Entries = append(s.Entries, codec.Entry{
			ID:   fmt.Sprintf("71913eda-1478-4abc-a625-69b6114a%04d", i),
			Name: fmt.Sprintf("work-%d", i), Generation: int64(i), Digest: digest.Content{1}, Status: strings.Repeat("a", 64),
		})
	}
	return s
}

func announced(t testing.TB, m codec.Message) event.Event {
	t.Helper()
	e, err := m.Encode(codec.Announce)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func benchmarkAnnounce(b *testing.B, m codec.Message) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Encode(codec.Announce); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDigestEncode(b *testing.B)  { benchmarkAnnounce(b, conversation(b)["digest"]) }
func BenchmarkDigestDecode(b *testing.B)  { benchmarkDecode(b, announced(b, conversation(b)["digest"])) }
func BenchmarkMatchEncode(b *testing.B)   { benchmarkAnnounce(b, conversation(b)["match"]) }
func BenchmarkMatchDecode(b *testing.B)   { benchmarkDecode(b, announced(b, conversation(b)["match"])) }
func BenchmarkBucketsEncode(b *testing.B) { benchmarkAnnounce(b, conversation(b)["buckets"]) }
func BenchmarkBucketsDecode(b *testing.B) {
	benchmarkDecode(b, announced(b, conversation(b)["buckets"]))
}
func BenchmarkEntriesEncode(b *testing.B) { benchmarkAnnounce(b, sampleEntries()) }
func BenchmarkEntriesDecode(b *testing.B) { benchmarkDecode(b, announced(b, sampleEntries())) }

func BenchmarkBundleDigest(b *testing.B) {
	bundle := sampleBundle(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := bundle.Digest(); err != nil {
			b.Fatal(err)
		}
	}
}

// benchmarkSizes are those of a small work, a usual one and a large one.
func benchmarkSizes(b *testing.B, run func(b *testing.B, e event.Event)) {
	for _, size := range []int{2 << 10, 20 << 10, 200 << 10} {
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			e := encoded(b, deployments(b, size))
			b.SetBytes(int64(len(e.Data)))
			b.ReportAllocs()
			run(b, e)
		})
	}
}

func BenchmarkCompress(b *testing.B) {
	benchmarkSizes(b, func(b *testing.B, e event.Event) {
		c := codec.NewCompressor()
		size := 0
		for b.Loop() {
			small, _ := c.Compress(e)
			size = len(small.Data)
		}
		b.ReportMetric(float64(len(e.Data))/float64(size), "ratio")
	})
}

func BenchmarkDecompress(b *testing.B) {
	benchmarkSizes(b, func(b *testing.B, e event.Event) {
		c, small := codec.NewCompressor(), compressed(b, e)
		for b.Loop() {
			if _, err := c.Decompress(small); err != nil {
				b.Fatal(err)
			}
		}
	})
}
