package nats

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	natsgo "github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

func attributes(e event.Event) map[string]string { return maps.Collect(e.All()) }

func TestHeadersRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.String().Filter(event.IsText).Draw(t, "value")
		e := event.Of(
			[]byte("body"),
			event.Attribute{Name: event.SpecVersion, Value: event.Version},
			event.Attribute{Name: event.ID, Value: "1"},
			event.Attribute{Name: event.Source, Value: "hub"},
			event.Attribute{Name: event.Type, Value: "t"},
			event.Attribute{Name: event.DataContentType, Value: rapid.SampledFrom([]string{event.JSON, "", event.StructuredJSON}).Draw(t, "media")},
			event.Attribute{Name: "extension", Value: value},
		)
		m := message("s", e)
		for name, values := range m.Header {
			for i := range len(values[0]) {
				if c := values[0][i]; c <= ' ' || c > '~' {
					t.Fatalf("header %s has the byte %#x", name, c)
				}
			}
		}
		got, err := parse(m.Header, m.Data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(attributes(e), attributes(got)); diff != "" {
			t.Fatalf("attributes changed (-sent +read):\n%s", diff)
		}
	})
}

func TestParse(t *testing.T) {
	required := map[string]string{event.SpecVersion: "1.0", event.ID: "1", event.Source: "hub", event.Type: "t"}
	with := func(name, value string) map[string]string {
		m := maps.Clone(required)
		m[name] = value
		return m
	}
	const structured = `{"specversion":"1.0","id":"1","source":"hub","type":"t"}`
	headers := func(pairs ...string) natsgo.Header {
		h := natsgo.Header{"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-source": {"hub"}, "ce-type": {"t"}}
		for i := 0; i < len(pairs); i += 2 {
			h[pairs[i]] = []string{pairs[i+1]}
		}
		return h
	}
	for _, test := range []struct {
		reason string
		header natsgo.Header
		body   string
		want   map[string]string
	}{
		{"binary mode", headers(), "{}", required},
		{"names have no case", natsgo.Header{"Ce-Specversion": {"1.0"}, "CE-ID": {"1"}, "cE-source": {"hub"}, "Ce-Type": {"t"}}, "", required},
		{"values are decoded", headers("ce-subject", "a%20b%C3%BC"), "", with(event.Subject, "a bü")},
		{"what is no escape stays", headers("ce-subject", "100%"), "", with(event.Subject, "100%")},
		{"the SDK has the content type here", headers("Content-Type", event.JSON), "", with(event.DataContentType, event.JSON)},
		{"the binding has it there", headers("ce-datacontenttype", event.JSON), "", with(event.DataContentType, event.JSON)},
		{"the stream's own headers are no attributes", headers("Nats-Msg-Id", "x", "traceparent", "y"), "", required},
		{"structured mode", natsgo.Header{"Content-Type": {event.StructuredJSON}}, structured, required},
		{"structured mode of old peers, which have no headers", nil, structured, required},
		{"no event", headers("ce-id", ""), "", nil},
		{"no event at all", nil, "hello", nil},
		{"no CloudEvents headers", natsgo.Header{"a": {"b"}}, "", nil},
	} {
		e, err := parse(test.header, []byte(test.body))
		switch {
		case test.want == nil && !errors.Is(err, event.ErrInvalid):
			t.Errorf("%s: got %v, want ErrInvalid", test.reason, err)
		case test.want != nil && err != nil:
			t.Errorf("%s: %v", test.reason, err)
		case test.want != nil:
			if diff := cmp.Diff(test.want, attributes(e)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.reason, diff)
			}
		}
	}
}

func TestMessageIDs(t *testing.T) {
	e := event.Of(nil, event.Attribute{Name: event.ID, Value: "1\r\nevil: 2"})
	one, two := messageID("p.spec.c1.s.k", e), messageID("p.spec.c2.s.k", e)
	if one == two {
		t.Errorf("one event for two clusters has one ID %q: the second would be dropped", one)
	}
	if strings.ContainsAny(one, "\r\n") {
		t.Errorf("ID %q holds a line break", one)
	}
}

func TestCheckSize(t *testing.T) {
	m := func(header, body int) *natsgo.Msg {
		return &natsgo.Msg{Header: natsgo.Header{"a": {strings.Repeat("x", header)}}, Data: make([]byte, body)}
	}
	for _, test := range []struct {
		reason  string
		m       *natsgo.Msg
		stored  bool
		too     bool
		message int64
	}{
		{"fits", m(10, 900), true, false, 0},
		{"headers count", m(500, 600), true, true, 0},
		{"a stream's own limit", m(10, 500), true, true, 400},
		{"a stream's own limit does not bind a broadcast", m(10, 500), false, false, 400},
	} {
		if err := checkSize(test.m, 1000, test.message, test.stored); errors.Is(err, brokers.ErrTooLarge) != test.too {
			t.Errorf("%s: got %v", test.reason, err)
		}
	}
	if err := checkSize(m(70_000, 0), 1<<20, 0, true); !errors.Is(err, brokers.ErrTooLarge) {
		t.Errorf("headers over what a stream stores: got %v, want ErrTooLarge", err)
	}
}
