package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/sources"
)

// A desk is a source with an API server's habits: works have UIDs that never
// recur, or, with recurring set, IDs made of their names and generations that
// go on where an earlier work of that name ended. Its data outlives the
// processes that serve it and can be copied and put back, as a backup is.
type desk struct {
	id        string
	recurring bool
	rng       *rand.Rand // Mints UIDs. They go on when an older copy is restored.

	mu     sync.Mutex
	data   deskData
	notify func(sources.Key)

	// What follows is the model's own memory and survives a restore.

	// highest is the last generation that any work of an ID ever had, and ended
	// says of which IDs that was a deletion.
	highest map[string]int64
	ended   map[string]bool
	// deleted is the last generation of each ID that was a deletion.
	deleted map[string]int64
	// gone is called when a cluster's confirmation is believed.
	gone func(k sources.Key)
}

// deskData is what a backup of the desk has.
type deskData struct {
	works map[sources.Key]deskWork
	// tombstones are works that are gone or were removed by force; of these,
	// confirmed ones are not spoken of unless somebody asks.
	tombstones map[sources.Key]tombstone
	ids        map[string]string // By cluster and name.
	last       map[string]int64  // The generation that a recurring ID had last.
	roster     map[string]sources.AgentState
	epoch      string
	term       int64
}

type deskWork struct {
	name, content string
	bundle        codec.Bundle
	report        codec.Report // The last accepted; its sequence is not in an API.
	ahead         int64        // The later generation that the cluster says it has.
}

type tombstone struct {
	bundle    codec.Bundle
	confirmed bool
}

func newDesk(id string, recurring bool, rng *rand.Rand) *desk {
	return &desk{
		id: id, recurring: recurring, rng: rng,
		data: deskData{
			works: map[sources.Key]deskWork{}, tombstones: map[sources.Key]tombstone{},
			ids: map[string]string{}, last: map[string]int64{}, roster: map[string]sources.AgentState{},
			epoch: fmt.Sprintf("%x", rng.Uint64()),
		},
		highest: map[string]int64{}, ended: map[string]bool{}, deleted: map[string]int64{},
		gone: func(sources.Key) {},
	}
}

func (d deskData) clone() deskData {
	d.works, d.tombstones = maps.Clone(d.works), maps.Clone(d.tombstones)
	d.ids, d.last, d.roster = maps.Clone(d.ids), maps.Clone(d.last), maps.Clone(d.roster)
	return d
}

// backup returns a copy of the data.
func (d *desk) backup() deskData {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.data.clone()
}

// restore puts an older copy in place. The processes that serve the desk have to
// be started anew.
func (d *desk) restore(data deskData) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.data = data.clone()
}

// put creates or changes a work.
func (d *desk) put(cluster, name, content string) error {
	d.mu.Lock()
	slot := cluster + "/" + name
	id, ok := d.data.ids[slot]
	if w := d.data.works[sources.Key{Cluster: cluster, ID: id}]; ok && w.bundle.Deleting() && !d.recurring {
		d.mu.Unlock()
		return nil // The name is taken until the old work is gone.
	}
	if !ok {
		id = d.mintLocked(cluster, name)
		d.data.ids[slot] = id
	}
	k := sources.Key{Cluster: cluster, ID: id}
	w := d.data.works[k]
	w.name, w.content, w.ahead = name, content, 0
	if err := d.bundleLocked(k, &w, time.Time{}); err != nil {
		d.mu.Unlock()
		return err
	}
	d.data.works[k] = w
	delete(d.data.tombstones, k)
	notify := d.notify
	d.mu.Unlock()
	tellOf(notify, k)
	return nil
}

// remove asks for a work's deletion.
func (d *desk) remove(cluster, name string) error {
	d.mu.Lock()
	k := sources.Key{Cluster: cluster, ID: d.data.ids[cluster+"/"+name]}
	w, ok := d.data.works[k]
	if !ok || w.bundle.Deleting() {
		d.mu.Unlock()
		return nil
	}
	if err := d.bundleLocked(k, &w, time.Now().UTC().Truncate(time.Second)); err != nil {
		d.mu.Unlock()
		return err
	}
	d.data.works[k] = w
	d.deleted[k.ID] = max(d.deleted[k.ID], w.bundle.Generation)
	notify := d.notify
	d.mu.Unlock()
	tellOf(notify, k)
	return nil
}

// force removes a work without its cluster's confirmation, as one does by
// taking its finalizer off.
func (d *desk) force(cluster, name string) error {
	if err := d.remove(cluster, name); err != nil {
		return err
	}
	d.mu.Lock()
	k := sources.Key{Cluster: cluster, ID: d.data.ids[cluster+"/"+name]}
	w, ok := d.data.works[k]
	if ok {
		d.forgetLocked(k, w)
		d.data.tombstones[k] = tombstone{bundle: w.bundle}
	}
	notify := d.notify
	d.mu.Unlock()
	tellOf(notify, k)
	return nil
}

