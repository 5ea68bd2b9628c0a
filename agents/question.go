package agents

import (
	"fmt"
	"slices"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// maxAnswered is how many questions an agent remembers to have answered. One
// comparison asks one for every thousand works or so.
const maxAnswered = 256

// A question is one event that asked for reports.
type question struct{ source, event string }

// hasAnswered says whether a question was answered before.
func (a *Agent) hasAnswered(q question) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Contains(a.answered, q)
}

// answeredTo notes that a question was answered.
func (a *Agent) answeredTo(q question) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.answered) == maxAnswered {
		a.answered = slices.Delete(a.answered, 0, 1)
	}
	a.answered = append(a.answered, q)
}

// handleQuestion answers a source that tells which statuses it holds: what
// differs is sent again, under a new sequence, since the source may ignore one
// that it has seen. Without hashes it holds none, and everything is sent.
//
// That a work is gone is not said to a source that never had a status of a
// work whose ID recurs: it created the work again and that did not come here, and
// OCM's sources would take the confirmation for that of the new one. A source
// that is indeed deleting sends the deletion again when it is asked.
func (a *Agent) handleQuestion(d brokers.Delivery, at *step, q codec.StatusResync) {
	switch {
	case q.Source != d.From.Source:
		a.drop(d, at, "foreign_source", fmt.Errorf("it says it is from source %q", q.Source))
		return
	case q.Cluster != "" && q.Cluster != a.cluster:
		a.drop(d, at, "foreign_cluster", fmt.Errorf("it is for cluster %q", q.Cluster))
		return
	}
	asked := question{d.From.Source, d.Event.Get(event.ID)}
	if a.hasAnswered(asked) {
		// Brokers that keep questions deliver them at every connection. What the
		// source lacks since it asked, it asks for anew.
		eventsTotal.WithLabelValues(string(verdictDuplicate)).Inc()
		a.state.log.pass(at)
		d.Done(nil)
		return
	}
	hashes := make(map[string]string, len(q.Hashes))
	for _, h := range q.Hashes {
		hashes[h.ID] = h.Hash
	}
	var send []Key
	a.state.change(mutation{
		step: at,
		decide: func(dr *draft) {
			send = nil
			for _, k := range dr.keys() {
				if hash, listed := hashes[k.ID]; k.Source == q.Source && a.answer(dr, k, hash, listed, len(hashes) == 0) {
					send = append(send, k)
				}
			}
			for _, k := range dr.refused(q.Source) {
				if hash, listed := hashes[k.ID]; (listed || len(hashes) == 0) && a.insist(dr, k, hash) {
					send = append(send, k)
				}
			}
		},
		done: func(err error) {
			if err != nil {
				d.Done(fmt.Errorf("answer status resync: %w", err))
				return
			}
			eventsTotal.WithLabelValues("answered").Inc()
			a.answeredTo(asked)
			d.Done(nil)
			for _, k := range send {
				a.queueReport(k)
			}
		},
	})
}

// answer has the report on a work sent again if its source holds another status:
// one of this hash, or, if the work is not listed, none that it told. It says
// whether it does.
func (a *Agent) answer(dr *draft, k Key, hash string, listed, all bool) bool {
	r := dr.get(k)
	switch {
	case r.Report.ID == "":
		return false
	case all:
		if r.Gone() {
			return false
		}
	case !listed, normal(hash) == r.status():
		return false
	case r.Gone() && recurs(k.ID) && slices.Contains(noStatus, hash):
		return false
	case dr.refusal(k).is(hash):
		return false
	}
	dr.put(k, r.with(a.report(r.Report, dr.issue(k.Source))))
	return true
}

// insist has a source told again of a version that cannot be read, if it holds
// neither that status nor the one of the version that the agent has. If it holds
// the latter, it does not take the refusal for one of its work's newest version.
func (a *Agent) insist(dr *draft, k Key, hash string) bool {
	next := *dr.refusal(k)
	held := dr.get(k)
	switch {
	case next.unsent:
		return false // It is on its way.
	case next.is(hash):
		next.moot = false
	case held != nil && held.Report.ID != "" && normal(hash) == held.status():
		next.moot = true
	case !next.moot:
		next.report, next.unsent = a.report(next.report, dr.issue(k.Source)), true
	}
	dr.refuse(k, &next)
	return next.unsent
}

// noStatus are the hashes that sources have for a work without status: that of
// an empty one, and what Maestro says, the SHA-256 of nothing.
var noStatus = []string{
	"3a4ba43801251ccdf889a3154674d23a35ab996aacfc00de92e61dbb2f5cf189",
	"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
}

// normal is the hash, but empty for a work without status.
func normal(hash string) string {
	if slices.Contains(noStatus, hash) {
		return ""
	}
	return hash
}
