package event

import (
	"fmt"
	"iter"
	"strings"
	"unicode/utf8"
)

// Limits of what FromProperties, FromHeaders and ParseStructured accept. An
// MQTT user property cannot be longer than MaxValue.
const (
	MaxAttributes = 64
	MaxValue      = 65535
)

// maxName is how long the name of an attribute may be.
const maxName = 64

// prefix is what the CloudEvents SDK for Go, and so every OCM client, puts
// before the name of an attribute. The MQTT binding 1.0.2, section 3.1.3, says
// that names are used unchanged.
const prefix = "ce-"

// FromProperties reads an event as a broker delivered it: in structured mode
// if the content type says so, and otherwise in binary mode from the
// properties beside the body.
//
// Names of binary mode are those of the CloudEvents SDK, with ce- before them,
// or those of the MQTT binding, without. If there is a ce-specversion, then
// every property without the prefix is somebody else's and is ignored.
// Otherwise every property whose name could be an attribute's is taken for one,
// and all others are ignored. Names are case-sensitive, and lower case is what
// attributes have; of a property given twice the later one counts. The content
// type becomes datacontenttype unless the properties name that themselves.
//
// The caller bounds len(body). The event shares body. What has more than
// MaxAttributes attributes, a value longer than MaxValue bytes or with
// characters that no attribute may have, or fails Validate, is an error that
// wraps ErrInvalid.
func FromProperties(contentType string, props iter.Seq2[string, string], body []byte) (Event, error) {
	if IsStructured(contentType) {
		return ParseStructured(contentType, body)
	}
	const usual = 16
	e := Event{attrs: make([]Attribute, 0, usual), Data: body}
	if len(body) == 0 {
		e.Data = nil
	}
	// The prefixed form may show itself in the last property only, so until
	// then both readings are kept.
	var plain Event
	prefixed, tooMany, plainTooMany := false, false, false
	for name, value := range props {
		if bare, ok := strings.CutPrefix(name, prefix); ok {
			if isName(bare) {
				prefixed = prefixed || bare == SpecVersion
				tooMany = !e.add(bare, value) || tooMany
			}
			continue
		}
		if !prefixed && isName(name) {
			plainTooMany = !plain.add(name, value) || plainTooMany
		}
	}
	if !prefixed {
		plain.Data = e.Data
		e, tooMany = plain, plainTooMany
	}
	if tooMany {
		return Event{}, fmt.Errorf("%w: it has more than %d attributes", ErrInvalid, MaxAttributes)
	}
	if _, ok := e.Lookup(DataContentType); !ok && contentType != "" {
		e.Set(DataContentType, contentType)
	}
	if err := e.checkLimits(); err != nil {
		return Event{}, err
	}
	if err := e.Validate(); err != nil {
		return Event{}, err
	}
	return e, nil
}

// FromHeaders is FromProperties for brokers whose header names are
// case-insensitive, as those of NATS are. Names that differ only in case are
// the same header; one that comes twice with different values is an error,
// because such brokers do not tell which came later. Values are taken as they
// are, without percent-decoding.
func FromHeaders(contentType string, headers iter.Seq2[string, string], body []byte) (Event, error) {
	if IsStructured(contentType) {
		return ParseStructured(contentType, body)
	}
	var seen Event
	var twice string
	folded := func(yield func(string, string) bool) {
		for name, value := range headers {
			name = strings.ToLower(name)
			if before, ok := seen.Lookup(name); ok && before != value {
				twice = name
			}
			seen.add(name, value)
			if !yield(name, value) {
				return
			}
		}
	}
	e, err := FromProperties(contentType, folded, body)
	if err == nil && twice != "" {
		if _, ok := e.Lookup(strings.TrimPrefix(twice, prefix)); ok {
			return Event{}, fmt.Errorf("%w: header %q comes twice", ErrInvalid, clip(twice))
		}
	}
	return e, err
}

// add is Set up to MaxAttributes, and says whether it had room.
func (e *Event) add(name, value string) bool {
	if len(e.attrs) < MaxAttributes {
		e.Set(name, value)
		return true
	}
	_, ok := e.Lookup(name)
	if ok {
		e.Set(name, value)
	}
	return ok
}

// isName reports whether an attribute may have this name: lower-case letters
// and digits of ASCII (CloudEvents 1.0, section 3.1, which also advises no more
// than 20 of them).
func isName(name string) bool {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return name != "" && len(name) <= maxName
}

// checkLimits checks number and values of the attributes. CloudEvents 1.0,
// section 3.1, keeps control characters out of strings; a broker with text
// headers could be made to read a line break in one as a further header.
func (e Event) checkLimits() error {
	if len(e.attrs) > MaxAttributes {
		return fmt.Errorf("%w: it has more than %d attributes", ErrInvalid, MaxAttributes)
	}
	for _, a := range e.attrs {
		if len(a.Value) > MaxValue {
			return fmt.Errorf("%w: %s has %d bytes, at most %d are allowed", ErrInvalid, a.Name, len(a.Value), MaxValue)
		}
		if !IsText(a.Value) {
			return fmt.Errorf("%w: %s holds control characters or is not UTF-8", ErrInvalid, a.Name)
		}
	}
	return nil
}

// IsText reports whether s may be the value of an attribute: UTF-8 without the
// control characters below U+0020.
func IsText(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' {
			return false
		}
	}
	return utf8.ValidString(s)
}
