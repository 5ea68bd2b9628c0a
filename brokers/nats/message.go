package nats

import (
	"fmt"
	"math"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

const (
	attributePrefix = "ce-"
	contentType     = "content-type"
)

// maxHeaders is what a stream stores of headers with each message.
const maxHeaders = math.MaxUint16

// message writes e in binary mode of the CloudEvents NATS binding: every
// attribute is a header, percent-encoded. The binding has the content type in
// ce-datacontenttype, the CloudEvents SDK in content-type: both are written.
func message(subject string, e event.Event) *natsgo.Msg {
	h := make(natsgo.Header, e.Len()+2)
	for name, value := range e.All() {
		h[attributePrefix+name] = []string{encode(value)}
		// A content type of that family would announce structured mode.
		if name == event.DataContentType && !event.IsStructured(value) {
			h[contentType] = []string{encode(value)}
		}
	}
	return &natsgo.Msg{Subject: subject, Header: h, Data: e.Data}
}

// messageID is what a stream tells repeated messages by. An event may go to
// several clusters, so its ID alone is not enough.
func messageID(subject string, e event.Event) string {
	return encode(e.Get(event.ID)) + "@" + subject
}

// parse reads an event in either mode.
func parse(header natsgo.Header, body []byte) (event.Event, error) {
	var media string
	for name, values := range header {
		if strings.EqualFold(name, contentType) && len(values) > 0 {
			media = decode(values[0])
		}
	}
	if media == "" && len(header) == 0 {
		// Before NATS had headers, structured mode was the only one.
		media = event.StructuredJSON
	}
	headers := func(yield func(string, string) bool) {
		for name, values := range header {
			// Only these are attributes: a stream adds headers of its own.
			if len(name) <= len(attributePrefix) || !strings.EqualFold(name[:len(attributePrefix)], attributePrefix) {
				continue
			}
			for _, value := range values {
				if !yield(name, decode(value)) {
					return
				}
			}
		}
	}
	return event.FromHeaders(media, headers, body)
}

// checkSize holds a message against what the server takes, before it is sent.
func checkSize(m *natsgo.Msg, maxPayload, maxMessage int64, stored bool) error {
	const framing = len("NATS/1.0\r\n" + "\r\n")
	headers := framing
	for name, values := range m.Header {
		for _, value := range values {
			headers += len(name) + len(value) + len(": \r\n")
		}
	}
	size := int64(headers + len(m.Data))
	switch {
	case maxPayload > 0 && size > maxPayload:
		return fmt.Errorf("%w: %d bytes with headers, the server's max_payload is %d", brokers.ErrTooLarge, size, maxPayload)
	case stored && headers > maxHeaders:
		return fmt.Errorf("%w: %d bytes of attributes, a stream takes %d", brokers.ErrTooLarge, headers, maxHeaders)
	case stored && maxMessage > 0 && size > maxMessage:
		return fmt.Errorf("%w: %d bytes with headers, the stream's max_msg_size is %d", brokers.ErrTooLarge, size, maxMessage)
	}
	return nil
}

// encode and decode are percent-encoding as in section 3.1.3.2 of the
// CloudEvents HTTP binding, to which the NATS binding refers: space, double
// quote, percent and all but printable ASCII are encoded; what is no valid
// sequence is read as it stands.
func encode(value string) string {
	encoded := 0
	for i := range len(value) {
		if !visible(value[i]) {
			encoded++
		}
	}
	if encoded == 0 {
		return value
	}
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(value)+2*encoded)
	for i := range len(value) {
		if c := value[i]; visible(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

func visible(c byte) bool { return c > ' ' && c < 0x7f && c != '"' && c != '%' }

func decode(value string) string {
	if !strings.Contains(value, "%") {
		return value
	}
	b := make([]byte, 0, len(value))
	for i := 0; i < len(value); i++ {
		if value[i] == '%' && i+2 < len(value) {
			if c, ok := unhex(value[i+1], value[i+2]); ok {
				b = append(b, c)
				i += 2
				continue
			}
		}
		b = append(b, value[i])
	}
	return string(b)
}

// stored gives m the headers by which a stream drops repetitions, and m itself
// when its lifetime is over; 0 is for ever.
func stored(m *natsgo.Msg, e event.Event, lifetime time.Duration) *natsgo.Msg {
	m.Header[jetstream.MsgIDHeader] = []string{messageID(m.Subject, e)}
	if lifetime > 0 {
		m.Header[jetstream.MsgTTLHeader] = []string{lifetime.String()}
	}
	return m
}
