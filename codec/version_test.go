package codec_test

import (
	"strings"
	"testing"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

func TestIdentify(t *testing.T) {
	for _, tc := range []struct {
		reason, file string
		change       func(*event.Event)
		generation   int64
		ok           bool
	}{
		{"a good event", "bundle", func(*event.Event) {}, 3, true},
		{"a report", "report", func(*event.Event) {}, 3, true},
		{"a body cut short", "bundle", func(e *event.Event) { e.Data = []byte("{") }, 3, true},
		{"no body", "bundle", func(e *event.Event) { e.Data = nil }, 3, true},
		{"metadata cut short", "bundle", func(e *event.Event) { e.Set("metadata", "{") }, 3, true},
		{"a deletion, but when", "bundle-deleted", func(e *event.Event) { e.Set("deletiontimestamp", "") }, 4, true},
		{"a floating-point number", "bundle", func(e *event.Event) { e.Set("resourceversion", "7.0") }, 7, true},
		{
			"a later version of the type", "bundle",
			func(e *event.Event) {
				e.Set(event.Type, "io.open-cluster-management.works.v1beta1.manifestbundles.spec.update_request")
			}, 3, true,
		},
		{"no ID", "bundle", func(e *event.Event) { e.Unset("resourceid") }, 0, false},
		{"an ID that no key can hold", "bundle", func(e *event.Event) { e.Set("resourceid", strings.Repeat("a", codec.MaxID+1)) }, 0, false},
		{"an ID with a line break", "bundle", func(e *event.Event) { e.Set("resourceid", "a\nb") }, 0, false},
		{"no generation", "bundle", func(e *event.Event) { e.Unset("resourceversion") }, 0, false},
		{"a generation out of range", "bundle", func(e *event.Event) { e.Set("resourceversion", "2147483648") }, 0, false},
		{"a question is about no work", "spec-resync", func(*event.Event) {}, 0, false},
		{"a digest is about no work", "digest", func(e *event.Event) {
			e.Set("resourceid", workID)
			e.Set("resourceversion", "3")
		}, 0, false},
	} {
		e := goodEvent(t, tc.file)
		tc.change(&e)
		id, generation, ok := codec.Identify(e)
		wantID := ""
		if tc.ok {
			wantID = workID
		}
		if id != wantID || generation != tc.generation || ok != tc.ok {
			t.Errorf("%s: %q, %d, %v", tc.reason, id, generation, ok)
		}
	}
}
