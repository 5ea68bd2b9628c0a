package apply_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply"
)

// with returns a work with one config map under a strategy.
func (c *cluster) with(name, x string, u *workv1.UpdateStrategy) *story {
	c.Helper()
	w := c.newWork(name, c.configMap("a", map[string]string{"x": x}))
	if u != nil {
		w.strategy(*u, "", "configmaps")
	}
	return w
}

func (s *story) orphan() {
	s.work.Spec.DeleteOption = &workv1.DeleteOption{PropagationPolicy: workv1.DeletePropagationPolicyTypeOrphan}
	s.work.Generation++
}

// wantContest says whether a work is told that another one has the object first.
func wantContest(t *testing.T, reason string, w *story, first string) {
	t.Helper()
	status, err := w.apply()
	if err != nil {
		t.Errorf("%s: Apply asks for another try: %v", reason, err)
	}
	if got := manifestCondition(status, 0, workv1.ManifestApplied); got != manifestFailed {
		t.Errorf("%s: Applied = %s, want %s", reason, got, manifestFailed)
	}
	if got := manifestMessage(status, 0); !strings.Contains(got, first+" has the object first") {
		t.Errorf("%s: message %q does not name %s", reason, got, first)
	}
}

func wantApplied(t *testing.T, reason string, w *story, message string) {
	t.Helper()
	status, err := w.apply()
	if err != nil {
		t.Errorf("%s: Apply: %v", reason, err)
	}
	if got := manifestCondition(status, 0, workv1.ManifestApplied); got != manifestApplied {
		t.Errorf("%s: Applied = %s: %s", reason, got, manifestMessage(status, 0))
	}
	if got := manifestMessage(status, 0); !strings.Contains(got, message) {
		t.Errorf("%s: message = %q, want %q in it", reason, got, message)
	}
}

func wantData(t *testing.T, reason string, c *cluster, x string) {
	t.Helper()
	if diff := cmp.Diff(map[string]string{"x": x}, c.data("a")); diff != "" {
		t.Errorf("%s: data (-want +got):\n%s", reason, diff)
	}
}

const (
	plainly   = "The manifest is applied"
	firstSays = "The manifest is applied, which keeps the object from work two"
)

// TestWorksThatDisagree under each pair of strategies that write: the one that
// has the object first keeps it, whatever happens in which order.
func TestWorksThatDisagree(t *testing.T) {
	forced := serverSide(workv1.ServerSideApplyConfig{Force: true})
	other := serverSide(workv1.ServerSideApplyConfig{FieldManager: "work-agent-other"})
	strategies := map[string]*workv1.UpdateStrategy{"Update": nil, "ServerSideApply": &forced, "unforced": &other}
	for one := range strategies {
		for two := range strategies {
			t.Run(one+" and "+two, func(t *testing.T) {
				c := newCluster(t)
				first, second := c.with("one", "1", strategies[one]), c.with("two", "2", strategies[two])
				wantApplied(t, "alone", first, plainly)
				split := one != two && one != "Update" && two != "Update"
				if split {
					// Field managers of their own: the server says who has which field.
					if _, err := second.apply(); err != nil {
						t.Fatal(err)
					}
					wantData(t, "nothing is forced on the first", c, "1")
					return
				}
				wantContest(t, "it comes second", second, "work one")
				wantApplied(t, "it is told", first, firstSays)
				version := c.get(configMaps, c.namespace, "a").GetResourceVersion()
				for range 10 {
					if rand.N(3) == 0 {
						c.restart(apply.Options{})
					}
					if rand.N(2) == 0 {
						_, _ = first.apply()
					} else {
						wantContest(t, "nothing changed", second, "work one")
					}
				}
				if now := c.get(configMaps, c.namespace, "a").GetResourceVersion(); now != version {
					t.Errorf("the object went from version %s to %s", version, now)
				}
				wantData(t, "nothing changed", c, "1")
				if got := len(c.owners("a")); got != 2 {
					t.Errorf("%d owners, want both works", got)
				}

				if one == "unforced" {
					return // Drift is a conflict with whoever made it.
				}
				c.patch(configMaps, c.namespace, "a", `{"data":{"x":"drift"}}`)
				wantContest(t, "it is not the one to correct drift", second, "work one")
				wantApplied(t, "it corrects drift", first, "")
				wantData(t, "drift was corrected", c, "1")
			})
		}
	}
}

