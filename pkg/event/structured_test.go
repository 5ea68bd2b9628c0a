package event_test

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/pkg/event"
)

const head = `"specversion":"1.0","id":"1","source":"/hub","type":"t"`

func TestParseStructured(t *testing.T) {
	for _, tc := range []struct {
		reason, text string
		want         map[string]string
		data         string
	}{
		{"the required attributes", `{` + head + `}`, nil, ""},
		{
			"optional attributes", `{` + head + `,"subject":"s","dataschema":"http://a.example/b","time":"2026-02-03T05:05:01.25+01:00"}`,
			map[string]string{"subject": "s", "dataschema": "http://a.example/b", "time": "2026-02-03T04:05:01.25Z"},
			"",
		},
		{
			"extensions of every JSON type, in canonical form", `{"a":true,"b":7,"c":"d","e":-2147483648,` + head + `,"f":false}`,
			map[string]string{"a": "true", "b": "7", "c": "d", "e": "-2147483648", "f": "false"},
			"",
		},
		{
			"times, URIs and binary values are strings in JSON and stay them", `{` + head + `,"at":"2026-02-03T04:05:01Z","to":"https://a.example/b?c=%20","bytes":"AQID"}`,
			map[string]string{"at": "2026-02-03T04:05:01Z", "to": "https://a.example/b?c=%20", "bytes": "AQID"},
			"",
		},
		{"data without a content type is JSON", `{` + head + `,"data":{"a":[1, 2]}}`, nil, `{"a":[1, 2]}`},
		{
			"data that comes before everything else", `{"data":{"a":1},"datacontenttype":"application/json",` + head + `}`,
			map[string]string{"datacontenttype": "application/json"},
			`{"a":1}`,
		},
		{
			"a text", `{` + head + `,"datacontenttype":"text/plain","data":"a\u00e9\n"}`,
			map[string]string{"datacontenttype": "text/plain"},
			"aé\n",
		},
		{
			"binary data", `{` + head + `,"datacontenttype":"application/octet-stream","data_base64":"AP8B"}`,
			map[string]string{"datacontenttype": "application/octet-stream"},
			"\x00\xff\x01",
		},
		{"binary data that comes first", `{"data_base64":"e30=",` + head + `}`, nil, "{}"},
		{"an extension that is null is absent", `{` + head + `,"a":null}`, nil, ""},
	} {
		e, err := event.ParseStructured("application/cloudevents+json; charset=UTF-8", []byte(tc.text))
		if err != nil {
			t.Errorf("%s: %v", tc.reason, err)
			continue
		}
		want := map[string]string{"specversion": "1.0", "id": "1", "source": "/hub", "type": "t"}
		maps.Copy(want, tc.want)
		if diff := cmp.Diff(want, attributes(e)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
		}
		if string(e.Data) != tc.data {
			t.Errorf("%s: data %q, want %q", tc.reason, e.Data, tc.data)
		}
	}
}

func TestParseStructuredRefuses(t *testing.T) {
	for _, tc := range []struct{ reason, contentType, text string }{
		{"a batch", "application/cloudevents-batch+json", `[]`},
		{"another format", "application/cloudevents+avro", `{}`},
		{"nothing", event.StructuredJSON, ``},
		{"an empty object", event.StructuredJSON, `{}`},
		{"a list", event.StructuredJSON, `[]`},
		{"an event cut short", event.StructuredJSON, `{` + head},
		{"two events", event.StructuredJSON, `{` + head + `}{` + head + `}`},
		{"no ID", event.StructuredJSON, `{"specversion":"1.0","source":"a","type":"t"}`},
		{"another version", event.StructuredJSON, `{"specversion":"0.3","id":"1","source":"a","type":"t"}`},
		{"a version nobody knows", event.StructuredJSON, `{"specversion":"` + strings.Repeat("9", 5000) + `"}`},
		{"a type that is a number", event.StructuredJSON, `{"specversion":"1.0","id":"1","source":"a","type":1}`},
		{"a time that is none", event.StructuredJSON, `{` + head + `,"time":"noon"}`},
		{"an extension that is an object", event.StructuredJSON, `{` + head + `,"a":{}}`},
		{"an integer over 32 bits", event.StructuredJSON, `{` + head + `,"a":2147483648}`},
		{"base64 that is none", event.StructuredJSON, `{` + head + `,"data_base64":"?"}`},
		{"base64 that is a number, before the version", event.StructuredJSON, `{"data_base64":1,` + head + `}`},
		{"text that is not UTF-8", event.StructuredJSON, "{" + head + ",\"a\":\"\xff\"}"},
		{"a line break in an attribute", event.StructuredJSON, `{` + head + `,"a":"b\nc"}`},
		{"a value that is too long", event.StructuredJSON, `{` + head + `,"a":"` + strings.Repeat("b", event.MaxValue+1) + `"}`},
		{"deep nesting", event.StructuredJSON, `{` + head + `,"data":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`},
	} {
		_, err := event.ParseStructured(tc.contentType, []byte(tc.text))
		if !errors.Is(err, event.ErrInvalid) {
			t.Errorf("%s: error %v", tc.reason, err)
		}
		if err != nil && len(err.Error()) > 400 {
			t.Errorf("%s: an error of %d bytes", tc.reason, len(err.Error()))
		}
	}
}

