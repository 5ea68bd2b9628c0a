package mqtt

import (
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/eclipse/paho.golang/paho"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// prefix is before the attribute names in user properties that we write. The
// CloudEvents binding for MQTT has none, but the CloudEvents SDK for Go does, and
// with it every OCM peer. Both are read.
const prefix = "ce-"

// encode writes e in binary mode for QoS 1.
func encode(topic string, e event.Event) (*paho.Publish, error) {
	p := &paho.Publish{
		QoS:        1,
		Topic:      topic,
		Payload:    e.Data,
		Properties: &paho.PublishProperties{User: make(paho.UserProperties, 0, e.Len())},
	}
	for name, value := range e.All() {
		if err := checkString(name, value); err != nil {
			return nil, err
		}
		if name == event.DataContentType {
			p.Properties.ContentType = value
			continue
		}
		p.Properties.User = append(p.Properties.User, paho.UserProperty{Key: prefix + name, Value: value})
	}
	return p, nil
}

// checkString refuses what would be cut off without a word, and what makes a
// broker hang up on all that use the connection: the MQTT specification lets
// it do so for the characters which CloudEvents does not allow in a string.
func checkString(name, value string) error {
	if n := max(len(prefix)+len(name), len(value)); n > math.MaxUint16 {
		return fmt.Errorf("%w: attribute %s has %d bytes, MQTT allows %d", brokers.ErrTooLarge, clip(name), n, math.MaxUint16)
	}
	if !validString(name) {
		return fmt.Errorf("%w: attribute name %q has a character that CloudEvents does not allow", event.ErrInvalid, clip(name))
	}
	if !validString(value) {
		return fmt.Errorf("%w: the value of attribute %s has a character that CloudEvents does not allow", event.ErrInvalid, clip(name))
	}
	return nil
}

// validString is stricter than event.IsText, which is for what others sent over
// any broker: it says whether s is a String of the CloudEvents type system
// (CloudEvents 1.0, section 2.4), which is also a UTF-8 Encoded String without
// the characters that MQTT 5 (section 1.5.4) advises against.
func validString(s string) bool {
	for i, r := range s {
		switch {
		case r >= ' ' && r < 0x7f:
		case r < 0xa0:
			return false
		case r == utf8.RuneError:
			if _, n := utf8.DecodeRuneInString(s[i:]); n < 2 {
				return false
			}
		case r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe:
			return false
		}
	}
	return true
}

// packetSize is how many bytes p takes as a PUBLISH packet, which is what
// brokers limit (MQTT 5, section 3.3).
func packetSize(p *paho.Publish) int {
	properties := 0
	if p.Properties.ContentType != "" {
		properties += 3 + len(p.Properties.ContentType)
	}
	for _, u := range p.Properties.User {
		properties += 5 + len(u.Key) + len(u.Value)
	}
	remaining := 2 + len(p.Topic) + 2 + variableSize(properties) + properties + len(p.Payload)
	return 1 + variableSize(remaining) + remaining
}

// variableSize is the size of a Variable Byte Integer (MQTT 5, section 1.5.5).
func variableSize(n int) int {
	size := 1
	for ; n > 127; n >>= 7 {
		size++
	}
	return size
}

// decode reads an event in binary or structured mode. Its error wraps
// event.ErrInvalid.
func decode(p *paho.Publish) (event.Event, error) {
	properties := func(yield func(string, string) bool) {
		for _, u := range p.Properties.User {
			if !yield(u.Key, u.Value) {
				return
			}
		}
	}
	return event.FromProperties(p.Properties.ContentType, properties, p.Payload)
}

// clip keeps a name out of the user's hands from filling a log line.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}