func tellOf(notify func(sources.Key), k sources.Key) {
	if notify != nil {
		notify(k)
	}
}

func (d *desk) mintLocked(cluster, name string) string {
	if d.recurring {
		return codec.ResourceID(d.id, cluster, name)
	}
	var u uuid.UUID
	for i := range u {
		u[i] = byte(d.rng.Uint32())
	}
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80 // Version 4.
	return u.String()
}

// bundleLocked makes the next generation of a work.
func (d *desk) bundleLocked(k sources.Key, w *deskWork, deletedAt time.Time) error {
	generation := w.bundle.Generation + 1
	if d.recurring {
		generation = d.data.last[k.ID] + 1
	}
	raw, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": w.name, "namespace": "default"},
		"data": map[string]any{"content": w.content},
	})
	if err != nil {
		return err
	}
	work := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{
		Namespace: k.Cluster, Name: w.name, UID: types.UID(k.ID), Generation: generation,
	}}
	if !deletedAt.IsZero() {
		work.DeletionTimestamp = &metav1.Time{Time: deletedAt}
	}
	work.Spec.Workload.Manifests = []workv1.Manifest{{RawExtension: runtime.RawExtension{Raw: raw}}}
	if w.bundle, err = codec.NewBundle(d.id, work); err != nil {
		return fmt.Errorf("work %s of cluster %s: %w", w.name, k.Cluster, err)
	}
	d.data.last[k.ID] = generation
	if generation >= d.highest[k.ID] {
		d.highest[k.ID], d.ended[k.ID] = generation, w.bundle.Deleting()
	}
	return nil
}

// mayDelete says whether a cluster may delete a work as of a generation. IDs
// that recur name several works, of which the later ones are not deleted yet.
func (d *desk) mayDelete(id string, generation int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	last, ok := d.deleted[id]
	return ok && (!d.recurring || generation <= last)
}

// mayEvict says whether a cluster may remove what it has of a work that its
// agent does not hold: somebody deleted a work of that ID, whatever came since,
// which is made when it arrives.
func (d *desk) mayEvict(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, deleted := d.deleted[id]
	return deleted
}

// lapsed says of a work that its cluster may have something newer that this
// desk does not know, since an older copy of it was restored.
func (d *desk) lapsedLocked(k sources.Key, b codec.Bundle) bool {
	switch highest := d.highest[k.ID]; {
	case b.Deleting():
		return false // UIDs name one work, so it is deleted all the same.
	case b.Generation == highest:
		return d.ended[k.ID]
	default:
		return b.Generation < highest
	}
}

// idOf is the ID of a work that has this name now.
func (d *desk) idOf(cluster, name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.data.ids[cluster+"/"+name]
}

// ahead is the later generation of a work that its cluster is known to have.
func (d *desk) ahead(cluster, name string) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.data.works[sources.Key{Cluster: cluster, ID: d.data.ids[cluster+"/"+name]}].ahead
}

// forgetLocked removes a work and frees its name.
func (d *desk) forgetLocked(k sources.Key, w deskWork) {
	delete(d.data.works, k)
	if slot := k.Cluster + "/" + w.name; d.data.ids[slot] == k.ID {
		delete(d.data.ids, slot)
	}
}

// A clerk is one process that serves a desk.
type clerk struct {
	*desk
	crash *crash

	seenMu sync.Mutex
	seen   map[sources.Key]codec.Sequence // Of the last report taken by this process.
}

var (
	_ sources.Source   = (*clerk)(nil)
	_ sources.Lifetime = (*clerk)(nil)
	_ sources.Roster   = (*clerk)(nil)
)

func newClerk(d *desk, dies *crash) *clerk {
	return &clerk{desk: d, crash: dies, seen: map[sources.Key]codec.Sequence{}}
}

