package apply

import (
	"testing"
	"time"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// TestTruce has somebody change a field at given times, and says which changes
// are put back.
func TestTruce(t *testing.T) {
	const day = 24 * time.Hour
	field := claim{path: fieldpath.MakePathOrDie("data", "x"), manager: "kubectl"}
	scale := claim{path: replicasPath, manager: "keda", scaling: true}
	for _, tt := range []struct {
		reason string
		by     claim
		at     []time.Duration
		back   []bool
	}{
		{"at once: twice", field, []time.Duration{0, 1, 2, time.Minute}, []bool{true, true, false, false}},
		{"far apart: always", field, []time.Duration{0, time.Hour, 2 * time.Hour, day}, []bool{true, true, true, true}},
		{
			"one who goes on: once after 5 min, 10, 20, 40, and then every hour", field,
			[]time.Duration{
				0, 1, 4 * time.Minute, 6 * time.Minute, 7 * time.Minute, 15 * time.Minute, 17 * time.Minute,
				36 * time.Minute, 38 * time.Minute, 77 * time.Minute, 79 * time.Minute, 80 * time.Minute, 138 * time.Minute, 140 * time.Minute,
			},
			[]bool{true, true, false, true, false, false, true, false, true, false, true, false, false, true},
		},
		{"one who stopped for long begins anew", field, []time.Duration{0, 1, day, day + 1, day + 2}, []bool{true, true, true, true, false}},
		{"who scales keeps it", scale, []time.Duration{0, 1, time.Hour, day}, []bool{true, true, false, false}},
	} {
		var m memory
		began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for i, after := range tt.at {
			now := began.Add(after)
			m = m.reopen(now)
			back := !m.contests[tt.by.field()].lost()
			if back != tt.back[i] {
				t.Errorf("%s: change %d, after %s, is put back: %v, want %v", tt.reason, i+1, after, back, tt.back[i])
			}
			if back {
				m = m.revert([]claim{tt.by}, now)
			}
			if m.due(now) {
				t.Errorf("%s: after change %d the next is due at once", tt.reason, i+1)
			}
		}
	}
}
