package agents

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

// TestInventoryFollowsRecords changes works in every way, and holds the sums that
// were kept up against those made anew.
func TestInventoryFollowsRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		instance := digest.Key{1}
		v := newInventory(instance)
		records, refusals := map[Key]*Record{}, map[Key]*refusal{}
		key := rapid.Custom(func(t *rapid.T) Key {
			return Key{rapid.SampledFrom([]string{"hub1", "hub2"}).Draw(t, "source"), fmt.Sprint("w", rapid.IntRange(0, 5).Draw(t, "work"))}
		})
		set := func(k Key) { v.set(k, records[k], refusals[k]) }
		t.Repeat(map[string]func(*rapid.T){
			"accept": func(t *rapid.T) {
				k := key.Draw(t, "key")
				b := drawBundle(t, k)
				records[k] = accepted(records[k], b, t0)
				set(k)
			},
			"next": func(t *rapid.T) {
				k := key.Draw(t, "key")
				if records[k] == nil || !records[k].Bundle.Deleting() || records[k].Gone() {
					t.Skip("nothing is being deleted")
				}
				records[k] = waiting(records[k], drawBundle(t, k), t1)
				set(k)
			},
			"report": func(t *rapid.T) {
				k := key.Draw(t, "key")
				if records[k] == nil {
					t.Skip("nothing to report on")
				}
				records[k] = records[k].with(codec.Report{ID: k.ID, Hash: rapid.StringMatching("[ab]{0,2}").Draw(t, "hash")})
				set(k)
			},
			"bury": func(t *rapid.T) {
				k := key.Draw(t, "key")
				if records[k] == nil || !records[k].Bundle.Deleting() || records[k].Gone() {
					t.Skip("nothing is being deleted")
				}
				records[k] = buried(records[k], codec.Report{ID: k.ID, Hash: "gone"}, t2)
				set(k)
			},
			"forget": func(t *rapid.T) {
				k := key.Draw(t, "key")
				delete(records, k)
				set(k)
			},
			"refuse": func(t *rapid.T) {
				k := key.Draw(t, "key")
				refusals[k] = nil
				if rapid.Bool().Draw(t, "refused") {
					refusals[k] = &refusal{report: codec.Report{Hash: "refused"}, moot: rapid.Bool().Draw(t, "moot")}
				}
				set(k)
			},
			"": func(t *rapid.T) {
				anew := newInventory(instance)
				for k, r := range records {
					anew.set(k, r, refusals[k])
				}
				for _, source := range []string{"hub1", "hub2"} {
					has, want := v.of(source), anew.of(source)
					if has.spec.Root() != want.spec.Root() || has.status.Root() != want.status.Root() {
						t.Fatalf("sums of %s are not those of what it holds", source)
					}
					if has.spec.Len() != want.spec.Len() {
						t.Fatalf("%d works of %s, want %d", has.spec.Len(), source, want.spec.Len())
					}
					var all [digest.Buckets]bool
					for i := range all {
						all[i] = true
					}
					hasIn, wantIn := v.in(source, &all), anew.in(source, &all)
					for i := range hasIn {
						if diff := cmp.Diff(byID(wantIn[i]), byID(hasIn[i])); diff != "" {
							t.Fatalf("bucket %d of %s (-want +got):\n%s", i, source, diff)
						}
						for _, e := range hasIn[i] {
							if int(digest.BucketOf(e.ID)) != i {
								t.Fatalf("%s is not in bucket %d", e.ID, i)
							}
						}
					}
				}
			},
		})
	})
}

func byID(entries []codec.Entry) map[string]codec.Entry {
	out := map[string]codec.Entry{}
	for _, e := range entries {
		out[e.ID] = e
	}
	return out
}

func drawBundle(t *rapid.T, k Key) codec.Bundle {
	b := live(rapid.Int64Range(0, 3).Draw(t, "generation"), rapid.SampledFrom([]string{`{"a":1}`, `{"b":2}`}).Draw(t, "payload"))
	b.ID, b.Source = k.ID, k.Source
	b.Metadata = []byte(rapid.SampledFrom([]string{``, `{"name":"x"}`, `{"name":"y","labels":{"l":"1"}}`}).Draw(t, "metadata"))
	if rapid.Bool().Draw(t, "deleting") {
		b.Payload, b.DeletedAt = nil, t1
	}
	return b
}

