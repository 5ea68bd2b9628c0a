package kube

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
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
			"the latest 500 are kept",
			func(i int) v1alpha1.Tombstone { return stone(i, time.Duration(i+1)*time.Second) }, 800, 500, 500,
		},
		"old": {
			"30 days are enough",
			func(i int) v1alpha1.Tombstone { return stone(i, time.Duration(i+1)*24*time.Hour) }, 60, 30, 30,
		},
		"unconfirmed": {
			"never forgotten, and saved as far as they fit",
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
			}, 20, 7, 7,
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
