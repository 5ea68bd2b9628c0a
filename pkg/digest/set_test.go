package digest_test

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

// A work is what the sets of both kinds are made from.
type work struct {
	ID         string
	Generation int64
	Content    digest.Content
	Deleting   bool
	Status     string
}

func (w work) add(spec, status *digest.Set) {
	spec.AddSpec(w.ID, w.Generation, w.Content, w.Deleting)
	status.AddStatus(w.ID, w.Status)
}

func (w work) remove(spec, status *digest.Set) {
	spec.RemoveSpec(w.ID, w.Generation, w.Content, w.Deleting)
	status.RemoveStatus(w.ID, w.Status)
}

func setsOf(key digest.Key, works ...work) (spec, status *digest.Set) {
	spec, status = digest.NewSet(key), digest.NewSet(key)
	for _, w := range works {
		w.add(spec, status)
	}
	return spec, status
}

// Few values of each kind make works that nearly collide likely.
func drawWork() *rapid.Generator[work] {
	return rapid.Custom(func(t *rapid.T) work {
		w := work{
			ID:         rapid.OneOf(rapid.StringMatching(`[ab]{0,3}`), rapid.String()).Draw(t, "id"),
			Generation: rapid.OneOf(rapid.Int64Range(0, 3), rapid.Int64()).Draw(t, "generation"),
			Content:    digest.Content{rapid.Byte().Draw(t, "content")},
			Deleting:   rapid.Bool().Draw(t, "deleting"),
			Status:     rapid.OneOf(rapid.StringMatching(`[ab]{0,3}`), rapid.String()).Draw(t, "status"),
		}
		if w.Deleting {
			w.Content = digest.Content{}
		}
		return w
	})
}

func drawWorks() *rapid.Generator[[]work] {
	return rapid.SliceOfNDistinct(drawWork(), 0, 30, func(w work) string { return w.ID })
}

func drawKey() *rapid.Generator[digest.Key] {
	return rapid.Custom(func(t *rapid.T) digest.Key {
		return digest.Key(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "key"))
	})
}

func same(t *rapid.T, what string, a, b *digest.Set) {
	t.Helper()
	if a.Root() != b.Root() || a.All() != b.All() || a.Len() != b.Len() {
		t.Fatalf("%s: the sets differ", what)
	}
}

func TestOrderDoesNotCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key, works := drawKey().Draw(t, "key"), drawWorks().Draw(t, "works")
		spec, status := setsOf(key, works...)
		otherSpec, otherStatus := setsOf(key, rapid.Permutation(works).Draw(t, "permutation")...)
		same(t, "spec", spec, otherSpec)
		same(t, "status", status, otherStatus)
		if spec.Len() != len(works) || status.Len() != len(works) {
			t.Fatalf("%d and %d works, want %d", spec.Len(), status.Len(), len(works))
		}
	})
}

// TestRemoveUndoesAdd has works come and go in any order, also out before in.
func TestRemoveUndoesAdd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := drawKey().Draw(t, "key")
		stay, pass := drawWorks().Draw(t, "stay"), drawWorks().Draw(t, "pass")
		type step struct {
			w      work
			remove bool
		}
		var steps []step
		for _, w := range stay {
			steps = append(steps, step{w, false})
		}
		for _, w := range pass {
			steps = append(steps, step{w, false}, step{w, true})
		}
		if len(steps) > 0 {
			steps = rapid.Permutation(steps).Draw(t, "steps")
		}
		spec, status := setsOf(key)
		for _, s := range steps {
			if s.remove {
				s.w.remove(spec, status)
			} else {
				s.w.add(spec, status)
			}
		}
		wantSpec, wantStatus := setsOf(key, stay...)
		same(t, "spec", wantSpec, spec)
		same(t, "status", wantStatus, status)
	})
}

func TestDifferentSetsDiffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key, a, b := drawKey().Draw(t, "key"), drawWorks().Draw(t, "a"), drawWorks().Draw(t, "b")
		specA, statusA := setsOf(key, a...)
		specB, statusB := setsOf(key, b...)
		specs, statuses := func(works []work) []work {
			works = slices.Clone(works)
			for i := range works {
				works[i].Status = ""
			}
			return sorted(works)
		}, func(works []work) []work {
			works = slices.Clone(works)
			for i := range works {
				works[i] = work{ID: works[i].ID, Status: works[i].Status}
			}
			return sorted(works)
		}
		if got, want := specA.Root() == specB.Root(), slices.Equal(specs(a), specs(b)); got != want {
			t.Errorf("equal roots of specs: %v, want %v", got, want)
		}
		if got, want := statusA.Root() == statusB.Root(), slices.Equal(statuses(a), statuses(b)); got != want {
			t.Errorf("equal roots of statuses: %v, want %v", got, want)
		}
	})
}

