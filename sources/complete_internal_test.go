package sources

import (
	"testing"
	"time"
)

// TestLacking: what a source cannot send, or does not send yet, is wanted all
// the same.
func TestLacking(t *testing.T) {
	held := version{held: true, generation: 2}
	for name, tt := range map[string]struct {
		reason string
		excuse excuse
		want   bool
	}{
		"too large":      {"the cluster has nothing of it", excuse{cause: causeRefused, lacks: true, own: held}, true},
		"withheld":       {"its objects may be there", excuse{cause: causeWithheld, lacks: true, own: held}, true},
		"an older state": {"the cluster has the work", excuse{cause: causeRefused, own: held}, false},
		"unclaimed":      {"the source has nothing of it", excuse{cause: causeUnclaimed}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := lacking(map[string]excuse{"id": tt.excuse}); got != tt.want {
				t.Errorf("lacking = %v, want %v: %s", got, tt.want, tt.reason)
			}
		})
	}
}

// TestForgetful: one cluster that knows more than the source is enough for the
// source not to vouch for its memory of others.
func TestForgetful(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		reason string
		peer   peer
		want   bool
	}{
		"all is known": {"nothing says otherwise", peer{}, false},
		"unclaimed":    {"a work is not known", peer{unclaimed: []Unclaimed{{ID: "id"}}}, true},
		"ahead":        {"a later state is not known", peer{excuses: map[string]excuse{"id": {cause: causeAhead}}}, true},
		"refused":      {"it is known, and cannot be sent", peer{excuses: map[string]excuse{"id": {cause: causeRefused}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := &Dispatcher{peers: map[string]*peer{"c1": {}, "c2": &tt.peer}}
			if got := d.forgetful(now); got != tt.want {
				t.Errorf("forgetful = %v, want %v: %s", got, tt.want, tt.reason)
			}
			d.peers = nil
			if got := d.forgetful(now.Add(recollection / 2)); got != tt.want {
				t.Error("it was found out twice within a moment")
			}
			if d.forgetful(now.Add(recollection)) {
				t.Error("what was found out is never forgotten")
			}
		})
	}
}
