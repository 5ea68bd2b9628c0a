package agents

import (
	"slices"

	"github.com/fleetcast-io/fleetcast/codec"
)

// A Peer is what an agent knows of a source beside its works. It outlives
// restarts: the next start of the agent speaks to the source as it can, and
// takes no word of a lead that another has followed.
type Peer struct {
	// Capabilities are those that the source last told of, see codec.CapDigest.
	// An OCM source has none.
	Capabilities []string

	// Epoch is the lifetime of the source's state as it was last told.
	Epoch string

	// Term is the highest of the source's leads that was heard of. Of two of one
	// term, Epoch is the greater. It goes down only when that lead was silent for
	// long while another one was heard.
	Term int64

	// Sequence is the last of the reports to this source while they are numbered
	// apart from State.Sequence: the source remembers later reports than this
	// agent does, whose disk or clock was set back. It counts while it is the
	// greater one.
	Sequence codec.Sequence
}

// digests says whether the source takes part in the comparison of digests.
func (p Peer) digests() bool { return slices.Contains(p.Capabilities, codec.CapDigest) }

func (p Peer) equal(q Peer) bool {
	return p.Epoch == q.Epoch && p.Term == q.Term && p.Sequence == q.Sequence && slices.Equal(p.Capabilities, q.Capabilities)
}

// outranks says whether the lead that announces itself is not the newest of
// its source.
func (p Peer) outranks(h codec.Hello) bool {
	return h.Term < p.Term || h.Term == p.Term && h.Term > 0 && h.Epoch < p.Epoch
}

// announced is what is known of the source after it announced itself. A lead
// that another has followed changes nothing.
func (p Peer) announced(h codec.Hello) Peer {
	if p.outranks(h) {
		return p
	}
	return Peer{Capabilities: h.Capabilities, Epoch: h.Epoch, Term: h.Term, Sequence: p.Sequence}
}

// answered is what is known of the source after it answered a digest in this
// term, which nobody does who does not know them.
func (p Peer) answered(term int64) Peer {
	if term < p.Term {
		return p
	}
	if !p.digests() {
		p.Capabilities = append(slices.Clone(p.Capabilities), codec.CapDigest)
	}
	if term > p.Term {
		// Its hello is still to come, and says what else it can do.
		p.Term, p.Epoch, p.Capabilities = term, "", []string{codec.CapDigest}
	}
	return p
}

// took is what is known of the source after it told the highest sequence that it
// has taken. issued is the highest that is for all sources.
func (p Peer) took(taken, issued codec.Sequence) Peer {
	own := max(p.Sequence, issued)
	if raised := own.Above(taken); raised > own {
		p.Sequence = raised
	}
	return p
}
