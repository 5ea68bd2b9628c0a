// Package apply makes one cluster run what works say: it is the agents.Applier
// for a real API server.
//
// # What it writes
//
// Every work has an AppliedManifestWork on the cluster, named by the hub's hash
// and the work when it is made, and found by the work's source and ID: it stays
// the work's own when the hub moves to another address. It is there before the
// first object, lists every object that the work has or may have, and owns them.
// An object enters the list before it is created and leaves it after it is gone,
// so that an agent that dies at any point leaves nothing that its successor does
// not know. The list is status.appliedResources, but for a new work, for whose
// first seconds it is an annotation; see readInventory.
//
// An object is written only if it differs from its manifest. While a watch
// vouches that nothing happened to it, it is not even read, but for once per
// Options.Verify. Manifests that
// cannot be applied cost the others of the work nothing.
//
// # What it deletes
//
// Objects that a newer generation of a work dropped, and those of a work that
// is deleted: only if they carry the owner reference of that work's
// AppliedManifestWork and of no other, and only in the very version that was
// looked at. While it is not known which object some manifest of the work
// means, nothing is dropped.
//
// # Whose rights it has
//
// A work that names an executor is applied as that service account: all that is
// done with its objects is done with the executor's rights, on deletion too, and
// the agent's own are for AppliedManifestWorks, for watches of metadata and for
// finding out what the cluster serves. See Executors.
//
// # Concurrency
//
// Methods may be called concurrently for different works. No error or log line
// holds content of an object.
package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply/ignore"
	"github.com/fleetcast-io/fleetcast/agents/observe"
	"github.com/fleetcast-io/fleetcast/codec"
)

// Options configure an Applier. Only HubHash is required.
type Options struct {
	// HubHash tells the hub apart from other hubs of the same cluster: the names
	// of AppliedManifestWorks begin with it. It must be part of a DNS name.
	HubHash string
	// Cluster is the cluster's name on the hub. It is written into
	// AppliedManifestWorks, and those of another name are left alone. Without it
	// nothing is evicted.
	Cluster string
	// AgentID is written into AppliedManifestWorks. Default: HubHash.
	AgentID string
	// Changed is called when an object of a work changed, appeared or went. It
	// must not block. One work is told at most about once a second.
	Changed func(source, id string)
	// Ledger is what the agent knows of its works. Default: one that knows
	// nothing, and so nothing is evicted.
	Ledger Ledger
	// EvictionGrace is for how long what a work made must have been on the cluster
	// although the agent remembers that the work was deleted, as after a restore of
	// the cluster, before it is removed: the time that the applier ran counts.
	// Default: 1 h; NeverEvict or more switches it off.
	EvictionGrace time.Duration
	// Log gets what an operator acts on. Default: slog.Default().
	Log *slog.Logger
	// Registerer gets the metrics. Default: none are registered.
	Registerer prometheus.Registerer
	// Limits are on what a work may hold.
	Limits Limits
	// Executors say whose rights works have.
	Executors Executors
	// Observe is about what objects are asked for feedback and conditions.
	Observe observe.Options

	// Timeout is for each call to the API server, and for the answer to each watch
	// that is opened. Default: 30 s.
	Timeout time.Duration
	// MaxWatches bounds the watches on types in namespaces. Objects beyond are
	// read at every Recheck. Default: 256.
	MaxWatches int
	// Recheck is how often works are told to look at objects that no watch
	// covers, and to try what was refused. Default: 5 min.
	Recheck time.Duration
	// Verify is for how long the word of a watch is taken: an object that was not
	// read for longer is read at the next Apply, even if nothing seems to have
	// happened to it. A cluster that was restored from a backup makes watches
	// silent without an error. Until then, applying what did not change costs no
	// call. Default: 10 min.
	Verify time.Duration
	// Discovery is how often the same missing kind is asked for, at most.
	// Default: 10 s.
	Discovery time.Duration
	// Establish is how long to wait for a CRD of a work to be served before its
	// instances are applied. Default: 10 s.
	Establish time.Duration
}

// Limits are on what a work may hold. What is beyond is not applied.
type Limits struct {
	// Manifests is the number per work. Default: 500.
	Manifests int
	// ManifestBytes is the size of one. Default: 1 MiB, near which etcd refuses.
	ManifestBytes int
	// WorkBytes is the size of all manifests of a work together; of a work with
	// more, nothing is applied. Default: codec.MaxPayload, above which none comes.
	WorkBytes int
}

