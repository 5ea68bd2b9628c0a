package sources

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

func TestCompare(t *testing.T) {
	const none = "empty"
	one, two := digest.Content{1}, digest.Content{2}
	for name, tc := range map[string]struct {
		reason string
		held   Held
		entry  *codec.Entry
		want   string
	}{
		"same": {
			reason: "nothing to say",
			held:   Held{Generation: 3, Digest: one, StatusHash: "a"}, entry: &codec.Entry{Generation: 3, Digest: one, Status: "a"},
		},
		"never reported": {
			reason: "agents leave empty what they never said, sources have the hash of nothing",
			held:   Held{Generation: 3, Digest: one, StatusHash: none}, entry: &codec.Entry{Generation: 3, Digest: one},
		},
		"missing": {reason: "it lacks the work", held: Held{Generation: 3}, want: "publish"},
		"deleted by a source that forgot": {
			reason: "it ignores the work until that is edited",
			held:   Held{Generation: 3, Digest: one, Gone: true}, want: "ahead",
		},
		"deleted, and made again": {
			reason: "what it has counts",
			held:   Held{Generation: 3, Digest: one, Gone: true}, entry: &codec.Entry{Generation: 2, Digest: one}, want: "publish",
		},
		"older": {
			reason: "it lacks the version; the status follows",
			held:   Held{Generation: 3, Digest: one, StatusHash: "a"}, entry: &codec.Entry{Generation: 2, Digest: one, Status: "b"}, want: "publish",
		},
		"other content": {
			reason: "of two of one generation, the source's counts",
			held:   Held{Generation: 3, Digest: one}, entry: &codec.Entry{Generation: 3, Digest: two}, want: "publish",
		},
		"other status": {
			reason: "the report was lost",
			held:   Held{Generation: 3, Digest: one, StatusHash: "a"}, entry: &codec.Entry{Generation: 3, Digest: one, Status: "b"}, want: "status",
		},
		"ahead": {
			reason: "a restored source rolls nothing back, and hears what the cluster has instead, to tell its owner",
			held:   Held{Generation: 3, Digest: one, StatusHash: "a"}, entry: &codec.Entry{Generation: 4, Digest: two, Status: "b"}, want: "status ahead",
		},
		"unversioned": {
			reason: "generation 0 cannot be behind",
			held:   Held{Digest: one}, entry: &codec.Entry{Generation: 4, Digest: two}, want: "publish",
		},
		"deletion unheard": {
			reason: "it still has the work",
			held:   Held{Generation: 4, Deleting: true}, entry: &codec.Entry{Generation: 3, Digest: one}, want: "publish",
		},
		"deletion of a newer version": {
			reason: "whether the deletion counts is for the cluster to say: IDs may be used once",
			held:   Held{Generation: 3, Deleting: true}, entry: &codec.Entry{Generation: 4, Digest: one}, want: "publish",
		},
		"deletion under way": {
			reason: "the content of a deletion does not count",
			held:   Held{Generation: 4, Deleting: true, Digest: one}, entry: &codec.Entry{Generation: 4, Deleting: true},
		},
		"deletion confirmed, and the confirmation lost": {
			reason: "who has nothing of it has to confirm",
			held:   Held{Generation: 4, Deleting: true}, want: "publish",
		},
		"another deletion": {
			reason: "it confirms the generation that it was asked for",
			held:   Held{Generation: 4, Deleting: true}, entry: &codec.Entry{Generation: 3, Deleting: true}, want: "publish",
		},
		"a later deletion": {
			reason: "it is on its way out",
			held:   Held{Generation: 3, Deleting: true}, entry: &codec.Entry{Generation: 4, Deleting: true}, want: "ahead",
		},
		"deleted there, live here": {
			reason: "a restored source does not bring back what was deleted since",
			held:   Held{Generation: 3, Digest: one}, entry: &codec.Entry{Generation: 4, Deleting: true}, want: "ahead",
		},
		"put again": {
			reason: "a newer version is another work",
			held:   Held{Generation: 5, Digest: one}, entry: &codec.Entry{Generation: 4, Deleting: true}, want: "publish",
		},
		"withheld": {
			reason: "the deletion waits",
			held:   Held{Generation: 4, Deleting: true, Withheld: true}, entry: &codec.Entry{Generation: 3, Digest: one}, want: "withheld",
		},
		"withheld, and nothing there": {
			reason: "there is nothing to lose, but the source waits all the same",
			held:   Held{Generation: 4, Deleting: true, Withheld: true}, want: "withheld",
		},
		"withheld too late": {
			reason: "the cluster is deleting it already",
			held:   Held{Generation: 4, Deleting: true, Withheld: true}, entry: &codec.Entry{Generation: 4, Deleting: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var e codec.Entry
			if tc.entry != nil {
				e = *tc.entry
			}
			diff := compare(tc.held, e, tc.entry != nil, none)
			var got []string
			if diff.publish {
				got = append(got, "publish")
			}
			if diff.status {
				got = append(got, "status")
			}
			if diff.cause != "" {
				got = append(got, string(diff.cause))
			}
			if diff := cmp.Diff(tc.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// TestDifferencesKeepToTheirBuckets: what a page does not name is not judged,
// and what is named again counts as it was said last.
func TestDifferencesKeepToTheirBuckets(t *testing.T) {
	const a, b, c = "a", "b", "c" // Of three buckets.
	held := []Held{{ID: a, Generation: 1}, {ID: b, Generation: 1}, {ID: c, Generation: 1}}
	page := func(of string, entries ...codec.Entry) codec.Entries {
		return codec.Entries{Buckets: []uint8{digest.BucketOf(of)}, Entries: entries}
	}
	var got []string
	for _, diff := range differences(held, []codec.Entries{
		page(a, codec.Entry{ID: a, Generation: 1}), page(b, codec.Entry{ID: b, Generation: 1}), page(a),
	}, "") {
		got = append(got, diff.id)
	}
	if diff := cmp.Diff([]string{a}, got); diff != "" {
		t.Errorf("works that differ (-want +got):\n%s", diff)
	}
}

// TestExpectedIsWhatTheClusterHas, with every cause of an excuse, and ends to
// be so when the source has something new.
func TestExpectedIsWhatTheClusterHas(t *testing.T) {
	key := digest.Key{7}
	held := []Held{
		{ID: "plain", Generation: 1, Digest: digest.Content{1}, StatusHash: "a"},
		{ID: "ahead", Generation: 1, Digest: digest.Content{1}, StatusHash: "a"},
		{ID: "refused", Generation: 2, Digest: digest.Content{1}, StatusHash: "empty"},
		{ID: "withheld", Generation: 2, Deleting: true, Withheld: true, StatusHash: "a"},
	}
	excuses := map[string]excuse{
		"ahead":     {cause: causeAhead, has: codec.Entry{ID: "ahead", Generation: 2, Digest: digest.Content{2}, Status: "b"}, own: versionOf(held[1])},
		"refused":   {cause: causeRefused, lacks: true, own: versionOf(held[2])},
		"withheld":  {cause: causeWithheld, has: codec.Entry{ID: "withheld", Generation: 1, Digest: digest.Content{2}, Status: "a"}, own: versionOf(held[3])},
		"unclaimed": {cause: causeUnclaimed, has: codec.Entry{ID: "unclaimed", Generation: 9, Digest: digest.Content{3}, Status: "c"}},
	}
	spec, status := expected(key, held, excuses, nil, "empty")
	wantSpec, wantStatus := digest.NewSet(key), digest.NewSet(key)
	for _, e := range []codec.Entry{
		{ID: "plain", Generation: 1, Digest: digest.Content{1}, Status: "a"},
		excuses["ahead"].has, excuses["withheld"].has, excuses["unclaimed"].has,
	} {
		wantSpec.AddSpec(e.ID, e.Generation, e.Digest, e.Deleting)
		wantStatus.AddStatus(e.ID, e.Status)
	}
	if spec.Root() != wantSpec.Root() || status.Root() != wantStatus.Root() {
		t.Error("the sums are not those of what the cluster has")
	}

	d := NewDispatcher("hub1", nil, nil, Options{})
	d.peerLocked("c1").excuses = excuses
	d.refused[Key{"c1", "refused"}] = refusal{generation: 2}
	if got := d.excusesFor("c1", held); len(got) != 4 {
		t.Errorf("%d excuses hold, want all 4", len(got))
	}
	held[1].Digest[0]++
	held[3].Withheld = false
	delete(d.refused, Key{"c1", "refused"})
	held = append(held, Held{ID: "unclaimed"})
	if got := d.excusesFor("c1", held); len(got) > 0 {
		t.Errorf("excuses %v hold although the source has something new to say", got)
	}
	if p := d.peerLocked("c1"); p.excuses != nil {
		t.Error("the map of excuses is kept")
	}
}

// TestPagesAreBounded: a cluster that sends pages without end takes no more
// than its share of memory, and each bucket is listed once for one question.
func TestPagesAreBounded(t *testing.T) {
	d := NewDispatcher("hub1", nil, nil, Options{})
	page := func(bucket int, of codec.Entry, n int) codec.Entries {
		return codec.Entries{Buckets: []uint8{uint8(bucket)}, Entries: slices.Repeat([]codec.Entry{of}, n)}
	}
	for name, tc := range map[string]struct {
		reason string
		page   func(i int) codec.Entries
		want   string
	}{
		"works": {"half of all works that may wait", func(i int) codec.Entries { return page(i, codec.Entry{ID: "a"}, codec.MaxEntries/2) }, "ok 2 overflow 8"},
		"bytes": {"3 MB each", func(i int) codec.Entries { return page(i, codec.Entry{ID: strings.Repeat("a", 1<<20)}, 3) }, "ok 2 overflow 8"},
		"again": {"one question, one list", func(int) codec.Entries { return page(0, codec.Entry{ID: "a"}, 1) }, "ok 1 unexpected 9"},
	} {
		d.peerLocked(name).asked.at = time.Now()
		results := map[string]int{}
		for i := range 10 {
			results[d.takeEntries(name, tc.page(i))]++
		}
		var got []string
		for _, result := range slices.Sorted(maps.Keys(results)) {
			got = append(got, fmt.Sprint(result, " ", results[result]))
		}
		if diff := cmp.Diff(tc.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s: %s (-want +got):\n%s", name, tc.reason, diff)
		}
	}
	if got := d.takeEntries("never asked", page(0, codec.Entry{ID: "a"}, 1)); got != resultUnexpected {
		t.Errorf("a page of a cluster that was not asked: %s, want %s", got, resultUnexpected)
	}
}

// TestBucketsThatAreNamedAgainCostLittle: time grows with what was received, not
// with its square.
func TestBucketsThatAreNamedAgainCostLittle(t *testing.T) {
	first := codec.Entries{Buckets: []uint8{7}}
	for i := 0; len(first.Entries) < 2000; i++ {
		if id := fmt.Sprint(i); digest.BucketOf(id) == 7 {
			first.Entries = append(first.Entries, codec.Entry{ID: id, Generation: 1})
		}
	}
	others := codec.Entries{}
	for i := range digest.Buckets {
		if i != 7 {
			others.Buckets = append(others.Buckets, uint8(i))
		}
	}
	allocations := func(pages []codec.Entries) float64 {
		return testing.AllocsPerRun(3, func() {
			if n := len(differences(nil, pages, "")); n != len(first.Entries) {
				t.Errorf("%d works differ, want %d", n, len(first.Entries))
			}
		})
	}
	once := []codec.Entries{first}
	if one, many := allocations(once), allocations(append(once, slices.Repeat([]codec.Entries{others}, 255)...)); many > one {
		t.Errorf("%v allocations for one page, %v with empty ones after it", one, many)
	}
}

// TestExcusesAreBounded in bytes as well as in number.
func TestExcusesAreBounded(t *testing.T) {
	p := &peer{}
	name, n := strings.Repeat("n", 10_000), 0
	for p.excuseLocked(strings.Repeat("i", 900)+fmt.Sprint(n), excuse{has: codec.Entry{Name: name}}) {
		n++
	}
	if n < 1000 || p.excused > maxExcused {
		t.Errorf("%d excuses take %d bytes, at most %d are allowed", n, p.excused, maxExcused)
	}
	for id := range p.excuses {
		if got := len(p.excuses[id].has.Name); got > maxName {
			t.Fatalf("a name of %d bytes is remembered", got)
		}
		p.excuseLocked(id, excuse{})
		p.dropExcuse(id)
	}
	if p.excused != 0 {
		t.Errorf("%d bytes are left of no excuses", p.excused)
	}
}
