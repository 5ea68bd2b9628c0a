package fleet

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

// A Proof compares both ends.
type Proof struct {
	// Equal is how many clusters run exactly what the source holds for them.
	Equal int `json:"equal"`
	// Different are the others, a few of them by name.
	Different int      `json:"different"`
	Examples  []string `json:"examples,omitempty"`
	// Lost is how many works are not on their cluster in the newest version.
	Lost int `json:"lost"`
	// Works is how many works the source holds.
	Works int `json:"works"`
}

// mostExamples bounds the clusters that a proof names.
const mostExamples = 5

// Prove sums up what the source holds for every cluster, and what every cluster
// was made to run, and compares the sums: a keyed hash over ID, generation and
// the digest of the content, made anew from the bytes at either end. It asks
// neither agents nor dispatcher.
func (f *Fleet) Prove(ctx context.Context) (Proof, error) {
	var key digest.Key
	if _, err := rand.Read(key[:]); err != nil {
		return Proof{}, fmt.Errorf("draw a key: %w", err)
	}
	var p Proof
	for _, m := range f.members {
		held, err := f.source.Held(ctx, m.name)
		if err != nil {
			return p, fmt.Errorf("read what the source holds for %s: %w", m.name, err)
		}
		running, versions := m.cluster.sum(key)
		wanted := digest.NewSet(key)
		lost := 0
		for _, h := range held {
			wanted.AddSpec(h.ID, h.Generation, h.Digest, h.Deleting)
			if versions[h.ID] != h.Generation {
				lost++
			}
		}
		p.Works += len(held)
		p.Lost += lost
		if wanted.Root() == running.Root() {
			p.Equal++
			continue
		}
		if p.Different++; len(p.Examples) < mostExamples {
			p.Examples = append(p.Examples, fmt.Sprintf("%s: %d works wanted, %d there, %d of them not in the newest version", m.name, len(held), len(versions), lost))
		}
	}
	return p, nil
}

// sum sums up what the cluster was made to run, and says in which generation.
func (c *cluster) sum(key digest.Key) (*digest.Set, map[string]int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	set, versions := digest.NewSet(key), make(map[string]int64, len(c.has))
	for k, b := range c.has {
		if _, lost := c.drifted[k]; lost || k.Source != SourceID {
			continue
		}
		// A bundle that cannot be read has the digest of none, which the source's is not.
		content, _ := b.Digest()
		set.AddSpec(k.ID, b.Generation, content, false)
		versions[k.ID] = b.Generation
	}
	return set, versions
}