func sorted(works []work) []work {
	slices.SortFunc(works, func(a, b work) int { return cmp.Compare(a.ID, b.ID) })
	return works
}

// TestOneWorkChangesItsBucket is what makes an exchange of buckets worth it.
func TestOneWorkChangesItsBucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := drawKey().Draw(t, "key")
		works, changed := drawWorks().Draw(t, "works"), drawWork().Draw(t, "changed")
		specBefore, statusBefore := setsOf(key, works...)
		specAfter, statusAfter := setsOf(key, append(works, changed)...)
		for i := range digest.Buckets {
			own := i == int(digest.BucketOf(changed.ID))
			if differ := specBefore.Bucket(i) != specAfter.Bucket(i); differ != own {
				t.Errorf("spec bucket %d differs: %v; the work's is %d", i, differ, digest.BucketOf(changed.ID))
			}
			if differ := statusBefore.Bucket(i) != statusAfter.Bucket(i); differ != own {
				t.Errorf("status bucket %d differs: %v; the work's is %d", i, differ, digest.BucketOf(changed.ID))
			}
		}
	})
}

func TestEveryFieldCounts(t *testing.T) {
	key := digest.Key{1}
	base := work{"a", 1, digest.Content{1}, false, "s"}
	rootOf := func(key digest.Key, works ...work) string {
		spec, status := setsOf(key, works...)
		return spec.Root().String() + status.Root().String()
	}
	seen := map[string]string{rootOf(key, base): "the work"}
	for reason, root := range map[string]string{
		"another key":                      rootOf(digest.Key{2}, base),
		"an empty set":                     rootOf(key),
		"an empty set of another key":      rootOf(digest.Key{2}),
		"twice the work":                   rootOf(key, base, base),
		"another ID":                       rootOf(key, work{"b", 1, digest.Content{1}, false, "s"}),
		"another generation":               rootOf(key, work{"a", 2, digest.Content{1}, false, "s"}),
		"other content":                    rootOf(key, work{"a", 1, digest.Content{2}, false, "s"}),
		"no content":                       rootOf(key, work{"a", 1, digest.Content{}, false, "s"}),
		"being deleted":                    rootOf(key, work{"a", 1, digest.Content{1}, true, "s"}),
		"another status":                   rootOf(key, work{"a", 1, digest.Content{1}, false, "t"}),
		"no status":                        rootOf(key, work{"a", 1, digest.Content{1}, false, ""}),
		"a letter moved from ID to status": rootOf(key, work{"", 1, digest.Content{1}, false, "as"}),
	} {
		if other, ok := seen[root]; ok {
			t.Errorf("%s and %s are alike", reason, other)
		}
		seen[root] = reason
	}
	deletion, otherContent := base, base
	deletion.Deleting, otherContent.Deleting, otherContent.Content = true, true, digest.Content{9}
	if rootOf(key, deletion) != rootOf(key, otherContent) {
		t.Error("the content of a deletion counts")
	}
	spec, status := setsOf(key, base)
	if spec.Bucket(int(digest.BucketOf("a"))) == status.Bucket(int(digest.BucketOf("a"))) {
		t.Error("specs and statuses are hashed alike")
	}
}

func TestBelowZero(t *testing.T) {
	set := digest.NewSet(digest.Key{1})
	set.RemoveStatus("a", "s")
	if set.Len() != -1 {
		t.Errorf("%d works after taking one out of none", set.Len())
	}
	set.AddStatus("a", "s")
	if set.Len() != 0 || set.Root() != digest.NewSet(digest.Key{1}).Root() {
		t.Error("adding does not undo removing")
	}
}

