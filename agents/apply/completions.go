package apply

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/observe"
)

// completeAnnotation on an AppliedManifestWork says which of its objects a rule
// found complete. It is written before that is reported: an agent that lost its
// store would do again what was done once and is gone, such as a Job with
// ttlSecondsAfterFinished.
const completeAnnotation = "work.fleetcast.io/complete"

// mostCompletions bounds the annotation at 32 KiB. What does not fit is known
// from the last report only.
const mostCompletions = 512

// completions are the objects of a work that are complete, by completionKey.
type completions map[string]completion

// A completion is one object that a rule found complete.
type completion struct {
	// Rule is the sum of the rule; see sumComplete.
	Rule string `json:"r"`
	// At is when, in seconds of Unix time.
	At int64 `json:"t"`
}

const completionSum = 16 // Hex digits of sums in the annotation.

// completionKey identifies an object of a work. The work is part of it, for an
// AppliedManifestWork goes over to a work that was made again under its name.
func completionKey(key workKey, id objectID) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{key.source, key.id, id.Group, id.Resource, id.Namespace, id.Name}, "\x00")))
	return hex.EncodeToString(sum[:completionSum/2])
}

// sumComplete identifies the rules that say when an object is complete. What else
// it is asked makes no difference.
func sumComplete(r observe.Rules) string {
	rules := slices.DeleteFunc(slices.Clone(r.Conditions), func(c workv1.ConditionRule) bool { return c.Condition != workv1.ManifestComplete })
	return digestJSON(rules)[:completionSum]
}

// readCompletions returns what an AppliedManifestWork says to be complete.
func readCompletions(w *workv1.AppliedManifestWork) completions {
	var c completions
	// Whoever made it something else has taken the list away.
	_ = json.Unmarshal([]byte(w.Annotations[completeAnnotation]), &c)
	return c
}

// completionsOf returns what is recorded of the work: what its holding says, or
// before there is one what is on the cluster.
func (a *Applier) completionsOf(ctx context.Context, p *pass) (completions, error) {
	if h := a.held(p.key); h != nil {
		return h.complete, nil
	}
	works, err := a.appliedWorks(ctx, p.key)
	if err != nil {
		return nil, fmt.Errorf("find out what is complete: %w", err)
	}
	all := completions{}
	for i := range slices.Backward(works) {
		if works[i].DeletionTimestamp == nil {
			maps.Copy(all, readCompletions(&works[i]))
		}
	}
	p.recorded = all
	return all, nil
}

// record writes down on the cluster what is complete. Where it cannot, nothing is
// said to have become complete.
func (a *Applier) record(ctx context.Context, p *pass, now metav1.Time) error {
	h := a.held(p.key)
	if h == nil {
		return p.withdraw(nil, nil)
	}
	have := completions{}
	maps.Copy(have, p.recorded)
	maps.Copy(have, h.complete)
	next := p.completions(have, now)
	if maps.Equal(next, h.complete) {
		return nil
	}
	if err := a.writeCompletions(ctx, p.key, h, next); err != nil {
		return p.withdraw(h.complete, err)
	}
	return nil
}

// completions are what is complete after the pass, given what was before.
func (p *pass) completions(have completions, now metav1.Time) completions {
	next := completions{}
	before := previous(p.last)
	whole := p.resolved()
	known := make(map[string]bool, len(p.manifests))
	for _, m := range p.manifests {
		if m.object == nil || !m.resolved() {
			continue
		}
		key := completionKey(p.key, m.id())
		known[key] = true
		was, had := have[key]
		switch {
		case m.completed():
			if sum := sumComplete(m.rules); !had || was.Rule != sum {
				was = completion{Rule: sum, At: now.Unix()}
				if c := before.find(m.meta); observe.Completed(c.Conditions) {
					was.At = completeSince(c).Unix()
				}
			}
			if len(next) < mostCompletions {
				next[key] = was
			}
		case had && (!m.outcome.applied() || (m.reopened && m.seen == nil)):
			if _, twice := next[key]; !twice {
				next[key] = was // It was not found out whether that still holds.
			}
		}
	}
	for key, was := range have {
		if !whole && !known[key] && len(next) < mostCompletions {
			next[key] = was
		}
	}
	return next
}

// withdraw has manifests that became complete say what they said before.
func (p *pass) withdraw(recorded completions, err error) error {
	before := previous(p.last)
	for _, m := range p.manifests {
		if !m.completed() || recorded[completionKey(p.key, m.id())].Rule == sumComplete(m.rules) {
			continue
		}
		seen := observe.Unread(m.rules, before.find(m.meta))
		m.seen = &seen
	}
	return err
}

// completed says whether a rule finds the object of an applied manifest complete.
func (m *manifest) completed() bool {
	return asksComplete(m.rules) && m.object != nil && m.resolved() && m.outcome.applied() &&
		(m.finished || (m.seen != nil && observe.Completed(m.seen.Conditions)))
}

func completeSince(c workv1.ManifestCondition) metav1.Time {
	return meta.FindStatusCondition(c.Conditions, workv1.ManifestComplete).LastTransitionTime
}

func (a *Applier) writeCompletions(ctx context.Context, key workKey, h *holding, next completions) error {
	var text any // Nothing removes the annotation.
	if len(next) > 0 {
		raw, err := json.Marshal(next)
		if err != nil {
			return err
		}
		text = string(raw)
	}
	// The UID keeps it from being written into a later object of the same name.
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": h.uid, "annotations": map[string]any{completeAnnotation: text}},
	})
	if err != nil {
		return err
	}
	id := appliedWorkID(h.name)
	asked := a.index.wanted(id, key)
	a.index.begin(id)
	call, cancel := a.client.limit(ctx)
	defer cancel()
	live, err := a.client.works.Patch(call, h.name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: updateManager})
	if err != nil {
		a.bell.ring(a.index.end(id, key, asked, outcome{}, nil, digest{})...)
		return fmt.Errorf("record in AppliedManifestWork %s what is complete: %w", h.name, err)
	}
	h.complete = next
	a.bell.ring(a.index.end(id, key, asked, done(unchanged), live, digest{})...)
	return nil
}
