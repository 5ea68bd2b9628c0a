package codec

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// Encode implements Message. Any action goes with a bundle but ResyncRequest.
func (b Bundle) Encode(a Action) (event.Event, error) {
	var typ string
	switch a {
	case Create:
		typ = specCreate
	case Update:
		typ = specUpdate
	case Delete:
		typ = specDelete
	case ResyncResponse:
		typ = specResyncResponse
	default:
		return event.Event{}, fmt.Errorf("encode work %q: action %q does not go with a bundle", b.ID, a)
	}
	if err := b.check(); err != nil {
		return event.Event{}, fmt.Errorf("encode work %q of cluster %q: %w", b.ID, b.Cluster, err)
	}
	var text values
	text.Grow(len(b.Metadata) + len(time.RFC3339Nano) + maxDigits)
	e := event.New(typ, b.Source, time.Now(), 8)
	setBody(&e, b.Payload)
	e.Set(attrCluster, b.Cluster)
	e.Set(attrSource, "")
	e.Set(attrResourceID, b.ID)
	e.Set(attrGeneration, text.int(b.Generation))
	if b.Deleting() {
		e.Set(attrDeletion, text.time(b.DeletedAt))
	}
	if err := setMetadata(&e, &text, b.Metadata); err != nil {
		return event.Event{}, fmt.Errorf("encode work %q of cluster %q: %w", b.ID, b.Cluster, err)
	}
	setTrace(&e, b.Trace)
	return e, nil
}

// Encode implements Message. The action is Update or ResyncResponse.
func (r Report) Encode(a Action) (event.Event, error) {
	var typ string
	switch a {
	case Update:
		typ = statusUpdate
	case ResyncResponse:
		typ = statusResyncResponse
	default:
		return event.Event{}, fmt.Errorf("encode report on work %q: action %q does not go with a report", r.ID, a)
	}
	if err := r.check(); err != nil {
		return event.Event{}, fmt.Errorf("encode report on work %q of cluster %q: %w", r.ID, r.Cluster, err)
	}
	var text values
	text.Grow(len(r.Metadata) + 2*maxDigits)
	e := event.New(typ, r.Agent, time.Now(), 9)
	setBody(&e, r.Payload)
	e.Set(attrCluster, r.Cluster)
	e.Set(attrSource, r.Source)
	e.Set(attrResourceID, r.ID)
	e.Set(attrGeneration, text.int(r.Generation))
	if err := setMetadata(&e, &text, r.Metadata); err != nil {
		return event.Event{}, fmt.Errorf("encode report on work %q of cluster %q: %w", r.ID, r.Cluster, err)
	}
	if r.Hash != "" {
		e.Set(attrHash, r.Hash)
	}
	e.Set(attrSequence, text.int(int64(r.Sequence)))
	setTrace(&e, r.Trace)
	return e, nil
}

func setBody(e *event.Event, body []byte) {
	if len(body) > 0 {
		e.Set(event.DataContentType, event.JSON)
		e.Data = body
	}
}

func setMetadata(e *event.Event, text *values, metadata []byte) error {
	if len(metadata) == 0 {
		return nil
	}
	s := text.bytes(metadata)
	if err := checkText(attrMetadata, s); err != nil {
		return err
	}
	e.Set(attrMetadata, s)
	return nil
}

func setTrace(e *event.Event, trace string) {
	if trace == "" {
		trace = "{}"
	}
	e.Set(attrTrace, trace)
}

// values writes the values of several attributes into one allocation. A value
// stays what it is when later ones outgrow what Grow made room for.
type values struct{ strings.Builder }

// maxDigits is the length of the longest 64-bit integer.
const maxDigits = 20

func (v *values) int(n int64) string {
	var digits [maxDigits]byte
	return v.bytes(strconv.AppendInt(digits[:0], n, 10))
}

func (v *values) time(t time.Time) string {
	var text [len(time.RFC3339Nano)]byte
	return v.bytes(t.UTC().AppendFormat(text[:0], time.RFC3339Nano))
}

func (v *values) bytes(b []byte) string {
	start := v.Len()
	_, _ = v.Write(b) // A Builder takes everything.
	return v.String()[start:]
}
