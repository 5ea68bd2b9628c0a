package codec

import "github.com/fleetcast-io/fleetcast/pkg/event"

// Encode implements Message; the action is ResyncRequest.
func (q SpecResync) Encode(a Action) (event.Event, error) { return event.Event{}, errTODO }

// Encode implements Message; the action is ResyncRequest.
func (q StatusResync) Encode(a Action) (event.Event, error) { return event.Event{}, errTODO }

// Decode reads an event. The error wraps ErrUnknownType or ErrMalformed.
func Decode(e event.Event) (Action, Message, error) { return "", nil, errTODO }
