package codec

import (
	"time"

	"github.com/fleetcast-io/fleetcast/pkg/digest"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// A Hello is a source's announcement of itself, to one cluster or to all: it
// asks whoever knows CapDigest for a Digest.
type Hello struct {
	// Source announces itself.
	Source string
	// Epoch names the lifetime of the source's state: another one means that
	// the state was lost or replaced. "" if the source knows of no lifetime.
	Epoch string
	// Term counts the leads of the source: of two that speak under one name,
	// the one of the greater term leads. 0 if the source does not count.
	Term int64
	// Capabilities is what the source can do beyond OCM's protocol.
	Capabilities []string
	// Spread is the time over which the clusters shall spread their answers, up
	// to MaxSpread. Encode rounds it up to milliseconds.
	Spread time.Duration
}

// A Digest is an agent's summary of the works of one source that it holds.
type Digest struct {
	// Agent summarises.
	Agent string
	// Instance is random for each start of an agent's process. It keys Spec and
	// Status, and every message of the comparison names it.
	Instance digest.Key
	// Epoch and Term are the newest that the agent heard of the source.
	Epoch string
	Term  int64
	// Works is how many works there are.
	Works int
	// Spec and Status are the roots of what was asked for and of what was
	// reported.
	Spec, Status digest.Root
	// Capabilities is what the agent can do beyond OCM's protocol.
	Capabilities []string
}

// A Match is a source's answer to a Digest which is what it expected.
type Match struct {
	// Source answers the agent's Instance, leading in this Term.
	Source   string
	Instance digest.Key
	Term     int64
	// Spec and Status are the beginnings of the roots that are answered.
	Spec, Status digest.Short
	// Unclaimed is how many of the agent's works the source does not know, and
	// has decided to leave alone.
	Unclaimed int
	// Taken is the highest sequence that the source remembers to have taken from
	// this cluster: a report with a lower one may be stale to it. 0 if it
	// remembers none, as a source of an earlier version.
	Taken Sequence
}

// Buckets is a source's answer to a Digest which is not what it expected: asks
// for the Entries of the buckets that differ.
type Buckets struct {
	// Source answers the agent's Instance, leading in this Term.
	Source   string
	Instance digest.Key
	Term     int64
	// Works is how many works the source expects. If there are none, all sums
	// are zero and do not travel: Decode then sets both halves, whether or not
	// Encode was given them.
	Works int
	// Spec and Status are the sums of the expected set under the agent's key. A
	// nil half is as the agent has it.
	Spec, Status *[digest.Buckets]digest.Short
	// Taken is that of Match.
	Taken Sequence
}

// A Presence is an agent's sign of life, or of leaving. A broker may say the
// latter in its stead.
type Presence struct {
	// Agent is here, in this Instance of its process.
	Agent    string
	Instance digest.Key
	// Online is false when the agent leaves.
	Online bool
}

// Bodies of this project's own events that list no works.
type (
	helloBody struct {
		Epoch        string   `json:"epoch,omitempty"`
		Term         int64    `json:"term,omitempty"`
		Capabilities []string `json:"capabilities,omitempty"`
		SpreadMillis int64    `json:"spreadMillis,omitempty"`
	}
	digestBody struct {
		Instance     digest.Key  `json:"instance"`
		Epoch        string      `json:"epoch,omitempty"`
		Term         int64       `json:"term,omitempty"`
		Works        int         `json:"works"`
		Spec         digest.Root `json:"spec"`
		Status       digest.Root `json:"status"`
		Capabilities []string    `json:"capabilities,omitempty"`
	}
	matchBody struct {
		Instance  digest.Key   `json:"instance"`
		Term      int64        `json:"term,omitempty"`
		Spec      digest.Short `json:"spec"`
		Status    digest.Short `json:"status"`
		Unclaimed int          `json:"unclaimed,omitempty"`
		Taken     taken        `json:"taken,omitempty"`
	}
	bucketsBody struct {
		Instance digest.Key `json:"instance"`
		Term     int64      `json:"term,omitempty"`
		Works    int        `json:"works"`
		Spec     *sums      `json:"spec,omitempty"`
		Status   *sums      `json:"status,omitempty"`
		Taken    taken      `json:"taken,omitempty"`
	}
	presenceBody struct {
		Instance digest.Key `json:"instance"`
		Online   bool       `json:"online"`
	}
)

// Encode implements Message; the action is Announce.
func (h Hello) Encode(a Action) (event.Event, error) {
	return announce(a, kindHello, h.Source, h.check(), helloBody{
		Epoch: h.Epoch, Term: h.Term, Capabilities: h.Capabilities,
		SpreadMillis: int64((h.Spread + time.Millisecond - 1) / time.Millisecond),
	})
}

// Encode implements Message; the action is Announce.
func (d Digest) Encode(a Action) (event.Event, error) {
	return announce(a, kindDigest, d.Agent, d.check(), digestBody{
		d.Instance, d.Epoch, d.Term, d.Works, d.Spec, d.Status, d.Capabilities,
	})
}

// Encode implements Message; the action is Announce.
func (m Match) Encode(a Action) (event.Event, error) {
	return announce(a, kindMatch, m.Source, m.check(), matchBody{
		m.Instance, m.Term, m.Spec, m.Status, m.Unclaimed, taken(m.Taken),
	})
}

// Encode implements Message; the action is Announce.
func (b Buckets) Encode(a Action) (event.Event, error) {
	body := bucketsBody{Instance: b.Instance, Term: b.Term, Works: b.Works, Taken: taken(b.Taken)}
	if b.Works > 0 {
		body.Spec, body.Status = (*sums)(b.Spec), (*sums)(b.Status)
	}
	return announce(a, kindBuckets, b.Source, b.check(), body)
}

// Encode implements Message; the action is Announce.
func (p Presence) Encode(a Action) (event.Event, error) {
	return announce(a, kindPresence, p.Agent, checkFrom(p.Agent, MaxID, p.Instance), presenceBody{p.Instance, p.Online})
}

func (h Hello) check() error {
	if err := checkNames(named{event.Source, h.Source, MaxName}); err != nil {
		return err
	}
	if err := checkTextOf("epoch", h.Epoch, MaxEpoch); err != nil {
		return err
	}
	if err := checkTerm(h.Term); err != nil {
		return err
	}
	if h.Spread < 0 || h.Spread > MaxSpread {
		return malformed("spread of %s is not between 0 and %s", h.Spread, MaxSpread)
	}
	return checkCapabilities(h.Capabilities)
}

func (d Digest) check() error {
	if err := checkFrom(d.Agent, MaxID, d.Instance); err != nil {
		return err
	}
	if err := checkTextOf("epoch", d.Epoch, MaxEpoch); err != nil {
		return err
	}
	if err := checkTerm(d.Term); err != nil {
		return err
	}
	if err := checkWorks(d.Works); err != nil {
		return err
	}
	// An empty set has a root, too.
	if d.Spec == (digest.Root{}) || d.Status == (digest.Root{}) {
		return malformed("it lacks a root")
	}
	return checkCapabilities(d.Capabilities)
}

func (m Match) check() error {
	if err := checkFrom(m.Source, MaxName, m.Instance); err != nil {
		return err
	}
	if err := checkTerm(m.Term); err != nil {
		return err
	}
	if err := checkTaken(m.Taken); err != nil {
		return err
	}
	return checkWorks(m.Unclaimed)
}

func (b Buckets) check() error {
	if err := checkFrom(b.Source, MaxName, b.Instance); err != nil {
		return err
	}
	if err := checkTerm(b.Term); err != nil {
		return err
	}
	if err := checkWorks(b.Works); err != nil {
		return err
	}
	if err := checkTaken(b.Taken); err != nil {
		return err
	}
	switch {
	case b.Works > 0 && b.Spec == nil && b.Status == nil:
		return malformed("neither half differs")
	case b.Works == 0 && (b.Spec != nil && *b.Spec != zeros || b.Status != nil && *b.Status != zeros):
		return malformed("there are sums of no works")
	}
	return nil
}

func checkWorks(n int) error {
	if n < 0 || n > MaxListed {
		return malformed("%d works, at most %d are allowed", n, MaxListed)
	}
	return nil
}

func checkTaken(s Sequence) error {
	if s < 0 {
		return malformed("the sequence %d that was taken is negative", s)
	}
	return nil
}

func decodeHello(e event.Event) (Message, error) {
	var body helloBody
	if err := parseAnnounced(e, maxSummary, &body); err != nil {
		return nil, err
	}
	// More would not fit a Duration.
	if most := MaxSpread.Milliseconds(); body.SpreadMillis < 0 || body.SpreadMillis > most {
		return nil, malformed("spreadMillis %d is not between 0 and %d", body.SpreadMillis, most)
	}
	h := Hello{
		Source: e.Get(event.Source), Epoch: body.Epoch, Term: body.Term, Capabilities: body.Capabilities,
		Spread: time.Duration(body.SpreadMillis) * time.Millisecond,
	}
	return h, h.check()
}

func decodeDigest(e event.Event) (Message, error) {
	var body digestBody
	if err := parseAnnounced(e, maxSummary, &body); err != nil {
		return nil, err
	}
	d := Digest{
		e.Get(event.Source), body.Instance, body.Epoch, body.Term, body.Works, body.Spec, body.Status, body.Capabilities,
	}
	return d, d.check()
}

func decodeMatch(e event.Event) (Message, error) {
	var body matchBody
	if err := parseAnnounced(e, maxSummary, &body); err != nil {
		return nil, err
	}
	m := Match{
		e.Get(event.Source), body.Instance, body.Term, body.Spec, body.Status, body.Unclaimed, Sequence(body.Taken),
	}
	return m, m.check()
}

func decodeBuckets(e event.Event) (Message, error) {
	var body bucketsBody
	if err := parseAnnounced(e, maxSummary, &body); err != nil {
		return nil, err
	}
	b := Buckets{
		Source: e.Get(event.Source), Instance: body.Instance, Term: body.Term, Works: body.Works,
		Spec: (*[digest.Buckets]digest.Short)(body.Spec), Status: (*[digest.Buckets]digest.Short)(body.Status),
		Taken: Sequence(body.Taken),
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	if b.Works == 0 {
		b.Spec, b.Status = new([digest.Buckets]digest.Short), new([digest.Buckets]digest.Short)
	}
	return b, nil
}

func decodePresence(e event.Event) (Message, error) {
	var body presenceBody
	if err := parseAnnounced(e, maxSummary, &body); err != nil {
		return nil, err
	}
	p := Presence{e.Get(event.Source), body.Instance, body.Online}
	return p, checkFrom(p.Agent, MaxID, p.Instance)
}

// zeros are the sums of a set without works.
var zeros [digest.Buckets]digest.Short