func TestHolding(t *testing.T) {
	next := live(1, `{"next":true}`)
	next.Metadata = []byte(`{"name":"next"}`)
	cases := map[string]struct {
		reason string
		r      Record
		want   codec.Entry
	}{
		"unreported": {
			"without a report there is no status",
			Record{Bundle: live(3, `{}`)},
			codec.Entry{ID: "w", Generation: 3},
		},
		"reported": {
			"the status is the newest",
			Record{Bundle: live(3, `{}`), Report: codec.Report{Hash: "h"}},
			codec.Entry{ID: "w", Generation: 3, Status: "h"},
		},
		"empty status": {
			"sources cannot tell it from none",
			Record{Bundle: live(3, `{}`), Report: codec.Report{Hash: noStatus[0]}},
			codec.Entry{ID: "w", Generation: 3},
		},
		"shortened": {
			"the source has what it was sent",
			Record{Bundle: live(3, `{}`), Report: codec.Report{Hash: "h"}, Told: "short"},
			codec.Entry{ID: "w", Generation: 3, Status: "short"},
		},
		"deleting": {
			"a deletion has no content, whatever is kept to carry it out",
			Record{Bundle: codec.Bundle{ID: "w", Generation: 4, DeletedAt: t1, Payload: []byte(`{}`)}},
			codec.Entry{ID: "w", Generation: 4, Deleting: true},
		},
		"next": {
			"what waits its turn is what the source last said",
			Record{Bundle: deletion(4, t1), Next: &next},
			codec.Entry{ID: "w", Name: "next", Generation: 1},
		},
		"long name": {
			"no ManifestWork has it, and no entry may",
			Record{Bundle: codec.Bundle{ID: "w", DeletedAt: t1, Metadata: []byte(`{"name":"` + strings.Repeat("n", 254) + `"}`)}},
			codec.Entry{ID: "w", Deleting: true},
		},
		"control character": {
			"nor this",
			Record{Bundle: codec.Bundle{ID: "w", DeletedAt: t1, Metadata: []byte(`{"name":"a\u0007b"}`)}},
			codec.Entry{ID: "w", Deleting: true},
		},
		"metadata of another kind": {
			"what cannot be read has no name",
			Record{Bundle: codec.Bundle{ID: "w", DeletedAt: t1, Metadata: []byte(`{"name":7}`)}},
			codec.Entry{ID: "w", Deleting: true},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if !c.want.Deleting {
				b := c.r.Bundle
				if c.r.Next != nil {
					b = *c.r.Next
				}
				content, err := b.Digest()
				if err != nil {
					t.Fatal(err)
				}
				c.want.Digest = content
			}
			got := hold(holding{}, &c.r).Entry
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.reason, diff)
			}
			m := codec.Entries{Agent: "a", Instance: digest.Key{1}, Buckets: []uint8{digest.BucketOf("w")}, Entries: []codec.Entry{got}}
			if _, err := m.Encode(codec.Announce); err != nil {
				t.Errorf("the entry cannot be sent: %v", err)
			}
		})
	}
}

func TestPages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var selected [digest.Buckets]bool
		var entries [digest.Buckets][]codec.Entry
		for i := range selected {
			selected[i] = rapid.Bool().Draw(t, "selected")
			entries[i] = make([]codec.Entry, rapid.SampledFrom([]int{0, 1, 7, 300, 900}).Draw(t, "works"))
		}
		last := -1
		for _, p := range paginate(&selected, &entries) {
			works := 0
			for i, b := range p {
				if int(b) <= last || !selected[b] {
					t.Fatalf("bucket %d follows %d, selected: %v", b, last, selected[b])
				}
				for skipped := last + 1; skipped < int(b); skipped++ {
					if selected[skipped] {
						t.Fatalf("bucket %d is on no page", skipped)
					}
				}
				last = int(b)
				if works += len(entries[b]); works > pageWorks && i > 0 && works > len(entries[b]) {
					t.Fatalf("a page of %d works, want %d unless one bucket has more", works, pageWorks)
				}
			}
		}
		for skipped := last + 1; skipped < digest.Buckets; skipped++ {
			if selected[skipped] {
				t.Fatalf("bucket %d is on no page", skipped)
			}
		}
	})
}
