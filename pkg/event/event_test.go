package event_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/fleetcast-io/fleetcast/pkg/event"
)

func TestNew(t *testing.T) {
	now := time.Date(2026, 2, 3, 5, 5, 1, 250e6, time.FixedZone("", 3600))
	e, other := event.New("t", "hub", now, 1), event.New("t", "hub", now, 1)
	if err := e.Validate(); err != nil {
		t.Fatal(err)
	}
	id, err := uuid.Parse(e.Get(event.ID))
	if err != nil || id.Version() != 4 || id.Variant() != uuid.RFC4122 {
		t.Errorf("ID %q is no random UUID: %v", e.Get(event.ID), err)
	}
	if e.Get(event.ID) == other.Get(event.ID) {
		t.Error("two events have the same ID")
	}
	if got := e.Get(event.Time); got != "2026-02-03T04:05:01.25Z" {
		t.Errorf("time %s", got)
	}
	allocations := testing.AllocsPerRun(100, func() {
		e := event.New("t", "hub", now, 1)
		e.Set("x", "1")
	})
	if allocations > 4 { // One more than it takes: the race detector adds one.
		t.Errorf("%v allocations; attributes, ID and time make three", allocations)
	}
}

func TestAttributes(t *testing.T) {
	var e event.Event
	e.Set("a", "1")
	e.Set("b", "")
	e.Set("a", "2")
	if v, ok := e.Lookup("b"); v != "" || !ok {
		t.Errorf("an empty attribute is an attribute: %q, %v", v, ok)
	}
	if _, ok := e.Lookup("c"); ok {
		t.Error("an attribute that nobody set")
	}
	var names []string
	for name, value := range e.All() {
		names = append(names, name+"="+value)
	}
	if diff := cmp.Diff([]string{"a=2", "b="}, names); diff != "" {
		t.Errorf("the order is that of the first Set (-want +got):\n%s", diff)
	}
	for range e.All() {
		break
	}
	e.Data = []byte("x")
	c := e.Clone()
	c.Set("a", "3")
	c.Data[0] = 'y'
	if e.Get("a") != "2" || string(e.Data) != "x" {
		t.Error("a clone shares with its original")
	}
	before := e.Size()
	e.Unset("a")
	e.Unset("a")
	if e.Len() != 1 || e.Get("a") != "" || e.Size() >= before {
		t.Errorf("after Unset: %d attributes, size %d of %d", e.Len(), e.Size(), before)
	}
	if got := event.Of(nil, event.Attribute{Name: "a", Value: "1"}, event.Attribute{Name: "a", Value: "2"}); got.Len() != 1 || got.Get("a") != "2" {
		t.Errorf("later duplicates win: %v", attributes(got))
	}
}

func TestValidate(t *testing.T) {
	for _, tc := range []struct {
		reason string
		change func(*event.Event)
	}{
		{"no version", func(e *event.Event) { e.Unset(event.SpecVersion) }},
		{"another version", func(e *event.Event) { e.Set(event.SpecVersion, strings.Repeat("2", 1000)) }},
		{"no ID", func(e *event.Event) { e.Unset(event.ID) }},
		{"an empty source", func(e *event.Event) { e.Set(event.Source, "") }},
		{"no type", func(e *event.Event) { e.Unset(event.Type) }},
	} {
		e := event.New("t", "hub", time.Unix(0, 0), 0)
		tc.change(&e)
		err := e.Validate()
		if !errors.Is(err, event.ErrInvalid) {
			t.Errorf("%s: error %v", tc.reason, err)
		}
		if err != nil && len(err.Error()) > 200 {
			t.Errorf("%s: an error of %d bytes", tc.reason, len(err.Error()))
		}
	}
}

func TestParseTime(t *testing.T) {
	for text, want := range map[string]string{
		"2026-02-03T04:05:01.25Z":        "2026-02-03T04:05:01.25Z",
		"2026-02-03T05:05:01+01:00":      "2026-02-03T04:05:01Z",
		"2026-02-03T04:05:01.123456789Z": "2026-02-03T04:05:01.123456789Z",
		"0000-01-01T00:00:00Z":           "0000-01-01T00:00:00Z",
	} {
		at, err := event.ParseTime(text)
		if err != nil || event.FormatTime(at) != want {
			t.Errorf("%s read as %v, %v", text, at, err)
		}
	}
	for text, reason := range map[string]string{
		"":                           "nothing",
		"2026-02-03":                 "a date",
		"1770091507":                 "seconds",
		"0000-01-01T00:00:00+00:01":  "before the year 0 in UTC",
		"9999-12-31T23:59:59-00:01":  "after the year 9999 in UTC",
		strings.Repeat("2026", 1000): "long",
	} {
		if _, err := event.ParseTime(text); !errors.Is(err, event.ErrInvalid) || len(err.Error()) > 200 {
			t.Errorf("%s: error %v", reason, err)
		}
	}
}

func TestDepth(t *testing.T) {
	for text, want := range map[string]int{
		``:                      0,
		`1`:                     0,
		`{}`:                    1,
		`[[],[]]`:               2,
		`{"a":[{"b":"[[[["}]}`:  3,
		`{"a":"\"[","b\\":[]}`:  2,
		`[[[`:                   3,
		`{"a":"unterminated [[`: 1,
	} {
		if got := event.Depth([]byte(text)); got != want {
			t.Errorf("depth of %s is %d, want %d", text, got, want)
		}
	}
}
