package sources_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
	"github.com/fleetcast-io/fleetcast/sources/memory"
)

// A scripted agent knows digests and says what the test has it say. What was
// published to it waits in the transport until the test has it taken.
type scripted struct {
	t        *testing.T
	f        *fakeTransport
	cluster  string
	instance digest.Key
	term     int64
	epoch    string // That of the hello with this term if it is empty.
	holds    map[string]codec.Entry
	sequence codec.Sequence
	pageSize int      // Buckets in a page; all if 0.
	can      []string // Its capabilities beside CapDigest.
}

func newScripted(t *testing.T, f *fakeTransport, cluster string) *scripted {
	return &scripted{
		t: t, f: f, cluster: cluster, instance: digest.Key{1}, holds: map[string]codec.Entry{},
	}
}

// says delivers a message, which must be settled at once.
func (a *scripted) says(m codec.Message) {
	a.t.Helper()
	got := a.f.deliver(a.t, toSource(a.cluster), encode(a.t, m, codec.Announce))
	if got.String() != "acknowledged" {
		a.t.Errorf("%T of %s is %s, want acknowledged: its agent comes again", m, a.cluster, got)
	}
}

func (a *scripted) sets() (spec, status *digest.Set) {
	spec, status = digest.NewSet(a.instance), digest.NewSet(a.instance)
	for _, e := range a.holds {
		spec.AddSpec(e.ID, e.Generation, e.Digest, e.Deleting)
		status.AddStatus(e.ID, e.Status)
	}
	return spec, status
}

// lead is the epoch that goes with the agent's term.
func (a *scripted) lead() string {
	if a.epoch != "" {
		return a.epoch
	}
	synctest.Wait()
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	for _, m := range a.f.broadcasts {
		if hello, ok := m.(codec.Hello); ok && hello.Term == a.term {
			return hello.Epoch
		}
	}
	return ""
}

func (a *scripted) digest() {
	a.t.Helper()
	spec, status := a.sets()
	a.says(codec.Digest{
		Agent: a.cluster + "-agent", Instance: a.instance, Epoch: a.lead(), Term: a.term, Works: spec.Len(),
		Spec: spec.Root(), Status: status.Root(), Capabilities: append([]string{codec.CapDigest}, a.can...),
	})
}

func (a *scripted) beats(online bool) {
	a.t.Helper()
	a.says(codec.Presence{Agent: a.cluster + "-agent", Instance: a.instance, Online: online})
}

// asks sends the question of OCM's protocol, as an agent with these
// capabilities does.
func (a *scripted) asks(capabilities ...string) *settlement {
	a.t.Helper()
	q := codec.SpecResync{Agent: a.cluster + "-agent", Source: sourceID, Cluster: a.cluster, Capabilities: capabilities}
	for _, e := range a.holds {
		q.Versions = append(q.Versions, codec.Version{ID: e.ID, Generation: e.Generation})
	}
	return a.f.deliver(a.t, toSource(a.cluster), encode(a.t, q, codec.ResyncRequest))
}

// entries sends what the agent holds in the buckets in which it differs.
func (a *scripted) entries(b codec.Buckets) {
	a.t.Helper()
	spec, status := a.sets()
	var differ []uint8
	for i := range digest.Buckets {
		if b.Spec != nil && b.Spec[i] != spec.Bucket(i) || b.Status != nil && b.Status[i] != status.Bucket(i) {
			differ = append(differ, uint8(i))
		}
	}
	size := max(1, len(differ))
	if a.pageSize > 0 {
		size = a.pageSize
	}
	for page := range slices.Chunk(differ, size) {
		m := codec.Entries{Agent: a.cluster + "-agent", Instance: a.instance, Term: a.term, Buckets: page}
		for _, e := range a.holds {
			if slices.Contains(page, digest.BucketOf(e.ID)) {
				m.Entries = append(m.Entries, e)
			}
		}
		a.says(m)
	}
}

