package digest_test

import (
	"encoding"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

func TestText(t *testing.T) {
	type all struct {
		Key     digest.Key     `json:"key"`
		Root    digest.Root    `json:"root"`
		Short   digest.Short   `json:"short"`
		Content digest.Content `json:"content"`
	}
	want := all{digest.Key{1, 0xff, 15: 2}, digest.Root{3, 0xfb, 31: 4}, digest.Short{5, 7: 6}, digest.Content{7, 31: 8}}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	const wantText = `{"key":"Af8AAAAAAAAAAAAAAAAAAg","root":"A_sAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAQ",` +
		`"short":"BQAAAAAAAAY","content":"BwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAg"}`
	if string(text) != wantText {
		t.Errorf("written as %s, want %s", text, wantText)
	}
	var got all
	if err := json.Unmarshal(text, &got); err != nil || got != want {
		t.Errorf("read as %v, %v", got, err)
	}
	if got := want.Root.Short(); got != digest.Short(want.Root[:8]) {
		t.Errorf("the root begins with %s", got)
	}
	for name, s := range map[string]string{
		"key": want.Key.String(), "root": want.Root.String(), "short": want.Short.String(), "content": want.Content.String(),
	} {
		if !strings.Contains(wantText, `"`+name+`":"`+s+`"`) {
			t.Errorf("%s as a string is %s", name, s)
		}
	}
}

func TestTextRefuses(t *testing.T) {
	short := digest.Short{1, 2, 3}
	for _, tc := range []struct{ reason, text string }{
		{"nothing", ""},
		{"a character less", "AQIDAAAAAA"},
		{"a character more", "AQIDAAAAAAAA"},
		{"padding", "AQIDAAAAAAA="},
		{"the alphabet of the other base64", "AQID+/AAAAA"},
		{"a line break, which decoders skip", "AQIDAAAAAA\n"},
		{"bits after the end: each value has one text", "AQIDAAAAAAB"},
		{"what is no text", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"},
	} {
		got := short
		if err := got.UnmarshalText([]byte(tc.text)); !errors.Is(err, digest.ErrMalformed) {
			t.Errorf("%s: error %v", tc.reason, err)
		}
		if got != short {
			t.Errorf("%s: the value became %s", tc.reason, got)
		}
	}
	for _, into := range []encoding.TextUnmarshaler{new(digest.Key), new(digest.Root), new(digest.Content)} {
		if err := into.UnmarshalText([]byte("AQIDAAAAAAA")); !errors.Is(err, digest.ErrMalformed) {
			t.Errorf("%T takes eight bytes: %v", into, err)
		}
	}
}