// TestStructuredInverse: an event written in structured mode reads as the same.
func TestStructuredInverse(t *testing.T) {
	text := rapid.StringMatching(`[^\x00-\x1f]{0,20}`)
	rapid.Check(t, func(t *rapid.T) {
		e := event.New(rapid.StringMatching(`[!-~]{1,20}`).Draw(t, "type"), "/hub", time.Unix(rapid.Int64Range(1, 1<<33).Draw(t, "time"), 0), 4)
		for _, name := range rapid.SliceOfN(rapid.StringMatching(`x[a-z0-9]{1,10}`), 0, 4).Draw(t, "names") {
			e.Set(name, text.Draw(t, "value"))
		}
		switch rapid.IntRange(0, 3).Draw(t, "kind of data") {
		case 1:
			e.Set(event.DataContentType, event.JSON)
			e.Data = []byte(`{"a":[1]}`)
		case 2:
			e.Set(event.DataContentType, "text/plain")
			e.Data = []byte(rapid.StringN(1, 50, -1).Draw(t, "text"))
		case 3:
			e.Set(event.DataContentType, rapid.SampledFrom([]string{event.JSON, "application/octet-stream"}).Draw(t, "content type"))
			e.Data = rapid.SliceOfN(rapid.Byte(), 1, 50).Filter(func(b []byte) bool { return !json.Valid(b) }).Draw(t, "data")
		}
		body, err := e.FormatStructured()
		if err != nil {
			t.Fatal(err)
		}
		got, err := event.ParseStructured(event.StructuredJSON, body)
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if diff := cmp.Diff(attributes(e), attributes(got)); diff != "" {
			t.Fatalf("%s (-written +read):\n%s", body, diff)
		}
		if string(e.Data) != string(got.Data) {
			t.Fatalf("%s: data %q became %q", body, e.Data, got.Data)
		}
	})
}

func TestFormatStructuredRefuses(t *testing.T) {
	for _, tc := range []struct{ reason, name, value string }{
		{"no ID", event.ID, ""},
		{"a source that is no URI reference", event.Source, "http://a b:c"},
		{"a time that is none", event.Time, "noon"},
		{"a schema that is no URI", event.DataSchema, "%"},
		{"an extension that no attribute is called", "no-extension", "a"},
	} {
		e := event.New("t", "/hub", time.Unix(1, 0), 1)
		e.Set(tc.name, tc.value)
		if body, err := e.FormatStructured(); !errors.Is(err, event.ErrInvalid) {
			t.Errorf("%s: wrote %s, error %v", tc.reason, body, err)
		}
	}
}

func FuzzParseStructured(f *testing.F) {
	f.Add([]byte(`{` + head + `}`))
	f.Add([]byte(`{"data":{"a":1},"x":true,"y":7,` + head + `,"time":"2026-02-03T04:05:01Z","subject":"s"}`))
	f.Add([]byte(`{"data_base64":"AP8B","datacontenttype":"a/b",` + head + `}`))
	f.Add([]byte(`{` + head + `,"dataschema":"http://a/b","data":"x","datacontenttype":"text/plain"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := event.ParseStructured(event.StructuredJSON, body)
		if err != nil {
			if !errors.Is(err, event.ErrInvalid) {
				t.Fatalf("error %v is of no kind", err)
			}
			return
		}
		if err := e.Validate(); err != nil {
			t.Fatal(err)
		}
		again, err := e.FormatStructured()
		if err != nil {
			return // Some attributes are URIs, which only the writer checks.
		}
		if !json.Valid(again) {
			t.Fatalf("%q became %q, which is not JSON", body, again)
		}
		if _, err := event.ParseStructured(event.StructuredJSON, again); err != nil {
			t.Fatalf("%q became %q, which is not read: %v", body, again, err)
		}
	})
}
