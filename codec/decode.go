package codec

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// Decode reads an event. The message is one of those that Message names; it
// shares the event's body and strings. The error wraps ErrUnknownType,
// ErrUnsupportedVersion or ErrMalformed, and ErrUnknownEncoding beside the latter
// for a body that is not JSON, such as one that is still compressed.
//
// Integers may have a fraction of zeros, as some peers write them. Attributes
// that the type does not use are ignored, and so are unknown fields of bodies.
func Decode(e event.Event) (Action, Message, error) {
	typ := e.Get(event.Type)
	if kind, ok := strings.CutPrefix(typ, ownType+"."); ok {
		return decodeOwn(e, kind)
	}
	suffix, ok := strings.CutPrefix(typ, DataType+".")
	if !ok {
		return "", nil, unknown(typ)
	}
	kind, a, _ := strings.Cut(suffix, ".")
	var decode func(event.Event) (Message, error)
	switch typ {
	case specCreate, specUpdate, specDelete, specResyncResponse:
		decode = decodeBundle
	case statusUpdate, statusResyncResponse:
		decode = decodeReport
	case specResyncRequest:
		decode = decodeSpecResync
	case statusResyncRequest:
		decode = decodeStatusResync
	default:
		return "", nil, unknown(typ)
	}
	m, err := decodeAs(e, decode)
	if err != nil {
		return "", nil, fmt.Errorf("decode %s %s of %.100q: %w", kind, a, e.Get(attrResourceID), err)
	}
	return Action(a), m, nil
}

// decodeAs reads an event whose type is known.
func decodeAs(e event.Event, decode func(event.Event) (Message, error)) (Message, error) {
	if v, ok := e.Lookup(event.SpecVersion); ok && v != event.Version {
		return nil, fmt.Errorf("%w: CloudEvents %.40q, only %s is spoken", ErrUnsupportedVersion, v, event.Version)
	}
	m, err := decode(e)
	if err == nil {
		err = e.Validate()
	}
	if err != nil {
		return nil, asMalformed(err)
	}
	return m, nil
}

func decodeBundle(e event.Event) (Message, error) {
	b := Bundle{
		ID:      e.Get(attrResourceID),
		Source:  e.Get(event.Source),
		Cluster: e.Get(attrCluster),
	}
	var err error
	if b.Generation, err = generationOf(e); err != nil {
		return nil, err
	}
	if at, ok := e.Lookup(attrDeletion); ok {
		if b.DeletedAt, err = event.ParseTime(at); err != nil {
			return nil, fmt.Errorf("%s: %w", attrDeletion, err)
		}
		if err := checkDeletion(b.DeletedAt); err != nil {
			return nil, err
		}
	}
	if b.Payload, err = bodyOf(e); err != nil {
		return nil, err
	}
	if b.Metadata, err = metadataOf(e); err != nil {
		return nil, err
	}
	if b.Trace, err = traceOf(e); err != nil {
		return nil, err
	}
	return b, b.check()
}

func decodeReport(e event.Event) (Message, error) {
	r := Report{
		ID:      e.Get(attrResourceID),
		Source:  e.Get(attrSource),
		Cluster: e.Get(attrCluster),
		Agent:   e.Get(event.Source),
		Hash:    e.Get(attrHash),
	}
	var err error
	if r.Generation, err = generationOf(e); err != nil {
		return nil, err
	}
	sequence, ok := e.Lookup(attrSequence)
	if !ok {
		return nil, malformed("it has no %s", attrSequence)
	}
	if r.Sequence, err = ParseSequence(sequence); err != nil {
		return nil, err
	}
	if r.Payload, err = bodyOf(e); err != nil {
		return nil, err
	}
	if r.Metadata, err = metadataOf(e); err != nil {
		return nil, err
	}
	if r.Trace, err = traceOf(e); err != nil {
		return nil, err
	}
	return r, r.check()
}

// generationOf takes a fraction of zeros: a peer that holds its integers as
// floating-point numbers may write one.
func generationOf(e event.Event) (int64, error) {
	text, ok := e.Lookup(attrGeneration)
	if !ok {
		return 0, malformed("it has no %s", attrGeneration)
	}
	whole, fraction, dotted := strings.Cut(text, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || dotted && (fraction == "" || strings.Trim(fraction, "0") != "") {
		return 0, malformed("%s %.40q is not an integer", attrGeneration, text)
	}
	return n, nil
}

func bodyOf(e event.Event) ([]byte, error) {
	if len(e.Data) == 0 {
		return nil, nil
	}
	if len(e.Data) > MaxPayload {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrPayloadTooLarge, len(e.Data), MaxPayload)
	}
	if err := checkMedia(e); err != nil {
		return nil, err
	}
	return e.Data, checkObject("the body", e.Data, MaxDepth)
}

// checkMedia takes a body for JSON if nothing says what it is.
func checkMedia(e event.Event) error {
	if media, _, _ := strings.Cut(e.Get(event.DataContentType), ";"); media != "" &&
		!strings.EqualFold(strings.TrimSpace(media), event.JSON) {
		return fmt.Errorf("%w: content type %.100q, only %s is read", ErrUnknownEncoding, media, event.JSON)
	}
	return nil
}

func metadataOf(e event.Event) ([]byte, error) {
	text := e.Get(attrMetadata)
	if text == "" {
		return nil, nil
	}
	if err := checkText(attrMetadata, text); err != nil {
		return nil, err
	}
	metadata := []byte(text)
	return metadata, checkObject(attrMetadata, metadata, MaxDepth)
}

func traceOf(e event.Event) (string, error) {
	text := e.Get(attrTrace)
	if text == "" || text == "{}" {
		return "", nil
	}
	if err := checkText(attrTrace, text); err != nil {
		return "", err
	}
	if _, err := parseTrace(text); err != nil {
		return "", err
	}
	return text, nil
}

func parseTrace(text string) (map[string]string, error) {
	if text == "" {
		return nil, nil
	}
	var trace map[string]string
	if err := parseObject(attrTrace, []byte(text), &trace); err != nil {
		return nil, err
	}
	return trace, nil
}

// asMalformed makes every reason that Decode has one that wraps ErrMalformed.
func asMalformed(err error) error {
	if errors.Is(err, ErrMalformed) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrMalformed, err)
}
