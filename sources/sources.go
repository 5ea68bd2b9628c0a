// Package sources publishes works to clusters and takes their reports: the hub
// side of the conversation.
//
// A [Source] holds the desired state; the [Dispatcher] moves it. The dispatcher
// keeps no state that cannot be had again from the source or its clusters: after
// a restart, a lost broker or a new leader it compares and sends what is missing.
//
// With agents that know digests (codec.CapDigest) it compares 32 bytes for all
// works of a cluster, and then only the works that are not the same. With those
// of OCM it compares lists.
//
// # Guarantees
//
//   - What is newest in the source is sent; versions in between are skipped
//     when they come faster than the broker takes them.
//   - A cluster that is slow or away delays no other cluster: keys are queued
//     by cluster and served in turn.
//   - A report is acknowledged to the broker when Source.Report returned nil:
//     when it is safe. One that cannot be saved for over a minute is given up;
//     its cluster, which has it, is asked for it again.
//   - A question is acknowledged when what it called for is with the broker, or
//     cannot be sent now, and at once when its cluster asks too often.
//   - Cluster and source of a report or a question are those of its address. An
//     event that claims another is dropped and counted.
//   - A source that is not loaded answers nothing, and nothing is answered with
//     a deletion of a work of which the source holds no tombstone: such works are
//     unclaimed. They stay where they are, and a [Roster] hears of them.
//   - Nothing is published to a cluster that is known to be offline. When it
//     returns, its digest brings what it missed, and no more than that.
//   - A hub finds out from its clusters that another one leads under its source
//     ID, and stops; see [Lifetime]. One cluster's word is not enough for that.
//   - What a cluster holds newer than its source, and what cannot or must not be
//     sent now, is left as it is and does not keep the cluster from being in sync.
//   - What one cluster says, however much and often, costs its share: its
//     digests and entries are taken with pauses, what waits of it takes at most
//     8 MiB beside one event, what is excused 4 MiB, its record is written once a
//     minute, and it makes a hub begin another lead about once an hour.
//
// # Words
//
//   - A peer is what is known of the agent of one cluster.
//   - A talk is what a cluster said in the comparison of digests and was not
//     looked at yet; a request is for the entries of the buckets that differ.
//   - A vigil waits for a proof that a cluster has what was published to it, or
//     for its digest, and asks for that with growing pauses.
//   - A flight is a version of a work on its way, from its change until its
//     cluster reported on it; metrics tell how long flights take.
//   - An excuse is a difference that is left as it is, with its cause.
//   - A lead is one start of a source, named by term and epoch; the fence is what
//     a hub knows of its own leads and of others'.
package sources

