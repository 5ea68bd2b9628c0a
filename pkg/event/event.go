// Package event holds a CloudEvent in the form in which every broker carries
// it: string attributes beside a body.
//
// On the wire of MQTT and of NATS all CloudEvents attributes are strings in
// the canonical encoding of the CloudEvents type system, whatever their type
// was at the sender. Keeping them that way spares a parse and a box per
// attribute on the hot path; package codec gives them meaning, and drivers
// under brokers copy them one to one. Structured mode (a whole event as JSON)
// is read and written with the CloudEvents SDK.
package event

import (
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Names of the context attributes of CloudEvents 1.0, section 3.1. Extension
// names are up to whoever defines them.
const (
	ID              = "id"
	Source          = "source"
	SpecVersion     = "specversion"
	Type            = "type"
	Time            = "time"
	Subject         = "subject"
	DataSchema      = "dataschema"
	DataContentType = "datacontenttype"
)

// Version is the only CloudEvents version spoken here.
const Version = "1.0"

// JSON is the media type of a JSON body.
const JSON = "application/json"

// ErrInvalid is wrapped by every error that says that bytes are not a
// CloudEvent of version 1.0.
var ErrInvalid = errors.New("not a valid CloudEvent")

// An Attribute is one context attribute or extension, in canonical form.
type Attribute struct {
	Name  string
	Value string
}

// An Event is one CloudEvent. The zero value is an empty event, which is not
// valid. Copies share attributes and Data: Clone before changing a copy. An
// Event that nobody changes may be read concurrently.
type Event struct {
	attrs []Attribute

	// Data is the body as it is on the wire. Nil means that the event has none.
	Data []byte
}

// New returns an event of the given type from the given source with a random
// ID and the time of now, and room for extra further attributes.
func New(typ, source string, now time.Time, extra int) Event {
	e := Event{attrs: make([]Attribute, 0, 5+extra)}
	e.attrs = append(
		e.attrs,
		Attribute{SpecVersion, Version},
		Attribute{ID, newID()},
		Attribute{Source, source},
		Attribute{Type, typ},
		Attribute{Time, FormatTime(now)},
	)
	return e
}

// newID returns a random UUID of version 4. uuid.NewString would do the same at
// the price of one more allocation, because it reads through an interface.
func newID() string {
	var id uuid.UUID
	// Read never fails: it ends the program instead.
	_, _ = rand.Read(id[:])
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// Of returns an event of exactly these attributes; later duplicates win. It
// does not check them: see Validate.
func Of(data []byte, attrs ...Attribute) Event {
	e := Event{attrs: make([]Attribute, 0, len(attrs)), Data: data}
	for _, a := range attrs {
		e.Set(a.Name, a.Value)
	}
	return e
}

// Get returns the value of an attribute, or "" if the event does not have it.
// Use Lookup where absent and empty differ.
func (e Event) Get(name string) string {
	v, _ := e.Lookup(name)
	return v
}

// Lookup returns the value of an attribute and whether the event has it.
func (e Event) Lookup(name string) (string, bool) {
	for i := range e.attrs {
		if e.attrs[i].Name == name {
			return e.attrs[i].Value, true
		}
	}
	return "", false
}

// Set gives the attribute this value, whether or not the event had it.
func (e *Event) Set(name, value string) {
	for i := range e.attrs {
		if e.attrs[i].Name == name {
			e.attrs[i].Value = value
			return
		}
	}
	e.attrs = append(e.attrs, Attribute{name, value})
}

// Unset removes the attribute if the event has it.
func (e *Event) Unset(name string) {
	e.attrs = slices.DeleteFunc(e.attrs, func(a Attribute) bool { return a.Name == name })
}

// All yields the attributes in the order in which they were set.
func (e Event) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, a := range e.attrs {
			if !yield(a.Name, a.Value) {
				return
			}
		}
	}
}

// Len is the number of attributes.
func (e Event) Len() int { return len(e.attrs) }

// Size is about how many bytes the event takes on a wire in binary mode: the
// lengths of all names, values and the body, with a few bytes of framing each.
func (e Event) Size() int {
	const framing = 8 // MQTT 5: identifier, two lengths and the ce- prefix.
	n := len(e.Data)
	for _, a := range e.attrs {
		n += framing + len(a.Name) + len(a.Value)
	}
	return n
}

// Clone returns a copy that shares nothing with e.
func (e Event) Clone() Event {
	return Event{attrs: slices.Clone(e.attrs), Data: slices.Clone(e.Data)}
}

// Validate checks what CloudEvents 1.0 requires of every event: the version,
// and a non-empty id, source and type. Its error wraps ErrInvalid.
func (e Event) Validate() error {
	v, ok := e.Lookup(SpecVersion)
	if !ok {
		return fmt.Errorf("%w: it has no %s", ErrInvalid, SpecVersion)
	}
	if v != Version {
		return fmt.Errorf("%w: %s is %q, only %s is known", ErrInvalid, SpecVersion, clip(v), Version)
	}
	for _, name := range [...]string{ID, Source, Type} {
		if e.Get(name) == "" {
			return fmt.Errorf("%w: it has no %s", ErrInvalid, name)
		}
	}
	return nil
}

// FormatTime writes t in the canonical form of a CloudEvents timestamp:
// RFC 3339, UTC, up to nanoseconds. RFC 3339 knows the years 0 to 9999 only.
func FormatTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// ParseTime reads a CloudEvents timestamp. The result is in UTC, and such that
// FormatTime can write it. The error wraps ErrInvalid.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: timestamp %q is not RFC 3339", ErrInvalid, clip(s))
	}
	t = t.UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		return time.Time{}, fmt.Errorf("%w: timestamp %q: year %d in UTC", ErrInvalid, clip(s), y)
	}
	return t, nil
}

// clip keeps what a peer sent from filling a log line.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}
