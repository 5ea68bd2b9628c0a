//go:build !race

package codec_test

import (
	"testing"

	"github.com/fleetcast-io/fleetcast/codec"
)

// TestAllocations keeps the path that every event takes from growing. Each
// limit is what was reached, and one.
//
// The race detector makes pools drop what they hold, which counts as
// allocations, so this file is left out under it.
func TestAllocations(t *testing.T) {
	bundle, report := sampleBundle(t), sampleReport(t)
	summary := conversation(t)["digest"]
	said := announced(t, summary)
	spec, status := encoded(t, bundle), encoded(t, report)
	for _, tc := range []struct {
		name string
		most float64
		run  func() error
	}{
		{"encode a bundle", 5, func() error { _, err := bundle.Encode(codec.Update); return err }},
		{"decode a bundle", 3, func() error { _, _, err := codec.Decode(spec); return err }},
		{"encode a report", 5, func() error { _, err := report.Encode(codec.Update); return err }},
		{"decode a report", 3, func() error { _, _, err := codec.Decode(status); return err }},
		{"see that a report confirms no deletion", 1, func() error { _, err := report.Deleted(); return err }},
		{"encode a digest", 9, func() error { _, err := summary.Encode(codec.Announce); return err }},
		{"decode a digest", 11, func() error { _, _, err := codec.Decode(said); return err }},
	} {
		got := testing.AllocsPerRun(200, func() {
			if err := tc.run(); err != nil {
				t.Fatal(err)
			}
		})
		if got > tc.most {
			t.Errorf("%s: %v allocations, at most %v are allowed", tc.name, got, tc.most)
		}
	}
}