// TestDisagreementEnds without anybody's help when one of the works changes or
// goes.
func TestDisagreementEnds(t *testing.T) {
	same := func(w *story) { w.set(w.configMap("a", map[string]string{"x": "same"})) }
	for name, tt := range map[string]struct {
		reason string
		change func(t *testing.T, first, second *story)
		x      string
		left   []string
	}{
		"first goes": {"the second takes over", func(t *testing.T, first, _ *story) {
			if _, err := first.delete(); err != nil {
				t.Fatal(err)
			}
		}, "2", []string{"two"}},
		"second goes": {"nothing happens to the object", func(t *testing.T, _, second *story) {
			if _, err := second.delete(); err != nil {
				t.Fatal(err)
			}
		}, "1", []string{"one"}},
		"first drops it": {"the second takes over", func(_ *testing.T, first, _ *story) {
			first.set(first.configMap("b", nil))
			first.mustApply()
		}, "2", []string{"one", "two"}},
		"first orphans it": {"the second takes over", func(_ *testing.T, first, _ *story) {
			first.orphan()
			_, _ = first.apply()
		}, "2", []string{"two"}},
		"first says the same": {"both are applied", func(_ *testing.T, first, _ *story) {
			first.set(first.configMap("a", map[string]string{"x": "2"}))
			first.mustApply()
		}, "2", []string{"one", "two"}},
		"second says the same": {"both are applied", func(_ *testing.T, _, second *story) {
			second.set(second.configMap("a", map[string]string{"x": "1"}))
		}, "1", []string{"one", "two"}},
		"first only creates": {"it does not mind", func(_ *testing.T, first, _ *story) {
			first.strategy(workv1.UpdateStrategy{Type: workv1.UpdateStrategyTypeCreateOnly}, "", "configmaps")
			first.mustApply()
		}, "2", []string{"one", "two"}},
		"both change": {"both are applied", func(_ *testing.T, first, second *story) {
			same(second)
			_, _ = second.apply()
			same(first)
			first.mustApply()
		}, "same", []string{"one", "two"}},
	} {
		for _, watched := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, watched %v", name, watched), func(t *testing.T) {
				c := newCluster(t)
				first, second := c.with("one", "1", nil), c.with("two", "2", nil)
				if watched {
					c.run()
				}
				first.mustApply()
				wantContest(t, "both are there", second, "work one")
				tt.change(t, first, second)
				c.until(tt.reason, func() bool {
					settled := true
					for _, w := range []*story{first, second} {
						if slices.Contains(tt.left, w.work.Name) {
							status, err := w.apply()
							settled = settled && err == nil && condition(status, workv1.WorkApplied) == workApplied && manifestMessage(status, 0) == plainly
						}
					}
					return settled
				})
				wantData(t, tt.reason, c, tt.x)
			})
		}
	}
}

// TestTheOtherIsTold: whom a change of one work concerns looks at it.
func TestTheOtherIsTold(t *testing.T) {
	c := newCluster(t)
	first, second := c.with("one", "1", nil), c.with("two", "2", nil)
	c.run()
	first.mustApply()
	wantContest(t, "both are there", second, "work one")
	c.untilTold("one-id")
	c.until("the first says so", func() bool {
		return strings.HasPrefix(manifestMessage(first.mustApply(), 0), firstSays)
	})
	first.set(first.configMap("a", map[string]string{"x": "3"}))
	first.mustApply()
	c.untilTold("two-id")
	wantContest(t, "it has another content, and not the wanted", second, "work one")
	if _, err := first.delete(); err != nil {
		t.Fatal(err)
	}
	c.untilTold("two-id")
	c.until("the second takes over", func() bool {
		status, _ := second.apply()
		return condition(status, workv1.WorkApplied) == workApplied
	})
	wantData(t, "the first is gone", c, "2")
}

