package codec_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

func goldenFiles(t testing.TB) []string {
	t.Helper()
	var files []string
	for _, pattern := range []string{"testdata/*.json", "testdata/ocm/*.json"} {
		found, err := filepath.Glob(filepath.FromSlash(pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	if len(files) == 0 {
		t.Fatal("no golden files")
	}
	return files
}

// FuzzDecode gives Decode attributes, one per line, and a body. What it takes
// must be possible to send again, and read as the same.
func FuzzDecode(f *testing.F) {
	for _, file := range goldenFiles(f) {
		e := readGolden(f, filepath.ToSlash(file)).event(f)
		var attributes strings.Builder
		for name, value := range e.All() {
			attributes.WriteString(name + ":" + value + "\n")
		}
		f.Add(attributes.String(), e.Data)
	}
	f.Fuzz(func(t *testing.T, attributes string, body []byte) {
		e := event.Of(body)
		for line := range strings.Lines(attributes) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
			e.Set(name, value)
		}
		action, m, err := codec.Decode(e)
		if err != nil {
			if !errors.Is(err, codec.ErrMalformed) && !errors.Is(err, codec.ErrUnknownType) &&
				!errors.Is(err, codec.ErrUnsupportedVersion) {
				t.Fatalf("error %v is of no kind", err)
			}
			return
		}
		again, err := m.Encode(action)
		if err != nil {
			t.Fatalf("%+v was read and cannot be sent: %v", m, err)
		}
		actionAgain, mAgain, err := codec.Decode(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, mAgain, cmpopts.EquateEmpty()); diff != "" || action != actionAgain {
			t.Fatalf("action %q became %q (-first +second):\n%s", action, actionAgain, diff)
		}
	})
}

// FuzzWork: a work that can be read can be bundled again, without loss.
func FuzzWork(f *testing.F) {
	for _, w := range []codec.Bundle{newBundle(f, webTier(3)), newBundle(f, deletedWebTier())} {
		f.Add(w.Metadata, w.Payload, w.Trace)
	}
	f.Add([]byte(`{"annotations":{"a":"b"}}`), []byte(`{"manifests":[{}],"executer":{}}`), `{"logging.open-cluster-management.io/a":"b"}`)
	f.Fuzz(func(t *testing.T, metadata, payload []byte, trace string) {
		b := codec.Bundle{ID: "a", Source: source, Cluster: cluster, Generation: 1, Metadata: metadata, Payload: payload, Trace: trace}
		w, err := b.Work()
		if err != nil {
			if !errors.Is(err, codec.ErrMalformed) {
				t.Fatalf("error %v is of no kind", err)
			}
			return
		}
		// The metadata may ask for another generation, or be large.
		delete(w.Annotations, "cloudevents.open-cluster-management.io/resourceversion")
		again, err := codec.NewBundle(source, w)
		if errors.Is(err, codec.ErrMetadataTooLarge) || errors.Is(err, codec.ErrPayloadTooLarge) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		wAgain, err := again.Work()
		if err != nil {
			t.Fatal(err)
		}
		w.ManagedFields = nil
		delete(w.Annotations, "kubectl.kubernetes.io/last-applied-configuration")
		if diff := cmp.Diff(w, wAgain, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-first +second):\n%s", diff)
		}
	})
}

// FuzzStatus: a status that can be read can be reported again, without loss,
// and Deleted agrees with it.
func FuzzStatus(f *testing.F) {
	for _, file := range goldenFiles(f) {
		if strings.Contains(file, "report") || strings.Contains(file, "status-") {
			f.Add([]byte(readGolden(f, filepath.ToSlash(file)).Payload))
		}
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		r := codec.Report{ID: "a", Payload: payload}
		s, err := r.Status()
		if err != nil {
			if !errors.Is(err, codec.ErrMalformed) {
				t.Fatalf("error %v is of no kind", err)
			}
			return
		}
		want := false
		for _, c := range s.Conditions {
			if c.Type == "Deleted" {
				want = c.Status == "True"
				break
			}
		}
		if got, err := r.Deleted(); err != nil || got != want {
			t.Fatalf("deleted: %v, %v, want %v", got, err, want)
		}
		again, err := codec.NewReport(codec.Bundle{ID: "a", Source: source, Cluster: cluster}, s)
		if err != nil {
			t.Fatal(err)
		}
		sAgain, err := again.Status()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, sAgain, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-first +second):\n%s", diff)
		}
		if again.Hash != slowHash(t, s) {
			t.Fatalf("hash of %s is not OCM's", payload)
		}
	})
}

// FuzzBundleDigest: how metadata is spelled does not count.
func FuzzBundleDigest(f *testing.F) {
	f.Add(newBundle(f, webTier(3)).Metadata)
	f.Add([]byte(` { "labels" : { "a" : "\u0061" , "a" : "b" } , "name" : null } `))
	f.Fuzz(func(t *testing.T, metadata []byte) {
		b := codec.Bundle{ID: "a", Metadata: metadata}
		content, err := b.Digest()
		if err != nil {
			if !errors.Is(err, codec.ErrMalformed) {
				t.Fatalf("error %v is of no kind", err)
			}
			return
		}
		if b.Metadata = compact(t, metadata); digestOf(t, b) != content {
			t.Fatalf("white space counts in %s", metadata)
		}
	})
}
