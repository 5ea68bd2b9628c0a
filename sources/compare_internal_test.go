package sources

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/codec"
)

func TestLacks(t *testing.T) {
	for name, tc := range map[string]struct {
		reason      string
		held        []Held
		listed      []codec.Version
		want        []string
		wantUnknown int
	}{
		"nothing held": {
			reason: "an ID without a tombstone may be another source's, so it is counted and not deleted",
			listed: []codec.Version{{ID: "a", Generation: 3}}, wantUnknown: 1,
		},
		"nothing listed": {
			reason: "an agent without state gets everything",
			held:   []Held{{ID: "a", Generation: 1, Reported: 1}, {ID: "b", Generation: 7}}, want: []string{"a", "b"},
		},
		"newer": {
			reason: "the agent has an older version",
			held:   []Held{{ID: "a", Generation: 4}}, listed: []codec.Version{{ID: "a", Generation: 3}}, want: []string{"a"},
		},
		"same": {
			reason: "the agent has it; whether it reported does not matter here",
			held:   []Held{{ID: "a", Generation: 3}}, listed: []codec.Version{{ID: "a", Generation: 3}},
		},
		"older": {
			reason: "a source restored from a backup must not roll a cluster back",
			held:   []Held{{ID: "a", Generation: 2}}, listed: []codec.Version{{ID: "a", Generation: 3}},
		},
		"unversioned": {
			reason: "generation 0 cannot be compared and is always sent",
			held:   []Held{{ID: "a"}}, listed: []codec.Version{{ID: "a", Generation: 3}}, want: []string{"a"},
		},
		"deleting, listed": {
			reason: "the agent has not heard of the deletion, even if its version says it has",
			held:   []Held{{ID: "a", Generation: 3, Deleting: true}}, listed: []codec.Version{{ID: "a", Generation: 3}}, want: []string{"a"},
		},
		"deleting, not listed": {
			reason: "an agent that knows nothing of it has to confirm all the same",
			held:   []Held{{ID: "a", Generation: 3, Deleting: true}}, want: []string{"a"},
		},
		"listed as 0": {
			reason: "a version of 0 is what an unlisted work counts as",
			held:   []Held{{ID: "a", Generation: 1}}, listed: []codec.Version{{ID: "a"}}, want: []string{"a"},
		},
		"mixed": {
			reason: "each work is judged on its own",
			held:   []Held{{ID: "a", Generation: 2}, {ID: "b", Generation: 2}},
			listed: []codec.Version{{ID: "a", Generation: 2}, {ID: "b", Generation: 1}, {ID: "c", Generation: 9}},
			want:   []string{"b"}, wantUnknown: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			lacking, unknown := lacks(tc.held, tc.listed)
			var got []string
			for _, h := range lacking {
				got = append(got, h.ID)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			if unknown != tc.wantUnknown {
				t.Errorf("%s: %d unknown works, want %d", tc.reason, unknown, tc.wantUnknown)
			}
		})
	}
}

func TestUnreported(t *testing.T) {
	got := unreported([]Held{
		{ID: "reported", Generation: 3, Reported: 3},
		{ID: "never", Generation: 1},
		{ID: "older", Generation: 3, Reported: 2},
		{ID: "deleting", Generation: 3, Reported: 3, Deleting: true},
		{ID: "unversioned"},
	})
	var ids []string
	for _, h := range got {
		ids = append(ids, h.ID)
	}
	if diff := cmp.Diff([]string{"never", "older", "deleting"}, ids); diff != "" {
		t.Errorf("works that the cluster may never have got (-want +got):\n%s", diff)
	}
}
