package apply

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// A contest is a field that we and somebody else write in turn.
type contest struct {
	claim
	// reverts is how often we wrote over what the other made of the field.
	reverts int
}

const (
	// mostReverts is how often a field is put back that somebody keeps changing.
	// After that it is left to him: an object that two write in turn is worse than
	// one that is not as its manifest says, and says so.
	mostReverts = 2
	// mostContests bounds what is remembered per object.
	mostContests = 64
)

// lost says whether the field is left as the other made it.
func (c contest) lost() bool { return c.reverts >= mostReverts }

// revert returns the memory after the claims were written over.
func (m memory) revert(claims []claim) memory {
	if len(claims) == 0 {
		return m
	}
	m.contests = maps.Clone(m.contests)
	if m.contests == nil {
		m.contests = make(map[string]contest)
	}
	seen := make(map[string]bool, len(claims))
	for _, c := range claims {
		was, ok := m.contests[c.field()]
		if seen[c.field()] || (!ok && len(m.contests) >= mostContests) {
			continue
		}
		seen[c.field()] = true
		if c.manager == "" {
			c.manager = was.manager
		}
		m.contests[c.field()] = contest{c, was.reverts + 1}
	}
	return m
}

// cede makes desired, in the fields that are left to others, as they have made
// live: for an update, which puts the object as a whole.
func (m memory) cede(desired, live *unstructured.Unstructured) {
	for _, c := range m.contests {
		if !c.lost() {
			continue
		}
		if have, ok := fieldAt(live.Object, c.path); ok {
			withField(desired.Object, c.path, have)
		} else {
			withoutField(desired.Object, c.path)
		}
	}
}

// withhold takes the fields that are left to others out of intent: for
// server-side apply, which says nothing about the fields of others.
func (m memory) withhold(intent *unstructured.Unstructured) {
	for _, c := range m.contests {
		if c.lost() {
			withoutField(intent.Object, c.path)
		}
	}
}

// digest is that of u as it would be were it not for the fields that are left to
// others: they may change without a difference.
func (m memory) digest(u, desired *unstructured.Unstructured) digest {
	if !slices.ContainsFunc(slices.Collect(maps.Values(m.contests)), contest.lost) {
		return digestLive(u)
	}
	u = u.DeepCopy()
	for _, c := range m.contests {
		if !c.lost() {
			continue
		}
		if want, ok := fieldAt(desired.Object, c.path); ok {
			withField(u.Object, c.path, want)
		} else {
			withoutField(u.Object, c.path)
		}
	}
	return digestLive(u)
}

// verdict completes the outcome of an object that is as the manifest says but
// for the fields that are left to others. One that others merely scale counts as
// applied.
func (m memory) verdict(o outcome, live, desired *unstructured.Unstructured) outcome {
	var scaled, taken []string
	for _, c := range m.contests {
		want, asked := fieldAt(desired.Object, c.path)
		have, there := fieldAt(live.Object, c.path)
		if !c.lost() || !asked || (there && contains(have, want, false)) {
			continue
		}
		text := fmt.Sprintf("%s of %s", c.who(), c.field())
		if c.scaling {
			scaled = append(scaled, text)
		} else {
			taken = append(taken, text)
		}
	}
	slices.Sort(scaled)
	slices.Sort(taken)
	switch {
	case len(taken) > 0:
		err := fmt.Errorf("others keep changing what the manifest says: %s. It was put back %d times and is left as they have it now, "+
			"until the manifest changes. Leave these fields out of the manifest, or apply it with ServerSideApply and ignoreFields",
			strings.Join(append(taken, scaled...), ", "), mostReverts)
		return withPresence(refused(err), present)
	case len(scaled) > 0:
		o.note = fmt.Sprintf("but for the scale, which is left to others: %s", strings.Join(scaled, ", "))
	}
	return o
}

func (c claim) who() string {
	if c.manager == "" {
		return "somebody"
	}
	return fmt.Sprintf("%q", clip(c.manager))
}
