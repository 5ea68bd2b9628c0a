package sources

import (
	"testing"
	"time"

	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

func TestMeet(t *testing.T) {
	start := time.Unix(1700000000, 0)
	type step struct {
		key               byte
		after             time.Duration
		newest, duplicate bool
	}
	for name, tc := range map[string]struct {
		reason string
		steps  []step
	}{
		"restarts": {
			reason: "each takes the place of the one before",
			steps:  []step{{1, 0, true, false}, {2, time.Hour, true, false}, {3, 2 * time.Hour, true, false}},
		},
		"under way": {
			reason: "events of the one before may still come for a minute",
			steps:  []step{{1, 0, true, false}, {2, time.Second, true, false}, {1, time.Minute, false, false}},
		},
		"two at a time": {
			reason: "an instance that was replaced long ago still speaks",
			steps:  []step{{1, 0, true, false}, {2, time.Second, true, false}, {1, 2 * time.Minute, false, true}, {2, 2 * time.Minute, true, false}},
		},
		"the later one is gone": {
			reason: "somebody has to be the cluster's agent",
			steps:  []step{{1, 0, true, false}, {2, time.Second, true, false}, {1, time.Hour, true, false}, {1, 2 * time.Hour, true, false}},
		},
		"three at a time": {
			reason: "all of them are remembered",
			steps: []step{
				{1, 0, true, false},
				{2, time.Second, true, false},
				{3, 2 * time.Second, true, false},
				{1, 2 * time.Minute, false, true},
				{2, 2 * time.Minute, false, true},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var p peer
			for i, s := range tc.steps {
				newest, duplicate := p.meet(digest.Key{s.key}, start.Add(s.after))
				if newest != s.newest || duplicate != s.duplicate {
					t.Errorf("%s: step %d: newest %v, duplicate %v; want %v, %v", tc.reason, i, newest, duplicate, s.newest, s.duplicate)
				}
			}
			for i := range 100 {
				p.meet(digest.Key{byte(i)}, start.Add(3*time.Hour))
			}
			if len(p.instances) > maxInstances {
				t.Errorf("%d instances are remembered", len(p.instances))
			}
		})
	}
}