func (o Options) withDefaults() Options {
	o.AgentID = cmp.Or(o.AgentID, o.HubHash)
	o.Log = cmp.Or(o.Log, slog.Default())
	o.EvictionGrace = cmp.Or(o.EvictionGrace, time.Hour)
	if o.Ledger == nil {
		o.Ledger = unknowing{}
	}
	o.Timeout = cmp.Or(o.Timeout, 30*time.Second)
	o.MaxWatches = cmp.Or(o.MaxWatches, 256)
	o.Recheck = cmp.Or(o.Recheck, 5*time.Minute)
	o.Verify = cmp.Or(o.Verify, 10*time.Minute)
	o.Discovery = cmp.Or(o.Discovery, 10*time.Second)
	o.Establish = cmp.Or(o.Establish, 10*time.Second)
	o.Limits.Manifests = cmp.Or(o.Limits.Manifests, 500)
	o.Limits.ManifestBytes = cmp.Or(o.Limits.ManifestBytes, 1<<20)
	o.Limits.WorkBytes = cmp.Or(o.Limits.WorkBytes, codec.MaxPayload)
	return o
}

// An Applier applies works to one cluster. It satisfies agents.Applier.
type Applier struct {
	options  Options
	client   *client
	mapper   *mapper
	index    *index
	observer *observe.Observer
	watches  *watches
	bell     *bell
	arrivals *arrivals
	metrics  metrics
	ledger   Ledger
	rights   *rights
	ignores  ignore.Compiler
	log      *slog.Logger

	mu       sync.Mutex
	holdings map[workKey]*holding
	evicting map[workKey]struct{}
	// missed says since when AppliedManifestWorks are in the way whose works
	// nobody holds.
	missed map[types.UID]time.Time
}

// New returns an Applier for the cluster that cfg leads to. It makes no
// request. Works are applied without Run as well, but drift goes unnoticed and
// every call reads every object.
func New(cfg *rest.Config, o Options) (*Applier, error) {
	if o.HubHash == "" {
		return nil, errors.New("set up the applier: the hub hash is missing")
	}
	o = o.withDefaults()
	observer, err := observe.New(o.Observe)
	if err != nil {
		return nil, fmt.Errorf("set up the applier: %w", err)
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register the applier's metrics: %w", err)
	}
	c, err := newClient(cfg, o.Timeout, m.countWrite)
	if err != nil {
		return nil, err
	}
	const bellInterval = time.Second
	a := &Applier{
		options: o, client: c, observer: observer, metrics: m, log: o.Log, ledger: o.Ledger,
		mapper:   newMapper(c.kinds.kinds, o.Discovery),
		index:    newIndex(o.Verify),
		bell:     newBell(bellInterval, o.Changed),
		holdings: make(map[workKey]*holding),
		evicting: make(map[workKey]struct{}),
		missed:   make(map[types.UID]time.Time),
	}
	a.watches = &watches{
		index: a.index, register: newRegister(), client: c.metadata, bell: a.bell, log: o.Log,
		most: o.MaxWatches, recheck: o.Recheck, silent: o.Timeout, targets: make(map[targetKey]*target),
	}
	a.arrivals = &arrivals{
		client: c.metadata, bell: a.bell, forget: a.mapper.forgetGroup, log: o.Log,
		silent: o.Timeout, recheck: o.Recheck, settle: o.Establish,
		waiting: make(map[string]map[workKey]struct{}), changed: make(map[string]time.Time),
	}
	if a.rights, err = newRights(o, c, a.bell); err != nil {
		return nil, err
	}
	return a, nil
}

// Run watches what is applied, and removes what is not wanted any more (see
// Ledger), until ctx ends, and then returns nil. It makes
// up for anything that happened before it was called. Call it once.
func (a *Applier) Run(ctx context.Context) error {
	var others sync.WaitGroup
	others.Go(func() { newEviction(a).run(ctx) })
	others.Go(func() { a.rights.run(ctx) })
	others.Go(func() { a.arrivals.run(ctx) })
	a.watches.run(ctx)
	others.Wait()
	return nil
}

// strategies are the ways to make a live object follow its manifest.
var strategies = map[workv1.UpdateStrategyType]strategy{
	workv1.UpdateStrategyTypeUpdate:          update,
	workv1.UpdateStrategyTypeCreateOnly:      createOnly,
	workv1.UpdateStrategyTypeReadOnly:        readOnly,
	workv1.UpdateStrategyTypeServerSideApply: serverSideApply,
}
