package agents

import (
	"bytes"
	"encoding/json"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/digest"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// An inventory is what the agent holds as its sources compare it: an entry for
// each work, and for each source the sums over them. What a commit changes is
// taken out and put in again, so that neither a burst of events nor a digest
// costs more for the works that they are not about.
//
// It is not safe for concurrent use.
type inventory struct {
	key      digest.Key // Of the sums.
	holdings map[Key]holding
	sources  map[string]*sums
}

// A holding is the entry of one work, with the bundle that it was made of.
type holding struct {
	codec.Entry
	of codec.Bundle
}

// sums are the sums over the entries of one source.
type sums struct{ spec, status *digest.Set }

func newInventory(key digest.Key) *inventory {
	return &inventory{key: key, holdings: map[Key]holding{}, sources: map[string]*sums{}}
}

// set replaces the entry of a work, r being nil for one that is not held any
// more. It says whether anything changed.
func (v *inventory) set(k Key, r *Record, refused *refusal) bool {
	before, held := v.holdings[k]
	if r == nil || r.Gone() {
		if held {
			v.take(k, before)
		}
		return held
	}
	now := hold(before, r)
	if refused != nil && !refused.moot {
		now.Status = refused.report.Hash
	}
	if held && now.Entry == before.Entry {
		v.holdings[k] = now // Other bytes may say the same.
		return false
	}
	if held {
		v.take(k, before)
	}
	v.put(k, now)
	return true
}

func (v *inventory) put(k Key, h holding) {
	v.holdings[k] = h
	s := v.of(k.Source)
	s.spec.AddSpec(h.ID, h.Generation, h.Digest, h.Deleting)
	s.status.AddStatus(h.ID, h.Status)
}

func (v *inventory) take(k Key, h holding) {
	delete(v.holdings, k)
	s := v.of(k.Source)
	s.spec.RemoveSpec(h.ID, h.Generation, h.Digest, h.Deleting)
	s.status.RemoveStatus(h.ID, h.Status)
}

// of returns the sums of a source.
func (v *inventory) of(source string) *sums {
	s, ok := v.sources[source]
	if !ok {
		s = &sums{digest.NewSet(v.key), digest.NewSet(v.key)}
		v.sources[source] = s
	}
	return s
}

// in returns the entries of one source in a bucket that is selected.
func (v *inventory) in(source string, selected *[digest.Buckets]bool) [digest.Buckets][]codec.Entry {
	var entries [digest.Buckets][]codec.Entry
	for k, h := range v.holdings {
		if k.Source != source {
			continue
		}
		if b := digest.BucketOf(h.ID); selected[b] {
			entries[b] = append(entries[b], h.Entry)
		}
	}
	return entries
}

// hold makes the entry of a work that is not gone. What was hashed and parsed
// before is not again.
func hold(before holding, r *Record) holding {
	b := r.Bundle
	if r.Next != nil {
		b = *r.Next // What the source last said of this ID.
	}
	h := holding{of: b, Entry: codec.Entry{
		ID: b.ID, Generation: b.Generation, Deleting: b.Deleting(), Status: r.status(),
	}}
	if before.ID != "" && before.of.Deleting() == b.Deleting() &&
		bytes.Equal(before.of.Payload, b.Payload) && bytes.Equal(before.of.Metadata, b.Metadata) {
		h.Name, h.Digest = before.Name, before.Digest
		return h
	}
	h.Name = nameOf(b)
	// Metadata that cannot be read has the digest of none: the source, which
	// reads the same bytes, has it too.
	h.Digest, _ = b.Digest()
	return h
}

// nameOf is the name of the ManifestWork, empty if the bundle does not tell or
// if it is none that a ManifestWork can have.
func nameOf(b codec.Bundle) string {
	var meta struct {
		Name string `json:"name"`
	}
	if json.Unmarshal(b.Metadata, &meta) != nil || len(meta.Name) > codec.MaxName || !event.IsText(meta.Name) {
		return ""
	}
	return meta.Name
}