// TestAsDocumented makes the sums a second time, as docs/protocol.md says, with
// big integers and nothing of the package's.
func TestAsDocumented(t *testing.T) {
	key := digest.Key{0: 0xaa, 15: 0x55}
	length := func(n int) string { return string(binary.BigEndian.AppendUint64(nil, uint64(n))) }
	hash := func(parts ...string) *big.Int {
		h := sha256.New()
		for _, part := range parts {
			_, _ = h.Write([]byte(part))
		}
		return new(big.Int).SetBytes(h.Sum(nil))
	}
	spec, status := digest.NewSet(key), digest.NewSet(key)
	sums := map[string]map[uint8]*big.Int{"spec": {}, "stat": {}}
	for i := range 3000 {
		id, statusHash := fmt.Sprintf("work-%d", i), fmt.Sprintf("status-%d", i)
		deleting, content := i%7 == 0, sha256.Sum256([]byte(id))
		spec.AddSpec(id, int64(i), content, deleting)
		status.AddStatus(id, statusHash)
		flag, counted := "\x00", content
		if deleting {
			flag, counted = "\x01", digest.Content{}
		}
		bucket := sha256.Sum256([]byte(id))[0]
		for label, h := range map[string]*big.Int{
			"spec": hash("fleetcast/spec/1", string(key[:]), length(len(id)), id, length(i), flag, string(counted[:])),
			"stat": hash("fleetcast/stat/1", string(key[:]), length(len(id)), id, length(len(statusHash)), statusHash),
		} {
			if sums[label][bucket] == nil {
				sums[label][bucket] = new(big.Int)
			}
			sum := sums[label][bucket]
			sum.Add(sum, h).Mod(sum, new(big.Int).Lsh(big.NewInt(1), 256))
		}
	}
	for label, set := range map[string]*digest.Set{"spec": spec, "stat": status} {
		text := "fleetcast/root/1" + string(key[:]) + length(3000)
		for i := range digest.Buckets {
			var sum [32]byte
			sums[label][uint8(i)].FillBytes(sum[:])
			text += string(sum[:])
			if set.Bucket(i) != digest.Short(sum[:8]) {
				t.Errorf("%s bucket %d is %s, want %x", label, i, set.Bucket(i), sum[:8])
			}
		}
		if want := digest.Root(sha256.Sum256([]byte(text))); set.Root() != want {
			t.Errorf("%s root is %s, want %s", label, set.Root(), want)
		}
	}
}

// FuzzSet gives two lists of works as bytes: equal lists have equal roots, and
// only they.
func FuzzSet(f *testing.F) {
	f.Add([]byte("aab"), []byte("baa"))
	f.Add([]byte{}, []byte{0})
	f.Add([]byte{1, 1, 1}, []byte{1, 1})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		sets := [2]*digest.Set{digest.NewSet(digest.Key{1}), digest.NewSet(digest.Key{1})}
		counts := [2]map[byte]int{{}, {}}
		for i, list := range [2][]byte{a, b} {
			for _, w := range list {
				sets[i].AddSpec(string([]byte{w >> 4}), int64(w&7), digest.Content{}, w&8 != 0)
				counts[i][w]++
			}
		}
		if got, want := sets[0].Root() == sets[1].Root(), maps.Equal(counts[0], counts[1]); got != want {
			t.Errorf("%x and %x have equal roots: %v, want %v", a, b, got, want)
		}
		for _, w := range a {
			sets[0].RemoveSpec(string([]byte{w >> 4}), int64(w&7), digest.Content{}, w&8 != 0)
		}
		if sets[0].Root() != digest.NewSet(digest.Key{1}).Root() {
			t.Errorf("%x removed leaves something", a)
		}
	})
}

func BenchmarkAddSpec(b *testing.B) {
	set, id := digest.NewSet(digest.Key{1}), "d413c17e-d14b-567d-87b3-5cc5ff557269"
	b.ReportAllocs()
	for b.Loop() {
		set.AddSpec(id, 3, digest.Content{1}, false)
	}
}

func BenchmarkAddStatus(b *testing.B) {
	set, id := digest.NewSet(digest.Key{1}), "d413c17e-d14b-567d-87b3-5cc5ff557269"
	hash := fmt.Sprintf("%x", sha256.Sum256(nil))
	b.ReportAllocs()
	for b.Loop() {
		set.AddStatus(id, hash)
	}
}

func BenchmarkRoot(b *testing.B) {
	set := digest.NewSet(digest.Key{1})
	b.ReportAllocs()
	for b.Loop() {
		set.Root()
	}
}