// TestWorksThatDisagreeOverSources: nothing of another source's object changes.
func TestWorksThatDisagreeOverSources(t *testing.T) {
	cases := map[string]struct {
		reason   string
		manifest func(c *cluster) map[string]any
		strategy *workv1.UpdateStrategy
		applied  bool
	}{
		"other content": {"it is not theirs to say", func(c *cluster) map[string]any {
			return c.configMap("a", map[string]string{"x": "2"})
		}, nil, false},
		"other content by force": {"nor by force", func(c *cluster) map[string]any {
			return c.configMap("a", map[string]string{"x": "2"})
		}, &workv1.UpdateStrategy{
			Type:            workv1.UpdateStrategyTypeServerSideApply,
			ServerSideApply: &workv1.ServerSideApplyConfig{Force: true, FieldManager: "work-agent-b"},
		}, false},
		"a label more": {"labels may mean anything", func(c *cluster) map[string]any {
			m := c.configMap("a", map[string]string{"x": "1"})
			m["metadata"].(map[string]any)["labels"] = map[string]any{"admit": "all"}
			return m
		}, nil, false},
		"the same": {"both want it, and it stays for both", func(c *cluster) map[string]any {
			return c.configMap("a", map[string]string{"x": "1"})
		}, nil, true},
	}
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			first := c.with("one", "1", nil)
			first.mustApply()
			before := c.get(configMaps, c.namespace, "a")
			second := c.newWork("two", tt.manifest(c))
			second.src = "another"
			if tt.strategy != nil {
				second.strategy(*tt.strategy, "", "configmaps")
			}
			if tt.applied {
				wantApplied(t, tt.reason, second, plainly)
			} else {
				wantContest(t, tt.reason, second, "a work of another source (AppliedManifestWork "+first.appliedName()+")")
				after := c.get(configMaps, c.namespace, "a")
				if diff := cmp.Diff(before.Object, after.Object); diff != "" {
					t.Errorf("the object changed (-before +after):\n%s", diff)
				}
			}
			if _, err := first.delete(); err != nil {
				t.Fatal(err)
			}
			if there := c.get(configMaps, c.namespace, "a") != nil; there != tt.applied {
				t.Errorf("the object is there: %v after its source removed it", there)
			}
			wantApplied(t, "the first is gone", second, plainly)
		})
	}
}

