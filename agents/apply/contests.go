package apply

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// A contest is a field that we and somebody else write in turn.
type contest struct {
	claim
	// reverts is how often we wrote over what the other made of the field since the
	// time since.
	reverts int
	since   time.Time
	// left says that the field is left as the other made it, for pause and until
	// the time until; for good if that is zero.
	left  bool
	pause time.Duration
	until time.Time
}

const (
	// mostReverts is how often a field is put back within revertWindow that
	// somebody keeps changing. After that it is left to him: an object that two
	// write in turn is worse than one that is not as its manifest says, and says so.
	mostReverts  = 2
	revertWindow = 10 * time.Minute
	// firstTruce is for how long it is left to him. Does he go on after that, and
	// one try, it is twice as long, up to longestTruce.
	firstTruce   = 5 * time.Minute
	longestTruce = time.Hour
	// mostContests bounds what is remembered per object.
	mostContests = 64
)

// lost says whether the field is left as the other made it.
func (c contest) lost() bool { return c.left }

// over says whether a truce over the field is.
func (c contest) over(now time.Time) bool { return c.left && !c.until.IsZero() && !now.Before(c.until) }

// again is the contest after the field was written over once more.
func (c contest) again(now time.Time) contest {
	if quiet := now.Sub(c.since) >= revertWindow; quiet {
		if c.until.Before(now.Add(-revertWindow)) {
			c.pause = 0
		}
		c.reverts, c.since = 0, now
	}
	c.reverts++
	if c.pause > 0 || c.reverts >= mostReverts {
		c.pause = min(max(2*c.pause, firstTruce), longestTruce)
		c.left, c.until = true, now.Add(c.pause)
		if c.scaling {
			c.until = time.Time{} // Every try would stop pods that somebody needs.
		}
	}
	return c
}

// reopen returns the memory with the truces that are over at an end.
func (m memory) reopen(now time.Time) memory {
	if !m.due(now) {
		return m
	}
	m.contests = maps.Clone(m.contests)
	for field, c := range m.contests {
		if c.over(now) {
			c.left = false
			m.contests[field] = c
		}
	}
	return m
}

// due says whether a truce is over.
func (m memory) due(now time.Time) bool {
	for _, c := range m.contests {
		if c.over(now) {
			return true
		}
	}
	return false
}

// leave returns the memory with a field that is left to another for good.
func (m memory) leave(by claim) memory {
	m.contests = maps.Clone(m.contests)
	if m.contests == nil {
		m.contests = make(map[string]contest)
	}
	m.contests[by.field()] = contest{claim: by, left: true}
	return m
}

// revert returns the memory after the claims were written over.
func (m memory) revert(claims []claim, now time.Time) memory {
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
		was.claim = c
		m.contests[c.field()] = was.again(now)
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
		text := fmt.Sprintf("%s of %s", c.who(), c.shown())
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
		err := fmt.Errorf("others keep changing what the manifest says: %s. It was put back %d times and is left as they have it now; "+
			"it is tried again after 5 minutes to an hour, and when the manifest changes. Leave these fields out of the manifest, or apply it with ServerSideApply and ignoreFields",
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
