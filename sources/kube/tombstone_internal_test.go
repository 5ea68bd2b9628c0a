package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
	"github.com/fleetcast-io/fleetcast/sources"
)

func TestTombstonesAreBounded(t *testing.T) {
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	stone := func(i int, confirmedBefore time.Duration) v1alpha1.Tombstone {
		at := metav1.NewTime(now.Add(-confirmedBefore))
		out := v1alpha1.Tombstone{ID: fmt.Sprintf("%05d", i), DeletedAt: at}
		if confirmedBefore > 0 {
			out.ConfirmedAt = &at
		}
		return out
	}
	for name, tc := range map[string]struct {
		reason       string
		make         func(i int) v1alpha1.Tombstone
		made         int
		saved, known int
	}{
		"confirmed": {
			"the latest 100 are kept",
			func(i int) v1alpha1.Tombstone { return stone(i, time.Duration(i+1)*time.Second) }, 800, 100, 100,
		},
		"old": {
			"30 days are enough",
			func(i int) v1alpha1.Tombstone { return stone(i, time.Duration(i+1)*24*time.Hour) }, 60, 30, 30,
		},
		"unconfirmed": {
			"what is known is not forgotten, and saved as far as it fits",
			func(i int) v1alpha1.Tombstone { return stone(i, 0) }, 1200, maxUnconfirmed, 1200,
		},
		"large": {
			"long delete options fit the object",
			func(i int) v1alpha1.Tombstone {
				out := stone(i, time.Second)
				out.DeleteOption = &workv1.DeleteOption{SelectivelyOrphan: &workv1.SelectivelyOrphan{
					OrphaningRules: []workv1.OrphaningRule{{Name: strings.Repeat("x", 100<<10)}},
				}}
				return out
			}, 20, 5, 5,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := &clusterRecord{tombstones: map[string]*tombstone{}}
			for i := range tc.made {
				c.add(tc.make(i))
			}
			saved := c.trim(now)
			if len(saved) != tc.saved || len(c.tombstones) != tc.known {
				t.Errorf("%s: %d saved and %d known of %d, want %d and %d",
					tc.reason, len(saved), len(c.tombstones), tc.made, tc.saved, tc.known)
			}
			if again := c.trim(now); len(again) != len(saved) || again[0].ID != saved[0].ID {
				t.Error("what is saved differs from time to time")
			}
		})
	}
}

// TestStandbyForgets: a replica that only watches does not keep more than the one
// that writes.
func TestStandbyForgets(t *testing.T) {
	s := &Source{id: "hub1", clusters: map[string]*clusterRecord{}, log: slog.New(slog.DiscardHandler)}
	now := metav1.Now()
	for i := range 2000 {
		a := &v1alpha1.Agent{ObjectMeta: metav1.ObjectMeta{Namespace: "c1", Name: "hub1", UID: "u", ResourceVersion: fmt.Sprint(i + 1)}}
		a.Status.Tombstones = []v1alpha1.Tombstone{{ID: fmt.Sprint(i), DeletedAt: now, ConfirmedAt: &now}}
		s.agentAdded(a)
	}
	if got := len(s.clusters["c1"].tombstones); got > maxConfirmed {
		t.Errorf("%d tombstones are remembered, want at most %d", got, maxConfirmed)
	}
}

