package apply_test

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
)

// TestConformanceSpec_SizeLimit: a work whose manifests are too large together is
// refused as a whole, with both sizes, and what it had before stays.
func TestConformanceSpec_SizeLimit(t *testing.T) {
	c := newCluster(t)
	c.restart(apply.Options{Limits: apply.Limits{WorkBytes: 4096}})
	work := func(name string, manifests, size int) *story {
		var all []any
		for i := range manifests {
			all = append(all, c.configMap(fmt.Sprint(name, i), map[string]string{"text": strings.Repeat("x", size)}))
		}
		return c.newWork(name, all...)
	}
	for _, tt := range []struct {
		reason string
		w      *story
		fits   bool
	}{
		{"three manifests of a kilobyte", work("fits", 3, 1000), true},
		{"five of them", work("large", 5, 1000), false},
		{"one alone", work("one", 1, 5000), false},
	} {
		status, _ := tt.w.apply()
		applied := meta.FindStatusCondition(status.Conditions, workv1.WorkApplied)
		if tt.fits {
			if applied == nil || applied.Status != metav1.ConditionTrue {
				t.Errorf("%s: Applied = %+v", tt.reason, applied)
			}
			continue
		}
		if applied == nil || applied.Status != metav1.ConditionFalse ||
			!strings.Contains(applied.Message, "this agent takes 4096 (--manifest-limit)") {
			t.Errorf("%s: Applied = %+v, want False with the limit", tt.reason, applied)
		}
		if len(status.ResourceStatus.Manifests) != 0 {
			t.Errorf("%s: %d manifests have a status, want none to be looked at", tt.reason, len(status.ResourceStatus.Manifests))
		}
	}
}