// TestLabelsAreJoined: works of one source may each add to an object what the
// others do not speak of.
func TestLabelsAreJoined(t *testing.T) {
	c := newCluster(t)
	labelled := func(key, value string) map[string]any {
		m := c.configMap("a", map[string]string{"x": "1"})
		m["metadata"].(map[string]any)["labels"] = map[string]any{key: value}
		return m
	}
	first, second, third := c.newWork("one", labelled("l1", "1")), c.newWork("two", labelled("l2", "2")), c.newWork("three", labelled("l1", "3"))
	first.mustApply()
	wantApplied(t, "it adds a label", second, plainly)
	wantContest(t, "it wants another value", third, "work one")
	wantApplied(t, "it has all it wants", first, "work three")
	if diff := cmp.Diff(map[string]string{"l1": "1", "l2": "2"}, c.get(configMaps, c.namespace, "a").GetLabels()); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

// TestHandOver: a work takes an object over from one that orphans it, and the
// object is always there.
func TestHandOver(t *testing.T) {
	c := newCluster(t)
	from, to := c.with("one", "1", nil), c.with("two", "2", nil)
	from.mustApply()
	uid := c.get(configMaps, c.namespace, "a").GetUID()
	from.work.Spec.DeleteOption = &workv1.DeleteOption{
		PropagationPolicy: workv1.DeletePropagationPolicyTypeSelectivelyOrphan,
		SelectivelyOrphan: &workv1.SelectivelyOrphan{OrphaningRules: []workv1.OrphaningRule{
			{Resource: "configmaps", Namespace: c.namespace, Name: "a"},
		}},
	}
	from.mustApply()
	if got := c.owners("a"); len(got) != 0 {
		t.Errorf("owners %v after it was orphaned", got)
	}
	wantApplied(t, "nobody owns it", to, plainly)
	wantContest(t, "it gave it away, and lists it yet", from, "work two")
	wantData(t, "the new owner has the say", c, "2")
	if _, err := from.delete(); err != nil {
		t.Fatal(err)
	}
	wantApplied(t, "the former owner is gone", to, plainly)
	if got := c.get(configMaps, c.namespace, "a"); got == nil || got.GetUID() != uid {
		t.Errorf("the object is %v, want that of before", got)
	}
}

// TestOrphansThatDisagree: an object that two works write and none owns.
func TestOrphansThatDisagree(t *testing.T) {
	c := newCluster(t)
	first, second := c.with("one", "1", nil), c.with("two", "2", nil)
	first.orphan()
	second.orphan()
	wantApplied(t, "alone", first, plainly)
	for range 3 {
		wantContest(t, "it is the younger one", second, "work one")
		wantApplied(t, "it is the older one", first, firstSays)
	}
	wantData(t, "the older one has the say", c, "1")
}

// TestOwnerThatIsGone does not keep an object from anybody.
func TestOwnerThatIsGone(t *testing.T) {
	c := newCluster(t)
	w := c.with("one", "1", nil)
	w.mustApply()
	owner := metav1.OwnerReference{APIVersion: "work.open-cluster-management.io/v1", Kind: "AppliedManifestWork", Name: "gone", UID: types.UID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")}
	live := c.get(configMaps, c.namespace, "a")
	live.SetOwnerReferences(append([]metav1.OwnerReference{owner}, live.GetOwnerReferences()...))
	if _, err := c.of(configMaps, c.namespace).Update(c.ctx, live, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.set(w.configMap("a", map[string]string{"x": "2"}))
	wantApplied(t, "nobody is there who has it first", w, plainly)
	wantData(t, "nobody is there who has it first", c, "2")
}

// TestManyWorksOfOneObject are applied in any order, again and again.
func TestManyWorksOfOneObject(t *testing.T) {
	c := newCluster(t)
	var works []*story
	for i := range 5 {
		works = append(works, c.with(fmt.Sprint("w", i), fmt.Sprint(i), nil))
	}
	var first *story
	for range 40 {
		w := works[rand.N(len(works))]
		if _, err := w.apply(); err != nil {
			t.Fatalf("Apply: %v", err)
		}
		if first == nil {
			first = w
		}
		if rand.N(8) == 0 {
			c.restart(apply.Options{})
		}
	}
	wantData(t, "the first keeps it", c, strings.TrimPrefix(first.work.Name, "w"))
	for _, w := range works {
		if w != first {
			wantContest(t, "it was not the first", w, "work "+first.work.Name)
		}
	}
}

// TestOwnerThatDoesNotHaveIt neither outranks the work that has the object nor
// keeps the object when that one goes: anybody may write a reference.
func TestOwnerThatDoesNotHaveIt(t *testing.T) {
	c := newCluster(t)
	w, other := c.with("one", "1", nil), c.newWork("other", c.configMap("b", nil))
	w.mustApply()
	other.mustApply()
	var refs []string
	for _, s := range []*story{other, w} {
		refs = append(refs, fmt.Sprintf(`{"apiVersion":"work.open-cluster-management.io/v1","kind":"AppliedManifestWork","name":%q,"uid":%q}`,
			s.appliedName(), s.appliedWork().UID))
	}
	for _, watched := range []bool{true, false} {
		if !watched {
			c.restart(apply.Options{}) // It does not know the other one either.
		}
		c.patch(configMaps, c.namespace, "a", `{"metadata":{"ownerReferences":[`+strings.Join(refs, ",")+`]}}`)
		x := fmt.Sprintf("watched %v", watched)
		w.set(w.configMap("a", map[string]string{"x": x}))
		wantApplied(t, "the other does not list it", w, plainly)
		wantData(t, "the other does not list it", c, x)
	}
	if _, err := w.delete(); err != nil {
		t.Fatal(err)
	}
	if c.get(configMaps, c.namespace, "a") != nil {
		t.Error("the object stays for a work that does not have it")
	}
}

// TestWorkMadeAnew takes over what is left of one that nobody holds any more.
func TestWorkMadeAnew(t *testing.T) {
	c, l := newCluster(t), newLedger()
	l.tell(func(l *ledger) { l.holds["one-id"], l.holds["two-id"] = true, true })
	options := apply.Options{Ledger: l, Recheck: 50 * time.Millisecond}
	c.restart(options)
	first, second := c.with("one", "1", nil), c.with("two", "2", nil)
	first.mustApply()
	wantContest(t, "both are held", second, "work one")
	l.tell(func(l *ledger) { l.holds["one-id"] = false })
	options.Recheck = time.Hour
	c.restart(options)
	for range 3 {
		wantContest(t, "the first may be on its way to an agent without a disk", second, "work one")
	}
	options.Recheck = 50 * time.Millisecond
	c.restart(options)
	c.until("nobody holds the first", func() bool {
		status, err := second.apply()
		return err == nil && condition(status, workv1.WorkApplied) == workApplied
	})
	wantData(t, "it was taken over", c, "2")
	if c.get(configMaps, c.namespace, "a") == nil || first.appliedWork() == nil {
		t.Error("something was removed")
	}
}

// TestFirstThatDoesNotMind is taken for one that does by a work that comes before
// it after a restart, until it is known better.
func TestFirstThatDoesNotMind(t *testing.T) {
	for _, strategy := range []workv1.UpdateStrategyType{workv1.UpdateStrategyTypeCreateOnly, workv1.UpdateStrategyTypeReadOnly} {
		t.Run(string(strategy), func(t *testing.T) {
			c := newCluster(t)
			first := c.with("one", "1", nil)
			first.mustApply() // As owner, which ReadOnly alone does not become.
			first.strategy(workv1.UpdateStrategy{Type: strategy}, "", "configmaps")
			if strategy == workv1.UpdateStrategyTypeCreateOnly {
				first.mustApply()
			}
			c.restart(apply.Options{Recheck: time.Hour})
			c.run()
			second := c.with("two", "2", nil)
			wantContest(t, "nobody knows what the first wants", second, "work one")
			first.mustApply()
			c.untilTold("two-id")
			wantApplied(t, "the first does not mind", second, plainly)
			wantData(t, "the first does not mind", c, "2")
		})
	}
}
