package mqtt

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

func valid() event.Event {
	e := event.New("io.example.type", "test", time.Date(2024, 2, 29, 1, 2, 3, 4, time.UTC), 4)
	e.Set(event.DataContentType, event.JSON)
	e.Data = []byte(`{}`)
	return e
}

// The attributes are where OCM's peers look for them, in the order in which
// they were set.
func TestEncode(t *testing.T) {
	e := event.Of(
		[]byte("body"),
		event.Attribute{Name: event.SpecVersion, Value: "1.0"},
		event.Attribute{Name: event.DataContentType, Value: "application/json"},
		event.Attribute{Name: event.ID, Value: "1"},
		event.Attribute{Name: "clustername", Value: ""},
	)
	got, err := encode("t", e)
	if err != nil {
		t.Fatal(err)
	}
	want := &paho.Publish{
		QoS: 1, Topic: "t", Payload: []byte("body"),
		Properties: &paho.PublishProperties{
			ContentType: "application/json",
			User:        paho.UserProperties{{Key: "ce-specversion", Value: "1.0"}, {Key: "ce-id", Value: "1"}, {Key: "ce-clustername", Value: ""}},
		},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(paho.Publish{})); diff != "" {
		t.Errorf("encoded event (-want +got):\n%s", diff)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for _, test := range []struct {
		reason, name, value string
		want                error
	}{
		{"paho would cut the value off", "metadata", strings.Repeat("x", 65536), brokers.ErrTooLarge},
		{"paho would cut the name off", strings.Repeat("x", 65533), "v", brokers.ErrTooLarge},
		{"mosquitto hangs up on a NUL", "a", "x\x00y", event.ErrInvalid},
		{"mosquitto hangs up on control characters", "a", "x\ny", event.ErrInvalid},
		{"mosquitto hangs up on DEL", "a", "x\x7fy", event.ErrInvalid},
		{"mosquitto hangs up on C1 controls", "a", "x\u0085y", event.ErrInvalid},
		{"mosquitto hangs up on noncharacters", "a", "x\ufffey", event.ErrInvalid},
		{"mosquitto hangs up on noncharacters", "a", "x\U0010ffff", event.ErrInvalid},
		{"mosquitto hangs up on noncharacters", "a", "\ufdd0", event.ErrInvalid},
		{"not UTF-8", "a", "\xff", event.ErrInvalid},
		{"a surrogate is not UTF-8", "a", "\xed\xa0\x80", event.ErrInvalid},
		{"names are strings too", "a\n", "v", event.ErrInvalid},
	} {
		e := valid()
		e.Set(test.name, test.value)
		_, err := encode("t", e)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: encode returned %v, want %v", test.reason, err, test.want)
		}
		if err != nil && len(err.Error()) > 300 {
			t.Errorf("%s: the error has %d bytes", test.reason, len(err.Error()))
		}
	}
	for _, value := range []string{strings.Repeat("x", 65535), "", " ", "\ufffd", "\u00a0", "世界🚢", "\ufffc"} {
		e := valid()
		e.Set("a", value)
		if _, err := encode("t", e); err != nil {
			t.Errorf("value of %d bytes refused: %v", len(value), err)
		}
	}
}

func TestPacketSize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Lengths around those where another byte is needed for them.
		length := rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(16_300, 16_500), rapid.SampledFrom([]int{65_535}))
		text := func(label string) string { return strings.Repeat("x", length.Draw(t, label)) }
		p := &paho.Publish{
			QoS: 1, Topic: text("topic"), Payload: bytes.Repeat([]byte("x"), rapid.OneOf(length, rapid.IntRange(2_097_000, 2_097_300)).Draw(t, "payload")),
			Properties: &paho.PublishProperties{ContentType: text("content type")},
		}
		for i := range rapid.IntRange(0, 5).Draw(t, "attributes") {
			p.Properties.User.Add("ce-"+strconv.Itoa(i), text("value"))
		}
		var wire bytes.Buffer
		if _, err := p.Packet().WriteTo(&wire); err != nil {
			t.Fatal(err)
		}
		if got := packetSize(p); got != wire.Len() {
			t.Fatalf("packet of %d bytes is said to have %d", wire.Len(), got)
		}
	})
}

