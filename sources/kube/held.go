package kube

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
	"github.com/fleetcast-io/fleetcast/sources"
)

// Held implements sources.Source.
//
// The reported generation of a work is the observedGeneration of its Applied
// condition: the agent sets it with every report of what it applied, and it is
// in the API, so that a new leader knows it too. The hash leaves out the
// condition that the hub itself owns. Digest and hash are computed once for what
// they are of.
func (s *Source) Held(ctx context.Context, cluster string) ([]sources.Held, error) {
	works, err := s.list(ctx, client.InNamespace(cluster))
	if err != nil {
		return nil, err
	}
	held := make([]sources.Held, 0, len(works))
	objects := make(map[string]struct{}, len(works))
	for i := range works {
		w := s.newest(&works[i])
		objects[string(w.UID)] = struct{}{}
		if !s.holds(w) {
			continue
		}
		rec := s.recordOf(string(w.UID))
		hash, err := s.statusHash(w, rec)
		if err != nil {
			return nil, err
		}
		held = append(held, sources.Held{
			ID:         string(w.UID),
			Generation: generation(w),
			Deleting:   w.DeletionTimestamp != nil,
			Digest:     s.digest(w, rec),
			Withheld:   s.withholds(w),
			Gone:       clusterDeleted(w),
			Reported:   reported(w),
			StatusHash: hash,
			Sequence:   s.taken(rec),
		})
	}
	return s.appendTombstones(held, cluster, objects), nil
}

// appendTombstones adds the deletions that the cluster did not confirm and that
// have no object.
func (s *Source) appendTombstones(held []sources.Held, cluster string, objects map[string]struct{}) []sources.Held {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clusters[cluster]
	if c == nil {
		return held
	}
	for id, t := range c.tombstones {
		if _, ok := objects[id]; ok || t.ConfirmedAt != nil {
			continue
		}
		h := sources.Held{ID: id, Generation: t.Generation, Deleting: true, Reported: t.reported, StatusHash: t.status, Sequence: t.sequence}
		if h.StatusHash == "" {
			h.StatusHash = s.empty
		}
		held = append(held, h)
	}
	return held
}

// taken is the sequence of the last report on a work that this process took.
func (s *Source) taken(rec *record) codec.Sequence {
	s.mu.Lock()
	defer s.mu.Unlock()
	return rec.sequence
}

// content is all of a work that its digest depends on, beside its UID and name,
// which never change. Of its spec the generation stands for all.
type content struct {
	generation          int64
	deleting            bool
	labels, annotations map[string]string
}

func contentOf(w *workv1.ManifestWork) content {
	return content{w.Generation, w.DeletionTimestamp != nil, w.Labels, w.Annotations}
}

func (c content) equal(other content) bool {
	return c.generation == other.generation && c.deleting == other.deleting &&
		maps.Equal(c.labels, other.labels) && sameAnnotations(c.annotations, other.annotations)
}

// sameAnnotations leaves out what no digest counts.
func sameAnnotations(a, b map[string]string) bool {
	n := 0
	for name, value := range a {
		if uncounted(name) {
			continue
		}
		if other, ok := b[name]; !ok || other != value {
			return false
		}
		n++
	}
	for name := range b {
		if !uncounted(name) {
			n--
		}
	}
	return n == 0
}

func uncounted(annotation string) bool {
	return annotation == corev1.LastAppliedConfigAnnotation || annotation == api.SequenceAnnotation
}

// digested is the digest of a work with what it is of.
type digested struct {
	known  bool
	of     content
	digest digest.Content
}

// hashed is the status hash of a version of a work.
type hashed struct{ version, hash string }

// digest is that of the work's bundle, zero for one that cannot be sent.
func (s *Source) digest(w *workv1.ManifestWork, rec *record) digest.Content {
	of := contentOf(w)
	s.mu.Lock()
	have := rec.digest
	if have.known && have.of.equal(of) {
		rec.digest.of = of // Lets go of the maps of an object that is no more.
		s.mu.Unlock()
		return have.digest
	}
	s.mu.Unlock()
	var d digest.Content
	if b, err := s.newBundle(w); err == nil {
		s.digests.Add(1)
		if d, err = b.Digest(); err != nil {
			d = digest.Content{}
		}
	}
	s.mu.Lock()
	rec.digest = digested{true, of, d}
	s.mu.Unlock()
	return d
}

// statusHash is that of the agent's part of the status.
func (s *Source) statusHash(w *workv1.ManifestWork, rec *record) (string, error) {
	s.mu.Lock()
	have := rec.status
	s.mu.Unlock()
	if have.hash != "" && have.version == w.ResourceVersion {
		return have.hash, nil
	}
	hash, err := codec.HashStatus(agentStatus(w))
	if err != nil {
		return "", fmt.Errorf("hash the status of work %s/%s: %w", w.Namespace, w.Name, err)
	}
	s.hashes.Add(1)
	s.mu.Lock()
	rec.status = hashed{w.ResourceVersion, hash}
	s.mu.Unlock()
	return hash, nil
}
