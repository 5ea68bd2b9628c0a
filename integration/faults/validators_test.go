package faults

import (
	"io"
	"strings"
	"testing"
)

// TestValidators has the record told of broken promises, each of which it must
// find, and of what only looks like one.
func TestValidators(t *testing.T) {
	k := key{"c1", "w"}
	for name, c := range map[string]struct {
		happens func(*record)
		breaks  string // The validator; empty if nothing is broken.
	}{
		"a newer version": {happens: func(r *record) {
			r.applied(k, r.next(k), "c1")
			r.applied(k, r.next(k), "c1")
		}},
		"the same version seen again": {happens: func(r *record) {
			r.applied(k, r.next(k), "c1")
			r.applied(k, 1, "c1")
		}},
		"an older version": {breaks: "V1", happens: func(r *record) {
			r.next(k)
			r.applied(k, r.next(k), "c1")
			r.applied(k, 1, "c1")
		}},
		"a deletion that was asked for": {happens: func(r *record) {
			r.applied(k, r.next(k), "c1")
			r.remove(k)
			r.removed(k, 1)
			r.forgotten(k, 1, 0)
		}},
		"a deletion that nobody asked for": {breaks: "V3", happens: func(r *record) {
			r.applied(k, r.next(k), "c1")
			r.removed(k, 1)
		}},
		"a deletion of more than was asked for": {breaks: "V3", happens: func(r *record) {
			r.next(k)
			r.remove(k)
			r.applied(k, r.next(k), "c1")
			r.removed(k, 2)
		}},
		"what a hub lost and its cluster shall keep": {breaks: "V3", happens: func(r *record) {
			r.applied(k, r.next(k), "c1")
			r.orphan()
			r.removed(k, 1)
		}},
		"a work that the hub forgets too early": {breaks: "V4", happens: func(r *record) {
			r.applied(k, r.next(k), "c1")
			r.remove(k)
			r.forgotten(k, 1, 1)
		}},
		"a work that was made again meanwhile": {happens: func(r *record) {
			r.next(k)
			r.remove(k)
			r.forgotten(k, 1, r.next(k))
		}},
		"another cluster's work": {breaks: "V5", happens: func(r *record) { r.applied(k, r.next(k), "c2") }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecord(io.Discard)
			c.happens(r)
			found := strings.Join(r.verdict(), "; ")
			if (c.breaks == "") != (found == "") || !strings.Contains(found, c.breaks) {
				t.Errorf("found %q, want what breaks %q", found, c.breaks)
			}
		})
	}
}
