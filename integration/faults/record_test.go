package faults

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// A key names a work: a cluster and a name on it.
type key struct{ cluster, name string }

func (k key) String() string { return k.cluster + "/" + k.name }

// A record is what the case asked for and what was seen to happen, in the order
// in which it became known. It judges as it goes: what breaks a promise stays.
// Versions are unique over a case and grow with each work that is written.
type record struct {
	mu      sync.Mutex
	begun   time.Time
	history io.Writer // JSON lines.

	version int64
	want    map[key]wanted // What there shall be in the end.
	kept    map[key]int64  // What clusters keep that the hub does not have.
	asked   map[key]int64  // The newest version whose removal was asked for.
	seen    map[key]int64  // The newest version that was on the cluster.
	refused map[key]bool   // Works that cannot be sent.
	broken  []string       // Promises that were broken.
}

// wanted is one work as it was asked for.
type wanted struct {
	version int64
	refused bool // See record.refuse.
}

func newRecord(history io.Writer) *record {
	return &record{
		begun: time.Now(), history: history,
		want: map[key]wanted{}, kept: map[key]int64{}, asked: map[key]int64{}, seen: map[key]int64{}, refused: map[key]bool{},
	}
}

// note writes one line of the history. The caller holds the lock.
func (r *record) note(what string, k key, version int64, more string) {
	line, err := json.Marshal(map[string]any{
		"ms": time.Since(r.begun).Milliseconds(), "what": what, "work": k.String(), "version": version, "more": more,
	})
	if err != nil {
		line = fmt.Appendf(nil, "{%q: %q}", "error", err)
	}
	_, _ = r.history.Write(append(line, '\n')) // A history that cannot be written fails nothing.
}

func (r *record) breaksf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.broken = append(r.broken, fmt.Sprintf("after %s: %s", time.Since(r.begun).Round(time.Millisecond), text))
	r.note("broken", key{}, 0, text)
}

// step tells in the history what the case does.
func (r *record) step(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note("step", key{}, 0, what)
}

// next returns a new version for the work, before anybody is asked to have it.
func (r *record) next(k key) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.version++
	r.want[k] = wanted{version: r.version, refused: r.refused[k]}
	r.note("ask", k, r.version, "")
	return r.version
}

// accepted tells that the hub's API server has that version of the work.
func (r *record) accepted(k key, version, generation int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note("accepted", k, version, fmt.Sprint("generation ", generation))
}

// remove tells that from now on whatever there is of the work may go.
func (r *record) remove(k key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked[k] = r.version
	delete(r.want, k)
	r.note("ask removal", k, r.version, "")
}

// applied is told what a cluster has of a work now. V1, V5.
func (r *record) applied(k key, version int64, taint string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if taint != k.cluster {
		r.breaksf("V5: cluster %s has work %s of cluster %q", k.cluster, k.name, taint)
	}
	if version == r.seen[k] {
		return
	}
	r.note("applied", k, version, "")
	if version < r.seen[k] {
		r.breaksf("V1: %s went back from version %d to %d", k, r.seen[k], version)
	}
	r.seen[k] = max(version, r.seen[k])
}

// removed is told that a cluster has nothing of a work any more. V3.
func (r *record) removed(k key, version int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note("removed", k, version, "")
	if r.asked[k] < version {
		r.breaksf("V3: version %d of %s left the cluster and nobody asked for that", version, k)
	}
}

// forgotten is told that the hub does not have the work any more; there says
// which version its cluster has, 0 for none. V4.
func (r *record) forgotten(k key, version, there int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note("forgotten", k, version, fmt.Sprint("on the cluster: ", there))
	if there != 0 && there <= version {
		r.breaksf("V4: the hub forgot version %d of %s, and the cluster has version %d", version, k, there)
	}
}

// verdict is all that was broken so far.
func (r *record) verdict() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.broken)
}

// tolerate tells that somebody removes what a cluster has of the work.
func (r *record) tolerate(k key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked[k] = r.seen[k]
	r.note("vanishes", k, r.seen[k], "")
}

// refuse tells that the work cannot be sent as it will be written, and that the
// hub shall say so.
func (r *record) refuse(k key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused[k] = true
}

// fits ends that.
func (r *record) fits(k key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.refused, k)
}

// orphan tells that the hub loses what it has, and clusters shall keep it.
func (r *record) orphan() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, w := range r.want {
		r.kept[k] = w.version
		r.note("orphaned", k, w.version, "")
	}
	clear(r.want)
}

// release tells that a cluster may lose what it kept of the work.
func (r *record) release(k key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked[k] = r.version
	delete(r.kept, k)
	r.note("released", k, r.version, "")
}
