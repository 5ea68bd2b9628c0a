package codec_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetcast-io/fleetcast/codec"
)

func TestEncodeRefuses(t *testing.T) {
	bundle := func(change func(*codec.Bundle)) codec.Message {
		b := newBundle(t, webTier(3))
		change(&b)
		return b
	}
	report := func(change func(*codec.Report)) codec.Message {
		r := newReport(t, newBundle(t, webTier(3)), appliedStatus(), 1)
		change(&r)
		return r
	}
	for _, tc := range []struct {
		reason  string
		message codec.Message
		want    error
	}{
		{"no ID", bundle(func(b *codec.Bundle) { b.ID = "" }), codec.ErrMalformed},
		{"no source", bundle(func(b *codec.Bundle) { b.Source = "" }), codec.ErrMalformed},
		{"no cluster", bundle(func(b *codec.Bundle) { b.Cluster = "" }), codec.ErrMalformed},
		{"a cluster with a line break", bundle(func(b *codec.Bundle) { b.Cluster = "a\r\nce-id: b" }), codec.ErrMalformed},
		{"a generation over 32 bits", bundle(func(b *codec.Bundle) { b.Generation = math.MaxInt32 + 1 }), codec.ErrGenerationRange},
		{"a negative generation", bundle(func(b *codec.Bundle) { b.Generation = -1 }), codec.ErrGenerationRange},
		{"no manifests", bundle(func(b *codec.Bundle) { b.Payload = nil }), codec.ErrMalformed},
		{"manifests that are no object", bundle(func(b *codec.Bundle) { b.Payload = []byte("[]") }), codec.ErrMalformed},
		{"too many manifests", bundle(func(b *codec.Bundle) { b.Payload = make([]byte, codec.MaxPayload+1) }), codec.ErrPayloadTooLarge},
		{"metadata that a broker cuts off", bundle(func(b *codec.Bundle) { b.Metadata = make([]byte, 65536) }), codec.ErrMetadataTooLarge},
		{"metadata with a line break", bundle(func(b *codec.Bundle) { b.Metadata = []byte("{\n}") }), codec.ErrMalformed},
		{"tracing that is no object", bundle(func(b *codec.Bundle) { b.Trace = "op-id" }), codec.ErrMalformed},
		{"a deletion after the last year", bundle(func(b *codec.Bundle) { b.DeletedAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }), codec.ErrMalformed},
		{"an ID that no key can hold", bundle(func(b *codec.Bundle) { b.ID = long(codec.MaxID) }), codec.ErrMalformed},
		{"a cluster's name that no object can have", bundle(func(b *codec.Bundle) { b.Cluster = long(codec.MaxName) }), codec.ErrMalformed},
		{"a source's name that no object can have", bundle(func(b *codec.Bundle) { b.Source = long(codec.MaxName) }), codec.ErrMalformed},
		{"an agent with a novel's name", report(func(r *codec.Report) { r.Agent = long(codec.MaxID) }), codec.ErrMalformed},
		{"an ID in the list that no key can hold", codec.SpecResync{Agent: agent, Cluster: cluster, Versions: []codec.Version{{ID: long(codec.MaxID)}}}, codec.ErrMalformed},
		{"a report of nobody", report(func(r *codec.Report) { r.Agent = "" }), codec.ErrMalformed},
		{"a report to nobody", report(func(r *codec.Report) { r.Source = "" }), codec.ErrMalformed},
		{"a report without sequence", report(func(r *codec.Report) { r.Sequence = 0 }), codec.ErrMalformed},
		{"a report without status", report(func(r *codec.Report) { r.Payload = nil }), codec.ErrMalformed},
		{"a report with half a hash", report(func(r *codec.Report) { r.Hash = r.Hash[:32] }), codec.ErrMalformed},
		{"a question from nobody", codec.StatusResync{}, codec.ErrMalformed},
		{"a question of no cluster's agent", codec.SpecResync{Agent: agent}, codec.ErrMalformed},
		{"a work without ID in the list", codec.SpecResync{Agent: agent, Cluster: cluster, Versions: []codec.Version{{}}}, codec.ErrMalformed},
		{"a list that no peer reads", codec.StatusResync{Source: source, Hashes: make([]codec.StatusHash, codec.MaxListed+1)}, codec.ErrMalformed},
		{
			"a list that fits no body",
			codec.StatusResync{Source: source, Hashes: slices.Repeat(
				[]codec.StatusHash{{ID: strings.Repeat("<", codec.MaxID)}}, codec.MaxPayload/codec.MaxID,
			)},
			codec.ErrPayloadTooLarge,
		},
	} {
		action := codec.Update
		switch tc.message.(type) {
		case codec.SpecResync, codec.StatusResync:
			action = codec.ResyncRequest
		}
		if _, err := tc.message.Encode(action); !errors.Is(err, tc.want) {
			t.Errorf("%s: error %v, want %v", tc.reason, err, tc.want)
		}
	}
}

func TestEncodeRefusesAction(t *testing.T) {
	b := newBundle(t, webTier(3))
	for _, tc := range []struct {
		message codec.Message
		action  codec.Action
	}{
		{b, codec.ResyncRequest},
		{b, "apply_request"},
		{newReport(t, b, appliedStatus(), 1), codec.Create},
		{newReport(t, b, appliedStatus(), 1), codec.ResyncRequest},
		{codec.SpecResync{Agent: agent, Cluster: cluster}, codec.ResyncResponse},
		{codec.StatusResync{Source: source}, codec.Update},
	} {
		if _, err := tc.message.Encode(tc.action); err == nil {
			t.Errorf("%T took action %q", tc.message, tc.action)
		}
	}
}