// Bundle implements sources.Source.
func (c *clerk) Bundle(_ context.Context, k sources.Key) (codec.Bundle, bool, error) {
	if c.crash.dead() {
		return codec.Bundle{}, false, errDead
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if w, ok := c.data.works[k]; ok {
		return w.bundle, true, nil
	}
	t, ok := c.data.tombstones[k]
	return t.bundle, ok, nil
}

// Held implements sources.Source.
func (c *clerk) Held(_ context.Context, cluster string) ([]sources.Held, error) {
	if c.crash.dead() {
		return nil, errDead
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var held []sources.Held
	for k, w := range c.data.works {
		if k.Cluster == cluster {
			h, err := heldOf(k, w.bundle, w.report)
			if err != nil {
				return nil, err
			}
			h.Sequence = c.last(k)
			held = append(held, h)
		}
	}
	for k, t := range c.data.tombstones {
		if k.Cluster == cluster && !t.confirmed {
			h, err := heldOf(k, t.bundle, codec.Report{})
			if err != nil {
				return nil, err
			}
			held = append(held, h)
		}
	}
	return held, nil
}

func heldOf(k sources.Key, b codec.Bundle, r codec.Report) (sources.Held, error) {
	h := sources.Held{ID: k.ID, Generation: b.Generation, Deleting: b.Deleting(), Reported: r.Generation, StatusHash: r.Hash}
	if r.Hash == "" {
		h.StatusHash = emptyHash
	}
	var err error
	h.Digest, err = b.Digest()
	return h, err
}

// last is the sequence of the last report on a work that this process took.
func (c *clerk) last(k sources.Key) codec.Sequence {
	c.seenMu.Lock()
	defer c.seenMu.Unlock()
	return c.seen[k]
}

// Begin implements sources.Lifetime.
func (c *clerk) Begin(_ context.Context, above int64) (epoch string, term int64, err error) {
	if c.crash.dead() {
		return "", 0, errDead
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.data.term = max(c.data.term, above) + 1
	return c.data.epoch, c.data.term, nil
}

// Agents implements sources.Roster.
func (c *clerk) Agents(context.Context) ([]sources.AgentState, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.data.roster)), nil
}

// SaveAgent implements sources.Roster.
func (c *clerk) SaveAgent(_ context.Context, s sources.AgentState) error {
	if c.crash.dead() {
		return errDead
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.data.roster[s.Cluster] = s
	return nil
}

// Clusters implements sources.Source.
func (c *clerk) Clusters(context.Context) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[string]bool{}
	var clusters []string
	note := func(k sources.Key) {
		if !seen[k.Cluster] {
			seen[k.Cluster] = true
			clusters = append(clusters, k.Cluster)
		}
	}
	for k := range c.data.works {
		note(k)
	}
	for k, t := range c.data.tombstones {
		if !t.confirmed {
			note(k)
		}
	}
	return clusters, nil
}

// Report implements sources.Source.
func (c *clerk) Report(_ context.Context, r codec.Report) (sources.Verdict, error) {
	if c.crash.strikes(beforeReport) {
		return "", errDead
	}
	verdict, err := c.judge(r)
	if c.crash.strikes(afterReport) {
		return "", errDead
	}
	return verdict, err
}

func (c *clerk) judge(r codec.Report) (sources.Verdict, error) {
	gone, err := r.Deleted()
	if err != nil {
		return sources.Invalid, nil
	}
	k := sources.Key{Cluster: r.Cluster, ID: r.ID}
	c.mu.Lock()
	defer c.mu.Unlock()
	w, ok := c.data.works[k]
	if !ok {
		return c.judgeUnknownLocked(k, r, gone), nil
	}
	if gone {
		if !w.bundle.Deleting() || r.Generation < w.bundle.Generation || c.recurring && r.Generation > w.bundle.Generation {
			return sources.Stale, nil
		}
		c.forgetLocked(k, w)
		c.data.tombstones[k] = tombstone{bundle: w.bundle, confirmed: true}
		c.gone(k)
		return sources.Accepted, nil
	}
	c.seenMu.Lock()
	defer c.seenMu.Unlock()
	last := c.seen[k]
	switch {
	case r.Sequence <= last, r.Generation < w.report.Generation:
		return sources.Stale, nil
	case !w.bundle.Deleting() && r.Generation > w.bundle.Generation:
		w.ahead = r.Generation
		c.data.works[k] = w
		return sources.Stale, nil
	}
	c.seen[k] = r.Sequence
	if r.Hash == w.report.Hash && w.ahead == 0 {
		return sources.Unchanged, nil
	}
	verdict := sources.Accepted
	if last == 0 && w.report.Generation == r.Generation {
		verdict = sources.Unordered
	}
	w.report, w.ahead = r, 0
	c.data.works[k] = w
	return verdict, nil
}

func (c *clerk) judgeUnknownLocked(k sources.Key, r codec.Report, gone bool) sources.Verdict {
	for other := range c.data.works {
		if other.ID == k.ID {
			return sources.Foreign
		}
	}
	t, ok := c.data.tombstones[k]
	switch {
	case !ok:
		return sources.Unknown
	case !gone || r.Generation < t.bundle.Generation:
		return sources.Stale
	}
	if !t.confirmed {
		t.confirmed = true
		c.data.tombstones[k] = t
		c.gone(k)
	}
	return sources.Accepted
}

// emptyHash is the hash of a status that says nothing.
var emptyHash = func() string {
	hash, err := codec.HashStatus(workv1.ManifestWorkStatus{})
	if err != nil {
		panic(err) // It holds nothing that cannot be hashed.
	}
	return hash
}()