func TestDecode(t *testing.T) {
	attributes := func(pairs ...string) paho.UserProperties {
		var u paho.UserProperties
		for i := 0; i < len(pairs); i += 2 {
			u.Add(pairs[i], pairs[i+1])
		}
		return u
	}
	required := attributes("ce-specversion", "1.0", "ce-id", "1", "ce-source", "s", "ce-type", "t")
	with := func(pairs ...string) paho.UserProperties {
		return append(slices.Clip(required), attributes(pairs...)...)
	}
	many := with()
	for i := range event.MaxAttributes {
		many.Add("ce-x"+strconv.Itoa(i), "")
	}
	base := []event.Attribute{{Name: event.SpecVersion, Value: "1.0"}, {Name: event.ID, Value: "1"}, {Name: event.Source, Value: "s"}, {Name: event.Type, Value: "t"}}
	for _, test := range []struct {
		reason      string
		contentType string
		user        paho.UserProperties
		payload     string
		want        event.Event
		invalid     bool
	}{
		{reason: "binary", contentType: "application/json", user: required, payload: "{}", want: event.Of([]byte("{}"), append(base, event.Attribute{Name: event.DataContentType, Value: "application/json"})...)},
		{reason: "no body", user: required, want: event.Of(nil, base...)},
		{reason: "the last of duplicates wins", user: with("ce-x", "1", "ce-x", "2"), want: event.Of(nil, append(base, event.Attribute{Name: "x", Value: "2"})...)},
		{reason: "properties without prefix are hints for others", user: with("x", "1", "ce-", "2"), want: event.Of(nil, base...)},
		{reason: "structured", contentType: "application/cloudevents+json; charset=utf-8", payload: `{"specversion":"1.0","id":"1","source":"s","type":"t"}`, want: event.Of(nil, base...)},
		{reason: "structured, broken", contentType: "application/cloudevents+json", payload: `{`, invalid: true},
		{reason: "a batch is none", contentType: "application/cloudevents-batch+json", payload: `[]`, invalid: true},
		{reason: "no attributes at all", payload: "hello", invalid: true},
		{reason: "names of the specification, which no OCM peer uses", user: attributes("specversion", "1.0", "id", "1", "source", "s", "type", "t"), want: event.Of(nil, base...)},
		{reason: "attributes without end cost time with the square of their number", user: many, invalid: true},
	} {
		got, err := decode(&paho.Publish{Payload: []byte(test.payload), Properties: &paho.PublishProperties{ContentType: test.contentType, User: test.user}})
		if test.invalid {
			if !errors.Is(err, event.ErrInvalid) {
				t.Errorf("%s: decode returned %v, want ErrInvalid", test.reason, err)
			}
			continue
		}
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(event.Event{})); err != nil || diff != "" {
			t.Errorf("%s: %v, (-want +got)\n%s", test.reason, err, diff)
		}
	}
}

func TestEncodeDecode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := valid()
		e.Data = nil
		if body := rapid.SliceOf(rapid.Byte()).Draw(t, "body"); len(body) > 0 {
			e.Data = body
		}
		e.Unset(event.DataContentType)
		names := rapid.SliceOfDistinct(rapid.StringMatching(`[a-z0-9]{1,20}`), rapid.ID).Draw(t, "names")
		for _, name := range names {
			e.Set("x"+name, rapid.StringMatching(`[ -~äß世🚢]{0,50}`).Draw(t, name))
		}
		p, err := encode("t", e)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(p)
		if diff := cmp.Diff(e, got, cmp.AllowUnexported(event.Event{})); err != nil || diff != "" {
			t.Fatalf("%v, (-sent +received)\n%s", err, diff)
		}
	})
}

// What a broker hands on is either an event that a subscriber can rely on, or
// refused; its size bounds what it costs.
func FuzzDecode(f *testing.F) {
	for _, p := range []*paho.Publish{
		{QoS: 1, PacketID: 1, Topic: "t", Properties: &paho.PublishProperties{ContentType: "application/cloudevents+json"}, Payload: []byte(`{"specversion":"1.0","id":"1","source":"s","type":"t","data":[[]]}`)},
		{QoS: 1, PacketID: 1, Topic: "t", Properties: &paho.PublishProperties{User: paho.UserProperties{{Key: "ce-specversion", Value: "1.0"}, {Key: "ce-id", Value: "1"}}}},
	} {
		var wire bytes.Buffer
		if _, err := p.Packet().WriteTo(&wire); err != nil {
			f.Fatal(err)
		}
		f.Add(wire.Bytes())
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		if err := (&header{limit: 1 << 16}).check(wire); err != nil {
			return
		}
		packet, err := packets.ReadPacket(bytes.NewReader(wire))
		if err != nil {
			return
		}
		p, ok := packet.Content.(*packets.Publish)
		if !ok {
			return
		}
		e, err := decode(paho.PublishFromPacketPublish(p))
		if err != nil {
			if !errors.Is(err, event.ErrInvalid) {
				t.Errorf("error %v is not ErrInvalid", err)
			}
			return
		}
		if err := e.Validate(); err != nil {
			t.Errorf("an invalid event was accepted: %v", err)
		}
	})
}
