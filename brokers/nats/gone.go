package nats

import (
	"context"
	"slices"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/fleetcast-io/fleetcast/brokers"
)

const (
	advisories = "$JS.EVENT.ADVISORY.CONSUMER"

	// goneGrace is longer than an agent that comes back needs between the end
	// of its old consumer and the beginning of the next.
	goneGrace = 3 * time.Second

	// advisoryQueue is how many advisories may wait; a fleet that comes back at
	// once causes two for each cluster.
	advisoryQueue = 4096
)

// openAdvisories has the server tell of the consumers of agents, for
// Subscription.Gone.
func (e *establishment) openAdvisories(l *link) error {
	if e.s.Gone == nil || len(e.s.filters[brokers.ToSource]) == 0 {
		return nil
	}
	e.advisories = make(chan *natsgo.Msg, advisoryQueue)
	sub, err := l.nc.ChanSubscribe(e.s.t.settings.advisories(), e.advisories)
	if err != nil {
		return err
	}
	e.broadcasts = append(e.broadcasts, sub)
	return nil
}

// advisories is the subject of what the server tells about consumers of specs.
func (s settings) advisories() string { return join(advisories, "*", s.stream(brokers.ToCluster), "*") }

// watchGone calls Gone for clusters whose agent's consumer was deleted and not
// made again.
func (e *establishment) watchGone(ctx context.Context) {
	due := make(map[string]time.Time)
	timer := time.NewTimer(goneGrace)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-e.advisories:
			action, cluster, ok := advised(m.Subject)
			switch {
			case !ok || !e.s.hears(cluster):
			case action == "CREATED":
				delete(due, cluster)
			case action == "DELETED":
				if len(due) == 0 {
					timer.Reset(goneGrace)
				}
				due[cluster] = time.Now().Add(goneGrace)
			}
		case now := <-timer.C:
			next := time.Duration(0)
			for cluster, at := range due {
				if wait := at.Sub(now); wait > 0 {
					if next == 0 || wait < next {
						next = wait
					}
					continue
				}
				delete(due, cluster)
				e.s.Gone(cluster)
			}
			if next > 0 {
				timer.Reset(next)
			}
		}
	}
}

// hears says whether the filters cover reports of a cluster.
func (s *subscription) hears(cluster string) bool {
	return slices.ContainsFunc(s.filters[brokers.ToSource], func(f brokers.Filter) bool {
		return f.Cluster == brokers.Any || f.Cluster == cluster
	})
}

// advised reads the subject of an advisory: what was done, and to which
// cluster's consumer. The consumer is named by the agent's client ID, of which
// the default tells the cluster.
func advised(subject string) (action, cluster string, ok bool) {
	tokens := strings.Split(subject, ".")
	if len(tokens) != 7 {
		return "", "", false
	}
	name, agent := strings.CutPrefix(tokens[6], "agent-")
	identity, err := fromToken(name)
	cluster, usual := strings.CutSuffix(identity, "-client")
	return tokens[4], cluster, agent && usual && err == nil && cluster != ""
}