// TestRoomForUnconfirmed: one more deletion takes nothing from those before.
func TestRoomForUnconfirmed(t *testing.T) {
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	large := func(bytes int) *workv1.DeleteOption {
		return &workv1.DeleteOption{SelectivelyOrphan: &workv1.SelectivelyOrphan{
			OrphaningRules: []workv1.OrphaningRule{{Name: strings.Repeat("x", bytes)}},
		}}
	}
	for name, tc := range map[string]struct {
		reason  string
		have    int
		option  *workv1.DeleteOption // Of the one more.
		fits    bool
		waiting bool // It may fit later.
	}{
		"few":             {"there is room", 100, nil, true, false},
		"as many as fit":  {"the cluster has to confirm some", maxUnconfirmed, nil, false, true},
		"large":           {"it fits", 100, large(300 << 10), true, false},
		"large among all": {"the others have to go first", 900, large(400 << 10), false, true},
		"too large":       {"it never fits", 0, large(maxUnconfirmedBytes), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := &clusterRecord{tombstones: map[string]*tombstone{}}
			for i := range tc.have {
				c.add(v1alpha1.Tombstone{ID: fmt.Sprintf("%05d", i), DeletedAt: metav1.NewTime(now.Add(-time.Hour))})
			}
			one := v1alpha1.Tombstone{ID: "more", DeletedAt: metav1.NewTime(now), DeleteOption: tc.option}
			err := c.room(one)
			if (err == nil) != tc.fits || errors.Is(err, errNoRoom) != tc.waiting {
				t.Errorf("%s: %v", tc.reason, err)
			}
			if err == nil {
				c.add(one)
			}
			if got := len(c.trim(now)); got != len(c.tombstones) {
				t.Errorf("%s: %d of %d are saved", tc.reason, got, len(c.tombstones))
			}
		})
	}
}

// TestSavedTombstonesStay: what two replicas added beyond the limit does not take
// the place of what the object has.
func TestSavedTombstonesStay(t *testing.T) {
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	c := &clusterRecord{tombstones: map[string]*tombstone{}}
	for i := range maxUnconfirmed {
		c.add(v1alpha1.Tombstone{ID: fmt.Sprintf("mine%05d", i), DeletedAt: metav1.NewTime(now.Add(-time.Hour))})
	}
	c.merge([]v1alpha1.Tombstone{{ID: "saved", DeletedAt: metav1.NewTime(now)}})
	saved := c.trim(now)
	if !slices.ContainsFunc(saved, func(t v1alpha1.Tombstone) bool { return t.ID == "saved" }) || len(saved) != maxUnconfirmed {
		t.Errorf("%d are saved, and what was saved before is not among them", len(saved))
	}
}

// TestOperatorsDeletionsDoNotCount: what an operator asked for in so many words
// leaves all room to others, after a restart, too.
func TestOperatorsDeletionsDoNotCount(t *testing.T) {
	now := metav1.NewTime(time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC))
	for _, byOperator := range []bool{true, false} {
		c := &clusterRecord{tombstones: map[string]*tombstone{}}
		c.deletions.works = 13
		var saved []v1alpha1.Tombstone
		for i := range 13 {
			saved = append(saved, v1alpha1.Tombstone{ID: fmt.Sprint(i), DeletedAt: now, ByOperator: byOperator})
		}
		c.merge(saved)
		for i := range 13 {
			c.deletions.enlist(fmt.Sprintf("w%02d", i), now.Time)
		}
		got := 0
		for _, d := range c.deletions.decide(DefaultBreaker) {
			if d == passed {
				got++
			}
		}
		if want := map[bool]int{true: 10, false: 0}[byOperator]; got != want {
			t.Errorf("13 deleted before, by an operator: %t: %d of 13 passed, want %d", byOperator, got, want)
		}
	}
}

// TestStatusFitsAnObject: whatever a cluster says, the API server takes it.
func TestStatusFitsAnObject(t *testing.T) {
	for name, letter := range map[string]string{"plain": "n", "quoted": "\x01", "markup": "<"} {
		t.Run(name, func(t *testing.T) {
			s := newTestSource()
			c := s.clusterOf("c1")
			text := func(i, length int) string { return fmt.Sprintf("%05d%s", i, strings.Repeat(letter, length-5)) }
			state := &sources.AgentState{Cluster: "c1", Agent: text(0, 5000), Capabilities: []string{codec.CapDigest}}
			for i := range 3000 {
				state.Unclaimed = append(state.Unclaimed, sources.Unclaimed{ID: text(i, 50+i%1000), Name: text(i, 1000), Generation: 1})
			}
			c.state = state
			now := metav1.Now()
			for i := range 3000 {
				one := v1alpha1.Tombstone{ID: text(i, 256), Name: text(i, 253), Generation: 1 << 40, DeletedAt: now}
				if i%3 == 0 {
					one.ConfirmedAt = &now
					c.add(one)
				} else if c.room(one) == nil {
					c.add(one)
				}
			}
			status := s.statusOf(c, now.Time)
			raw, err := json.Marshal(status)
			if err != nil {
				t.Fatal(err)
			}
			const fixed = 64 << 10 // Conditions, capabilities and the rest.
			if len(raw) > maxStatusBytes+fixed {
				t.Errorf("%d bytes, more than %d", len(raw), maxStatusBytes+fixed)
			}
			if len(status.Unclaimed) == 0 || len(status.Tombstones) == 0 || int(status.UnclaimedCount) < len(status.Unclaimed) {
				t.Errorf("%d unclaimed of %d, %d tombstones", len(status.Unclaimed), status.UnclaimedCount, len(status.Tombstones))
			}
		})
	}
}

