package codec

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/fleetcast-io/fleetcast/pkg/digest"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// fullPage has as many works as a page may list, whose IDs and names hold what
// counts in JSON.
func fullPage() Entries {
	s := Entries{Agent: "agent", Instance: digest.Key{1}}
	for i := range digest.Buckets {
		s.Buckets = append(s.Buckets, uint8(i))
	}
	for i := range MaxEntries {
		s.Entries = append(s.Entries, Entry{ID: fmt.Sprintf(`a,b,c,d,e,f,g,{"[\%d`, i), Name: `],[,",`, Generation: 1})
	}
	return s
}

// TestFullPage: what an ID looks like does not count against how many there are.
func TestFullPage(t *testing.T) {
	want := fullPage()
	e, err := want.Encode(Announce)
	if err != nil {
		t.Fatal(err)
	}
	_, m, err := Decode(e)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := m.(Entries); !ok || !slices.Equal(got.Entries, want.Entries) {
		t.Error("the page that was read is not the one that was written")
	}
}

// TestHostilePageIsCheap: the shortest values of a list become the largest in
// memory, so they are counted before they are parsed.
func TestHostilePageIsCheap(t *testing.T) {
	nulls := strings.Repeat("null,", MaxEntries)
	for reason, list := range map[string]string{
		"eight megabytes of nothing": `[` + strings.Repeat("null,", MaxPayload/5-100) + `null]`,
		"one more than allowed":      `[` + nulls + `null]`,
		"lists in the same place":    `[` + nulls[:5*1000] + `null]` + strings.Repeat(`,"entries":[`+nulls[:5*1000]+`null]`, 1000),
	} {
		e, err := Entries{Agent: "agent", Instance: digest.Key{1}, Buckets: []uint8{1}}.Encode(Announce)
		if err != nil {
			t.Fatal(err)
		}
		e = event.Of([]byte(`{"instance":"AQAAAAAAAAAAAAAAAAAAAA","buckets":[1],"entries":`+list+`}`), attributesOf(e)...)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err = Decode(e)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: error %v, want %v", reason, err, ErrMalformed)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
			t.Errorf("%s: %d bytes of memory for %d bytes", reason, n, len(e.Data))
		}
	}
}

func attributesOf(e event.Event) []event.Attribute {
	var attributes []event.Attribute
	for name, value := range e.All() {
		attributes = append(attributes, event.Attribute{Name: name, Value: value})
	}
	return attributes
}

// FuzzElements: elements are counted as a parser counts them.
func FuzzElements(f *testing.F) {
	for _, text := range []string{`[]`, `[1]`, `["a,\"b",{"c":[1,2]},[3,4],"\\",""]`, ` [ null , null ] `, `[{"a":"]"},{}]`} {
		f.Add(text, 3)
	}
	f.Fuzz(func(t *testing.T, text string, most int) {
		var list []json.RawMessage
		if most < 1 || json.Unmarshal([]byte(text), &list) != nil {
			return
		}
		if got, want := elements([]byte(text), most), min(max(1, len(list)), most+1); got != want {
			t.Errorf("%d elements up to %d in %s, want %d", got, most, text, want)
		}
	})
}
