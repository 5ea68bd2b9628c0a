// Package agents runs works on one cluster: it takes bundles from a broker,
// keeps them on disk, has them applied, and reports what became of them.
//
// # Path of a bundle
//
// A delivered bundle is held against its address and against what the agent
// has, written to the [Store], then acknowledged to the broker, then queued by
// key. Acknowledged means safe on this agent's disk, not applied. A worker
// takes the key and calls the [Applier] with the newest bundle; several
// bundles of one work that came meanwhile cost one call.
//
// # Guarantees
//
//   - The generation of a work never goes down, and a deletion is never undone
//     by the same work's older bundles; what is older is dropped and counted.
//   - Nothing is deleted because something is absent. Only a bundle that says
//     so deletes.
//   - Hub and broker may be away for any time, the agent may restart meanwhile:
//     it goes on with what is on its disk, and puts drift back.
//   - A report is sent until the broker has it; only the newest per work is kept.
//     Sequences grow over restarts and steps of the clock.
//   - Each source sees, changes and deletes only its own works.
//
// # Comparison
//
// What an agent holds and what its sources want are compared whenever the broker
// was reached, when changes have paused, and from time to time. A source that
// has shown to know digests is told a sum of it all, then what differs, bucket by
// bucket; an OCM source is told a list. docs/protocol.md says who says what
// when. What a source said of itself is kept in the store with the works. To
// sources that know digests the agent shows that it is there, and says goodbye.
//
// One goroutine's failure to apply one work delays no other work beyond its
// share of the workers.
package agents

import (
	"context"

	"github.com/fleetcast-io/fleetcast/codec"
)

// An Applier brings one cluster to what bundles say. Calls run concurrently
// for different works and never for the same one. No method keeps or changes
// its arguments' bytes.
//
// last is the newest report on the work, the zero value if there is none. The
// applier takes transition times from it. The returned report describes the
// cluster as the applier left it, even beside an error; its Agent and Sequence
// are left to the caller. An error says that the work is not where it should be
// for a reason that another try may cure, after a delay that grows with each.
type Applier interface {
	// Apply makes the cluster as b says, b.Deleting() being false, and removes
	// what an earlier generation of the work had and b does not.
	Apply(ctx context.Context, b codec.Bundle, last codec.Report) (codec.Report, error)

	// Observe looks again at what was applied for b, without changing it.
	Observe(ctx context.Context, b codec.Bundle, last codec.Report) (codec.Report, error)

	// Delete removes what the work has on the cluster. The report confirms the
	// deletion (codec.Report.Deleted) once nothing is left, including when
	// there never was anything. Until then it says what is still there, with an
	// error so that it is called again.
	Delete(ctx context.Context, b codec.Bundle, last codec.Report) (codec.Report, error)
}

// A Key names a work on an agent.
type Key struct {
	// Source owns the work, ID is the source's name for it.
	Source, ID string
}