// heard takes what was published to the agent's cluster since the last time.
func (a *scripted) heard() []codec.Message {
	synctest.Wait()
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	var mine []codec.Message
	for i, to := range a.f.topics {
		if to.Cluster == a.cluster && a.f.messages[i] != nil {
			mine = append(mine, a.f.messages[i])
			a.f.messages[i] = nil
		}
	}
	return mine
}

// takes has the agent hold what it was sent, as far as that is newer.
func (a *scripted) takes(b codec.Bundle) {
	if e, ok := a.holds[b.ID]; ok && e.Generation > b.Generation {
		return
	}
	content, err := b.Digest()
	if err != nil {
		a.t.Fatal(err)
	}
	a.holds[b.ID] = codec.Entry{
		ID: b.ID, Generation: b.Generation, Deleting: b.Deleting(), Digest: content, Status: a.holds[b.ID].Status,
	}
}

// reports has the agent report on a work, and remember the status.
func (a *scripted) reports(b codec.Bundle) *settlement {
	a.t.Helper()
	typ := workv1.WorkApplied
	if b.Deleting() {
		typ = api.ConditionDeleted
	}
	r, err := codec.NewReport(b, workv1.ManifestWorkStatus{Conditions: []metav1.Condition{{
		Type: typ, Status: metav1.ConditionTrue, Reason: "Done", ObservedGeneration: b.Generation,
	}}})
	if err != nil {
		a.t.Fatal(err)
	}
	a.sequence++
	r.Agent, r.Sequence = a.cluster+"-agent", a.sequence
	if b.Deleting() {
		delete(a.holds, b.ID)
	} else if e, ok := a.holds[b.ID]; ok {
		e.Status = r.Hash
		a.holds[b.ID] = e
	}
	return a.f.deliver(a.t, toSource(a.cluster), encode(a.t, r, codec.Update))
}

// talk is one comparison: the agent sends its digest, and its entries if it is
// asked for them. It returns what was said to it, the works by ID and
// generation, which it took.
func (a *scripted) talk() []string {
	a.t.Helper()
	a.heard()
	a.digest()
	var said []string
	for range 3 {
		pass(3 * time.Second) // Longer than the pause between answers.
		messages := a.heard()
		if len(messages) == 0 {
			break
		}
		for _, m := range messages {
			switch m := m.(type) {
			case codec.Bundle:
				a.takes(m)
				said = append(said, fmt.Sprintf("%s@%d", m.ID, m.Generation))
				if m.Deleting() {
					said[len(said)-1] += " deleted"
				}
			case codec.Buckets:
				said = append(said, "differs")
				a.entries(m)
			case codec.Match:
				said = append(said, fmt.Sprintf("match, %d unclaimed", m.Unclaimed))
			case codec.StatusResync:
				for _, h := range m.Hashes {
					said = append(said, h.ID+" status?")
				}
			case codec.Hello:
				said = append(said, "hello")
			}
		}
	}
	slices.Sort(said)
	return said
}

// syncs talks until the source says that both agree.
func (a *scripted) syncs() {
	a.t.Helper()
	var said []string
	for range 5 {
		said = a.talk()
		if len(said) == 1 && said[0] == "match, 0 unclaimed" {
			return
		}
	}
	a.t.Fatalf("%s is not in sync after five digests: %v", a.cluster, said)
}

// put puts a work into the source and returns its newest bundle.
func put(t *testing.T, src *memory.Source, cluster, name string) codec.Bundle {
	t.Helper()
	w := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Namespace: cluster, Name: name}}
	w.Spec.Workload.Manifests = []workv1.Manifest{{RawExtension: runtime.RawExtension{
		Raw: []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}`),
	}}}
	k, err := src.Put(w)
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := src.Bundle(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// remove deletes a work and returns the deletion.
func remove(t *testing.T, src *memory.Source, cluster, name string) codec.Bundle {
	t.Helper()
	if err := src.Delete(cluster, name); err != nil {
		t.Fatal(err)
	}
	b, _, err := src.Bundle(t.Context(), src.Key(cluster, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// id is the ID of a work of the source.
func id(cluster, name string) string { return codec.ResourceID(sourceID, cluster, name) }