import (
	"context"
	"errors"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

var (
	// ErrNotLoaded is wrapped by a Source that does not know all its works yet.
	// The dispatcher then answers nobody and tries again.
	ErrNotLoaded = errors.New("source not loaded")

	// ErrWithheld is wrapped by Source.Bundle for a deletion that waits for an
	// operator's confirmation; the bundle beside it has its Generation. A Refuser
	// hears of it as of any refusal. It is tried again when the work changes.
	ErrWithheld = errors.New("deletion withheld until it is confirmed")

	// ErrNoCluster is wrapped by Roster.SaveAgent of a cluster of which the source
	// has nothing but the state of an agent that is offline, and no place for it.
	// The dispatcher then forgets the cluster.
	ErrNoCluster = errors.New("no such cluster")

	// ErrFenced is wrapped by Dispatcher.Ready when another hub leads under this
	// source ID. See Lifetime.
	ErrFenced = errors.New("fenced: another hub leads under this source ID")
)

// A Key names one work of the source.
type Key struct {
	Cluster, ID string
}

// A Source holds the works of one source ID. Its methods are called
// concurrently.
type Source interface {
	// Bundle returns the newest state of one work, and false if the source does
	// not hold it. A deleted work is held, as a deleting bundle, until its
	// cluster confirmed. An error that wraps one of codec's (ErrMalformed,
	// ErrMetadataTooLarge, ErrPayloadTooLarge, ErrGenerationRange) says that the
	// work cannot be sent as it is; the bundle beside it then has its Generation.
	// So does one that wraps ErrWithheld.
	Bundle(ctx context.Context, k Key) (codec.Bundle, bool, error)

	// Held returns what the source holds for one cluster, in any order; an
	// unknown cluster has nothing.
	Held(ctx context.Context, cluster string) ([]Held, error)

	// Clusters returns the clusters that have works.
	Clusters(ctx context.Context) ([]string, error)

	// Report takes what a cluster says of one of its works. It decides by
	// generation and sequence whether the report is news, and returns the
	// verdict; an error means that the report is not safe yet and is given to it
	// again.
	Report(ctx context.Context, r codec.Report) (Verdict, error)
}

// Held is one work as far as comparing needs it.
type Held struct {
	ID string
	// Generation is the newest there is; Deleting that it is a deletion.
	Generation int64
	Deleting   bool
	// Digest is that of the newest bundle, see codec.Bundle.Digest. It does not
	// count while the work is being deleted, and is zero for one that cannot be
	// sent as it is.
	Digest digest.Content
	// Withheld says that the deletion waits for a confirmation, see ErrWithheld.
	Withheld bool
	// Gone says that the cluster deleted this generation, or a later one, on the
	// word of a source that does not remember it, and ignores the work until that
	// has a later one. That the cluster lacks it is then no difference.
	Gone bool
	// Reported is the generation of the last accepted report, 0 if none.
	Reported int64
	// StatusHash is the status hash as the source holds it; a work without a
	// report has the hash of an empty status.
	StatusHash string
	// Sequence is that of the last report taken, as far as Source.Report goes by
	// it, 0 if it goes by none. The cluster's agent is told the highest, and
	// numbers its reports from there if it lost its own count.
	Sequence codec.Sequence
}

// A Verdict is what became of a report.
type Verdict string

// Verdicts. All but Accepted and Unordered mean that nothing changed.
const (
	Accepted  Verdict = "accepted"
	Unordered Verdict = "unordered" // Accepted, but there may be a newer one: its cluster is asked.
	Unchanged Verdict = "unchanged" // The source has this status already.
	Stale     Verdict = "stale"     // An older sequence or generation.
	Foreign   Verdict = "foreign"   // The work belongs to another cluster.
	Unknown   Verdict = "unknown"   // The source does not hold the work.
	Invalid   Verdict = "invalid"   // The source can never save this status.
)

// MaxEpoch is how many bytes the epoch of a Lifetime may have: a dispatcher adds
// a dot and a few random characters to it, so that no two leads are alike.
const MaxEpoch = codec.MaxEpoch - 1 - epochSuffix

// A Lifetime is a Source whose state has a lifetime and a lead. Agents keep the
// highest term that they heard of for each source, so a hub that still runs
// although another one took over finds out from them, and stops: it is fenced.
// With a Source that is no Lifetime there is no fencing.
type Lifetime interface {
	// Begin starts a lead. The epoch names the lifetime of the state: it is
	// another one after a loss of the state, and empty if nobody knows; it has at
	// most MaxEpoch bytes. The term
	// is positive, greater than all before it, and greater than above. Both are
	// durable when it returns. It is called when a dispatcher starts, and again
	// when clusters know of a higher term than its own, which one cluster can
	// bring about a few times in an hour and then once an hour; after an error it
	// is called again. It is never called concurrently.
	Begin(ctx context.Context, above int64) (epoch string, term int64, err error)
}

// A Refuser is a Source that wants to know which of its works cannot be sent:
// as they are, or because the broker goes on refusing them (see RefusedByBroker).
// Refused is called once per generation and reason, and never concurrently for
// one work. With a nil reason it says that the work was sent: that is called
// after every publish, since an earlier process may have refused, and must be
// cheap. After an error it is called again, with what is true then.
type Refuser interface {
	Refused(ctx context.Context, k Key, generation int64, reason error) error
}

// A Noter is a Source that notes what was dropped of the reports of a cluster:
// the broker vouches for the cluster, the ID is what the event claims and may be
// that of no work of the cluster. Reason is the label that the metrics have for
// it, err what is wrong. It is called at most about once a minute for each cluster and
// reason, and never concurrently for one cluster; after an error it is called
// again a few times.
type Noter interface {
	Dropped(ctx context.Context, k Key, reason string, err error) error
}

// TooLarge says of the reason given to a Refuser that the work is refused for
// its size, by the broker or by the wire.
func TooLarge(reason error) bool {
	return errors.Is(reason, brokers.ErrTooLarge) ||
		errors.Is(reason, codec.ErrMetadataTooLarge) || errors.Is(reason, codec.ErrPayloadTooLarge)
}

// RefusedByBroker says of the reason given to a Refuser that the broker refuses
// the work for now: for want of permission, or over quota. It is still tried.
func RefusedByBroker(reason error) bool { return errors.Is(reason, brokers.ErrRefused) }
