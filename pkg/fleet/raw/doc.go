// Package raw is as little as a client of a broker can be: it publishes events
// of one size, pipelined, and receives all of them. How fast that goes on a
// machine is the floor that everything else is held against, in the same run.
//
// It decodes nothing, keeps nothing, and takes the number of events for proof.
// Publisher and subscriber confirm as the real ones do: QoS 1 on MQTT, a stream on
// NATS.
package raw

import (
	"fmt"
	"time"
)

// Rate is how fast events went through a broker.
type Rate struct {
	Events int `json:"events"`
	Size   int `json:"bytes"`
	// Published is how many seconds it took until the broker had confirmed all,
	// Received until the subscriber had got all.
	Published float64 `json:"publishedSeconds"`
	Received  float64 `json:"receivedSeconds"`
}

// PerSecond is the rate at which events got to the subscriber.
func (r Rate) PerSecond() float64 { return float64(r.Events) / r.Received }

// String says it for people.
func (r Rate) String() string {
	return fmt.Sprintf("%d events of %d bytes: confirmed after %.2f s, received after %.2f s, %.0f/s", r.Events, r.Size, r.Published, r.Received, r.PerSecond())
}

// window is how many events are under way at a time.
const window = 1000

func since(t time.Time) float64 { return time.Since(t).Seconds() }
