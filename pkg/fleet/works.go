package fleet

import (
	"context"
	"fmt"
	"math/rand/v2"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	workv1 "open-cluster-management.io/api/work/v1"
)

// What every simulated work holds.
const (
	namespace  = "default"
	objectName = "settings"
)

// workName is the name of a cluster's work of this number.
func workName(number int) string { return fmt.Sprintf("work-%05d", number) }

// content is the payload of version v of a work: values of its own cluster
// before what all clusters have of it, as if it were made of a template.
func (f *Fleet) content(cluster string, number int, version string) []byte {
	shared := rand.New(rand.NewPCG(f.o.Seed, uint64(number))) //nolint:gosec // A simulation is to be repeated.
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	filler := make([]byte, max(0, f.o.Size-200))
	for i := range filler {
		filler[i] = letters[shared.IntN(len(letters))]
	}
	return fmt.Appendf(nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q,"namespace":%q},"data":{"cluster":%q,"version":%q,"shared":%q}}`,
		objectName, namespace, cluster, version, filler)
}

// Put makes a version of the works that choose selects, and returns how many
// these are.
func (f *Fleet) Put(ctx context.Context, version string, choose func(cluster, work int) bool) (int, error) {
	n := 0
	for work := range f.o.Works {
		for i, m := range f.members {
			if !choose(i, work) {
				continue
			}
			if err := ctx.Err(); err != nil {
				return n, err
			}
			if err := f.put(m.name, work, version); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}

func (f *Fleet) put(cluster string, work int, version string) error {
	name := workName(work)
	w := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{Namespace: cluster, Name: name}}
	w.Spec.Workload.Manifests = []workv1.Manifest{{RawExtension: runtime.RawExtension{Raw: f.content(cluster, work, version)}}}
	// Reports on the new version may come before Put returns.
	k := f.source.Key(cluster, name)
	generation := int64(1)
	if before, ok := f.source.Work(cluster, name); ok {
		generation = before.Bundle.Generation + 1
	}
	f.ledger.expect(k, generation, false)
	if _, err := f.source.Put(w); err != nil {
		return fmt.Errorf("put work %s of %s: %w", name, cluster, err)
	}
	return nil
}

// All chooses every work.
func All(int, int) bool { return true }

// Share chooses about a share of all works, at random but always the same ones
// for one seed.
func Share(share float64, seed uint64) func(cluster, work int) bool {
	return func(cluster, work int) bool {
		rng := rand.New(rand.NewPCG(seed, uint64(cluster)<<32|uint64(work))) //nolint:gosec // A simulation is to be repeated.
		return rng.Float64() < share
	}
}

// Await waits until the source holds the status of all works as they are now.
func (f *Fleet) Await(ctx context.Context) error { return f.ledger.await(ctx) }

// Progress is how many works have arrived since the last step began, and how
// many are under way.
func (f *Fleet) Progress() (arrived, underWay int) { return f.ledger.counts() }