// TestConditionsSayNoMoreThanIsKnown of agents that do not tell, and before they
// told.
func TestConditionsSayNoMoreThanIsKnown(t *testing.T) {
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	digests := []string{codec.CapDigest}
	for name, tc := range map[string]struct {
		state sources.AgentState
		want  map[string]string
	}{
		"of OCM": {
			sources.AgentState{Agent: "a"},
			map[string]string{"Online": "Unknown NotTold", "InSync": "Unknown NotTold", "Unclaimed": "Unknown NotTold", "Duplicate": "Unknown NotTold"},
		},
		"heard, not compared yet": {
			sources.AgentState{Agent: "a", Capabilities: digests, Online: true},
			map[string]string{"Online": "True Connected", "InSync": "False DigestsUnequal", "Unclaimed": "Unknown NotCompared", "Duplicate": "Unknown NotCompared"},
		},
		"in sync": {
			sources.AgentState{Agent: "a", Capabilities: digests, Online: true, InSync: true, SyncedAt: at},
			map[string]string{"Online": "True Connected", "InSync": "True DigestsMatch", "Unclaimed": "False AllWorksClaimed", "Duplicate": "False OneAgent"},
		},
		"offline": {
			sources.AgentState{Agent: "a", Capabilities: digests, InSync: true, SyncedAt: at},
			map[string]string{"Online": "False Silent", "InSync": "Unknown Silent", "Unclaimed": "False AllWorksClaimed", "Duplicate": "False OneAgent"},
		},
		"two": {
			sources.AgentState{Agent: "a", Capabilities: digests, Online: true, Duplicate: true},
			map[string]string{"Online": "True Connected", "InSync": "False DigestsUnequal", "Unclaimed": "Unknown NotCompared", "Duplicate": "True TwoAgents"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestSource()
			c := s.clusterOf("c1")
			c.state = &tc.state
			got := map[string]string{}
			for _, one := range s.statusOf(c, at).Conditions {
				got[one.Type] = string(one.Status) + " " + one.Reason
				if one.Message == "" {
					t.Errorf("%s says nothing", one.Type)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
		})
	}
}

// TestOldAgentsDoNotCount: neither a version that the cache has late, nor the end
// of an object that was made again.
func TestOldAgentsDoNotCount(t *testing.T) {
	s := newTestSource()
	version := func(uid, version string) *v1alpha1.Agent {
		return &v1alpha1.Agent{ObjectMeta: metav1.ObjectMeta{Namespace: "c1", Name: "hub1", UID: types.UID(uid), ResourceVersion: version}}
	}
	know := func(want string) {
		t.Helper()
		if a := s.clusterOf("c1").agent; a == nil || a.ResourceVersion != want {
			t.Errorf("version %+v counts, want %s", a, want)
		}
	}
	s.agentAdded(version("u", "7"))
	s.agentUpdated(version("u", "4"), version("u", "5"))
	know("7")
	s.agentUpdated(version("u", "7"), version("u", "6")) // The API server went back.
	know("6")
	s.agentAdded(version("v", "9"))
	s.agentAdded(version("u", "8"))
	s.agentDeleted(version("u", "8"))
	know("9")
}
