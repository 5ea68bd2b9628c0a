package mqtt

import (
	"fmt"
	"math"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// A will is what is left with the broker in every CONNECT packet. It is read as
// the PUBLISH packet of its event would be: only the content type is in a user
// property, as paho does not write that of a will.
type will struct {
	message    *paho.WillMessage
	properties *paho.WillProperties
}

// newWill returns nil for none.
func (o *options) newWill(w *brokers.Will) (*will, error) {
	if w == nil {
		return nil, nil
	}
	if err := w.Event.Validate(); err != nil {
		return nil, fmt.Errorf("will: %w", err)
	}
	p, err := encode(o.topics.topic(w.Topic), w.Event)
	if err != nil {
		return nil, fmt.Errorf("will: %w", err)
	}
	// What a broker takes at most is not known before it has taken this.
	if size := packetSize(p); size > min(o.maxPacket, math.MaxUint16) {
		return nil, fmt.Errorf("will: %w", tooLarge(size, min(o.maxPacket, math.MaxUint16)))
	}
	user := p.Properties.User
	if p.Properties.ContentType != "" {
		user = append(user, paho.UserProperty{Key: prefix + event.DataContentType, Value: p.Properties.ContentType})
	}
	delay := uint32(min((w.Delay+time.Second-1)/time.Second, math.MaxUint32)) //nolint:gosec // Not negative, see Config.Validate.
	return &will{
		message:    &paho.WillMessage{Topic: p.Topic, QoS: p.QoS, Payload: p.Payload},
		properties: &paho.WillProperties{WillDelayInterval: &delay, User: user},
	}, nil
}
