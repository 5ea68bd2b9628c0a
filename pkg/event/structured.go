package event

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	ce "github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
)

// StructuredJSON is the media type of an event in structured mode.
const StructuredJSON = ce.ApplicationCloudEventsJSON

// maxDepth bounds the nesting of a structured event before it is parsed: the
// JSON reader behind it is recursive. The envelope is one level of it.
const maxDepth = 201

// IsStructured reports whether a content type announces a whole event as the
// body (CloudEvents JSON format 1.0, section 3), whatever its parameters.
func IsStructured(contentType string) bool {
	return strings.HasPrefix(strings.ToLower(contentType), "application/cloudevents")
}

// ParseStructured reads an event in structured mode. Attributes that are JSON
// numbers or booleans become their canonical form. Batches are not accepted.
// The caller bounds len(body); see [MaxAttributes] and [MaxValue] for the rest.
// Errors wrap ErrInvalid.
func ParseStructured(contentType string, body []byte) (out Event, err error) {
	media, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	if strings.TrimSpace(media) != StructuredJSON {
		return Event{}, fmt.Errorf("%w: content type %q is not %s", ErrInvalid, clip(contentType), StructuredJSON)
	}
	if Depth(body) > maxDepth {
		return Event{}, fmt.Errorf("%w: nested deeper than %d levels", ErrInvalid, maxDepth)
	}
	// The reader would stop at the end of the first value, and take bytes that
	// are not UTF-8.
	if !utf8.Valid(body) || !json.Valid(body) {
		return Event{}, fmt.Errorf("%w: the body is not JSON", ErrInvalid)
	}
	// The SDK's reader is not written for hostile input; one bad event must
	// not take its neighbours down.
	defer func() {
		if r := recover(); r != nil {
			out, err = Event{}, fmt.Errorf("%w: %.200s", ErrInvalid, fmt.Sprint(r))
		}
	}()
	var in ce.Event
	if err := in.UnmarshalJSON(body); err != nil {
		return Event{}, fmt.Errorf("%w: %.200s", ErrInvalid, err.Error())
	}
	if in.Context == nil {
		return Event{}, fmt.Errorf("%w: it has no %s", ErrInvalid, SpecVersion)
	}
	return fromSDK(in)
}

// FormatStructured writes e as one JSON document. A body that cannot stand in
// it as it is becomes data_base64. The error wraps ErrInvalid for an event that
// is not valid, or whose attributes have not the form of their types: a source
// that is no URI reference, for one.
func (e Event) FormatStructured() ([]byte, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	out := ce.New(Version)
	for name, value := range e.All() {
		switch name {
		case SpecVersion:
		case ID:
			out.SetID(value)
		case Source:
			out.SetSource(value)
		case Type:
			out.SetType(value)
		case Subject:
			out.SetSubject(value)
		case DataSchema:
			out.SetDataSchema(value)
		case DataContentType:
			out.SetDataContentType(value)
		case Time:
			t, err := ParseTime(value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", Time, err)
			}
			out.SetTime(t)
		default:
			out.SetExtension(name, value)
		}
	}
	out.DataEncoded = e.Data
	out.DataBase64 = !embeddable(e)
	// The writer leaves out what a setter refused.
	if err := out.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %.200s", ErrInvalid, err.Error())
	}
	b, err := out.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("write structured event: %w", err)
	}
	return b, nil
}

// embeddable says whether the body can stand in a JSON document as it is:
// as a JSON value or as a string. Otherwise it needs base64.
func embeddable(e Event) bool {
	if !utf8.Valid(e.Data) {
		return false
	}
	media, _, _ := strings.Cut(strings.ToLower(e.Get(DataContentType)), ";")
	switch strings.TrimSpace(media) {
	case "", JSON, ce.TextJSON, ce.ApplicationCloudEventsJSON, ce.ApplicationCloudEventsBatchJSON:
		return json.Valid(e.Data)
	}
	return true
}

func fromSDK(in ce.Event) (Event, error) {
	e := Event{attrs: make([]Attribute, 0, 8+len(in.Extensions())), Data: in.Data()}
	e.Set(SpecVersion, in.SpecVersion())
	e.Set(ID, in.ID())
	e.Set(Source, in.Source())
	e.Set(Type, in.Type())
	optional := []Attribute{
		{Subject, in.Subject()},
		{DataSchema, in.DataSchema()},
		{DataContentType, in.DataContentType()},
	}
	if t := in.Time(); !t.IsZero() {
		optional = append(optional, Attribute{Time, FormatTime(t)})
	}
	for _, a := range optional {
		if a.Value != "" {
			e.Set(a.Name, a.Value)
		}
	}
	extensions := in.Extensions()
	for _, name := range slices.Sorted(maps.Keys(extensions)) {
		s, err := types.Format(extensions[name])
		if err != nil {
			return Event{}, fmt.Errorf("%w: extension %q: %.200s", ErrInvalid, clip(name), err.Error())
		}
		e.Set(name, s)
	}
	if err := e.checkLimits(); err != nil {
		return Event{}, err
	}
	if err := e.Validate(); err != nil {
		return Event{}, err
	}
	return e, nil
}
