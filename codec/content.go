package codec

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
)

// Digest is the SHA-256 of what the bundle asks for: its manifests and options
// byte by byte, and of its metadata the name (the ID where it has none), the
// labels and the annotations. It is the same at both ends, wherever resource
// versions, managed fields and timestamps differ. kubectl's last applied
// configuration and api.SequenceAnnotation do not count. That of a deletion is
// zero. The error wraps ErrMalformed.
func (b Bundle) Digest() (digest.Content, error) {
	if b.Deleting() {
		return digest.Content{}, nil
	}
	var meta struct {
		Name        string            `json:"name"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	}
	if len(b.Metadata) > 0 {
		if err := parseObject(attrMetadata, b.Metadata, &meta); err != nil {
			return digest.Content{}, fmt.Errorf("digest work %q of cluster %q: %w", b.ID, b.Cluster, err)
		}
	}
	if meta.Name == "" {
		meta.Name = b.ID
	}
	delete(meta.Annotations, corev1.LastAppliedConfigAnnotation)
	delete(meta.Annotations, api.SequenceAnnotation)
	h := fields{sha256.New()}
	h.number(len(b.Payload))
	_, _ = h.Write(b.Payload) // A hash takes everything.
	h.text(meta.Name)
	h.pairs(meta.Labels)
	h.pairs(meta.Annotations)
	return digest.Content(h.Sum(nil)), nil
}

// fields hashes values so that no two lists of them are hashed alike: numbers
// as 8 bytes, the most significant first, texts after their length in bytes.
type fields struct{ hash.Hash }

func (h fields) number(n int) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n)) //nolint:gosec // No length is negative.
	_, _ = h.Write(b[:])
}

func (h fields) text(s string) {
	h.number(len(s))
	_, _ = io.WriteString(h, s)
}

// pairs hashes their number, then keys and values in the order of the keys.
func (h fields) pairs(m map[string]string) {
	h.number(len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		h.text(key)
		h.text(m[key])
	}
}
