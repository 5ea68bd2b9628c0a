package apply

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// A digest identifies what clients write into an object, without what the
// server counts and what controllers report. The zero value is that of none.
type digest struct {
	// whole is over content and the metadata that clients write, content over
	// all but metadata and status.
	whole, content string
}

func digestLive(u *unstructured.Unstructured) digest {
	content := maps.Clone(u.Object)
	delete(content, "status")
	delete(content, "metadata")
	d := digest{content: digestJSON(content)}
	d.whole = digestJSON([]any{
		d.content, u.GetUID(), u.GetLabels(), u.GetAnnotations(), u.GetOwnerReferences(),
	})
	return d
}

func digestJSON(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return "" // Objects come from JSON, so there is no such value.
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:16])
}

// A memory is what one work remembers of one object that it wrote. It is lost
// with the process, and with a new manifest.
type memory struct {
	// result is what the work's last write made of the object. An object equal
	// to it is no drift, even if it differs from the manifest: the server or an
	// admission webhook made it so, and would again.
	result digest
	// undone are contents of others' making that the work wrote over. One that
	// comes back is left alone where it contains the manifest: somebody insists
	// on it, and two who insist would write for ever.
	undone []string
	// contests are by field.
	contests map[string]contest
	// conflict is what the server last refused a server-side apply for.
	conflict conflict
}

// A conflict is what other field managers have against a server-side apply.
type conflict struct {
	// claims identifies who had which fields as we saw it; empty if there was no
	// conflict, or its fields could not be told.
	claims string
	err    error
}

var noConflict conflict

func conflictOf(claims []claim, err error) conflict {
	return conflict{claimsKey(claims), err}
}

// stands says whether the server would refuse the same for the same reason.
func (c conflict) stands(claims []claim) bool { return c.claims != "" && c.claims == claimsKey(claims) }

func claimsKey(claims []claim) string {
	keys := make([]string, 0, len(claims))
	for _, c := range claims {
		keys = append(keys, c.key())
	}
	slices.Sort(keys)
	return strings.Join(slices.Compact(keys), "\n")
}

// mostUndone bounds what is remembered per object; the oldest goes first.
const mostUndone = 8

func (m memory) undid(content string) bool { return slices.Contains(m.undone, content) }

func (m memory) add(content string) memory {
	m.undone = append(slices.Clone(m.undone), content)
	m.undone = m.undone[max(0, len(m.undone)-mostUndone):]
	return m
}
