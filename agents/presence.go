package agents

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

const (
	// farewell bounds how long the goodbyes may hold up the end of Run.
	farewell = 2 * time.Second

	// willDelay is how long the broker waits for an agent that is gone without a
	// goodbye: for as long as a connection takes to come back, so that a short
	// interruption is not called an absence.
	willDelay = 30 * time.Second
)

// NewInstance draws a name for one start of an agent.
func NewInstance() digest.Key {
	var key digest.Key
	// Read never fails: it ends the program instead.
	_, _ = rand.Read(key[:])
	return key
}

// LastWill is the goodbye that the broker shall say if the agent of a cluster
// cannot. The options are those that New is given; Sources and Instance are
// required. It goes to the agent's one source, or, since a connection has one
// will, to all sources if there are several.
func LastWill(cluster string, o Options) (*brokers.Will, error) {
	if o.Instance == (digest.Key{}) || len(o.Sources) == 0 {
		return nil, errors.New("last will of an agent: instance and sources are required")
	}
	o = o.withDefaults(cluster)
	e, err := codec.Presence{Agent: o.ID, Instance: o.Instance}.Encode(codec.Announce)
	if err != nil {
		return nil, fmt.Errorf("last will of the agent of cluster %s: %w", cluster, err)
	}
	to := brokers.Topic{Lane: brokers.ToSource, Source: o.Sources[0], Cluster: cluster, Key: kindPresence}
	if len(slices.Compact(slices.Sorted(slices.Values(o.Sources)))) > 1 {
		to = brokers.Topic{Lane: brokers.ToAllSources, Cluster: cluster, Key: kindPresence}
	}
	return &brokers.Will{Topic: to, Event: e, Delay: willDelay}, nil
}

// sendPresence tells a source that the agent is there, or that it leaves.
func (a *Agent) sendPresence(ctx context.Context, source string, online bool) error {
	to := brokers.Topic{Lane: brokers.ToSource, Source: source, Cluster: a.cluster, Key: kindPresence}
	return a.publish(ctx, to, kindPresence, codec.Announce,
		codec.Presence{Agent: a.o.ID, Instance: a.o.Instance, Online: online})
}

// leave says goodbye to the sources that know what that is, as far as the
// broker takes it without delay.
func (a *Agent) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	var saying sync.WaitGroup
	for source, d := range a.dialogues {
		if !d.isCapable() {
			continue
		}
		saying.Go(func() {
			if err := a.sendPresence(ctx, source, false); err != nil {
				a.log.Debug("no goodbye to source", "source", source, "err", err)
			}
		})
	}
	saying.Wait()
}
