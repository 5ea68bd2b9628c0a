package event_test

import (
	"errors"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/pkg/event"
)

type pairs [][2]string

func (p pairs) all() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, pair := range p {
			if !yield(pair[0], pair[1]) {
				return
			}
		}
	}
}

func attributes(e event.Event) map[string]string {
	return maps.Collect(e.All())
}

var prefixed = pairs{{"ce-specversion", "1.0"}, {"ce-id", "1"}, {"ce-source", "hub"}, {"ce-type", "t"}}

var plain = pairs{{"specversion", "1.0"}, {"id", "1"}, {"source", "hub"}, {"type", "t"}}

func TestFromProperties(t *testing.T) {
	required := map[string]string{"specversion": "1.0", "id": "1", "source": "hub", "type": "t"}
	with := func(more ...string) map[string]string {
		all := maps.Clone(required)
		for i := 0; i < len(more); i += 2 {
			all[more[i]] = more[i+1]
		}
		return all
	}
	for _, tc := range []struct {
		reason      string
		contentType string
		props       pairs
		body        string
		want        map[string]string
	}{
		{"the SDK's names", "", prefixed, "", required},
		{"the names of the MQTT binding", "", plain, "", required},
		{"the content type is the type of the body", "application/json", prefixed, "{}", with("datacontenttype", "application/json")},
		{
			"a binding without content type names it as an attribute", "", append(prefixed[:4:4], [2]string{"ce-datacontenttype", "text/plain"}), "a",
			with("datacontenttype", "text/plain"),
		},
		{
			"what has no prefix is somebody else's, wherever it stands", "",
			append(append(pairs{{"type", "other"}, {"priority", "high"}}, prefixed...), [2]string{"id", "2"}), "", required,
		},
		{
			"what cannot be an attribute is somebody else's", "",
			append(plain[:4:4], [2]string{"x-trace", "a\nb"}, [2]string{"Priority", "1"}, [2]string{"", "2"}, [2]string{strings.Repeat("a", 65), "3"}), "", required,
		},
		{
			"an extension without prefix", "", append(plain[:4:4], [2]string{"clustername", ""}), "", with("clustername", ""),
		},
		{
			"a prefix alone does not make the prefixed form", "", append(plain[:4:4], [2]string{"ce-id", "2"}), "", required,
		},
		{
			"of a name given twice the later counts", "", append(prefixed[:4:4], [2]string{"ce-x", "1"}, [2]string{"ce-x", "2"}), "", with("x", "2"),
		},
		{
			"a prefixed name that no attribute has", "", append(prefixed[:4:4], [2]string{"ce-X", "1"}, [2]string{"ce-", "2"}), "", required,
		},
		{
			"structured mode, with properties that say otherwise", "application/cloudevents+json; charset=utf-8",
			pairs{{"ce-id", "2"}},
			`{"specversion":"1.0","id":"1","source":"hub","type":"t"}`, required,
		},
	} {
		e, err := event.FromProperties(tc.contentType, tc.props.all(), []byte(tc.body))
		if err != nil {
			t.Errorf("%s: %v", tc.reason, err)
			continue
		}
		if diff := cmp.Diff(tc.want, attributes(e)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
		}
		if !event.IsStructured(tc.contentType) && string(e.Data) != tc.body || len(tc.body) == 0 && e.Data != nil {
			t.Errorf("%s: body %q", tc.reason, e.Data)
		}
	}
}

func TestFromPropertiesRefuses(t *testing.T) {
	many := func(of pairs, prefix string) pairs {
		p := of[:4:4]
		for i := range event.MaxAttributes {
			p = append(p, [2]string{prefix + "x" + strconv.Itoa(i), ""})
		}
		return p
	}
	for _, tc := range []struct {
		reason      string
		contentType string
		props       pairs
		body        string
	}{
		{"nothing at all", "", nil, ""},
		{"no ID", "", prefixed[:1], ""},
		{"the two forms are not mixed", "", append(prefixed[:3:3], [2]string{"type", "t"}), ""},
		{"another version", "", append(prefixed[1:4:4], [2]string{"ce-specversion", "0.3"}), ""},
		{"too many attributes", "", many(prefixed, "ce-"), ""},
		{"too many attributes without prefix", "", many(plain, ""), ""},
		{"a value that is too long", "", append(prefixed[:4:4], [2]string{"ce-x", strings.Repeat("a", event.MaxValue+1)}), ""},
		{"a line break", "", append(prefixed[:4:4], [2]string{"ce-x", "a\r\nb"}), ""},
		{"a value that is not UTF-8", "", append(prefixed[:4:4], [2]string{"ce-x", "\xff"}), ""},
		{"a batch", "application/cloudevents-batch+json", prefixed, "[]"},
		{"structured mode without a structure", event.StructuredJSON, prefixed, "{}"},
	} {
		if _, err := event.FromProperties(tc.contentType, tc.props.all(), []byte(tc.body)); !errors.Is(err, event.ErrInvalid) {
			t.Errorf("%s: error %v", tc.reason, err)
		}
	}
	// What is ignored is not counted.
	crowd := slices.Concat(many(plain, "")[4:], prefixed)
	if _, err := event.FromProperties("", crowd.all(), nil); err != nil {
		t.Errorf("somebody else's properties spoiled the event: %v", err)
	}
}

func TestFromHeaders(t *testing.T) {
	headers := pairs{{"Ce-Specversion", "1.0"}, {"CE-ID", "1"}, {"ce-Source", "hub"}, {"Ce-Type", "t"}, {"Nats-Msg-Id", "9"}}
	e, err := event.FromHeaders("", headers.all(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"specversion": "1.0", "id": "1", "source": "hub", "type": "t"}
	if diff := cmp.Diff(want, attributes(e)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := event.FromProperties("", headers.all(), nil); !errors.Is(err, event.ErrInvalid) {
		t.Errorf("properties are case-sensitive, headers are not: error %v", err)
	}
	for _, tc := range []struct {
		reason string
		more   pairs
		fails  bool
	}{
		{"two spellings of one header, and no telling which came first", pairs{{"ce-id", "2"}}, true},
		{"two spellings that agree", pairs{{"ce-id", "1"}}, false},
		{"somebody else's header twice", pairs{{"Priority", "1"}, {"priority", "2"}}, false},
	} {
		_, err := event.FromHeaders("", append(headers[:5:5], tc.more...).all(), nil)
		if errors.Is(err, event.ErrInvalid) != tc.fails {
			t.Errorf("%s: error %v", tc.reason, err)
		}
	}
}

func BenchmarkFromProperties(b *testing.B) {
	props := prefixed[:4:4]
	for _, name := range []string{"time", "clustername", "originalsource", "resourceid", "resourceversion", "metadata", "logtracing"} {
		props = append(props, [2]string{"ce-" + name, "2026-02-03T04:05:01.25Z"})
	}
	body := []byte("{}")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := event.FromProperties(event.JSON, props.all(), body); err != nil {
			b.Fatal(err)
		}
	}
}
