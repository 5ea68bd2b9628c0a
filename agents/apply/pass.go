package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/executor"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// A pass is one look at one work.
type pass struct {
	bundle    codec.Bundle
	key       workKey
	work      *workv1.ManifestWork
	last      workv1.ManifestWorkStatus
	manifests []*manifest // In the order of the work until it is sorted.
	// executor is whose rights the work has, nobody for the agent's own.
	executor executor.Subject
	// left says why the executor could not remove what the work dropped; nil if it
	// could.
	left error
	// client does what the work asks for with objects, with the rights that it has.
	client *client
	// fresh says that nothing of the work was on the cluster before.
	fresh bool
	// recorded is what was complete on the cluster before the work had a holding.
	recorded completions
}

// Apply makes the cluster as b says and removes what an earlier generation of
// the work had and b does not; see agents.Applier.
func (a *Applier) Apply(ctx context.Context, b codec.Bundle, last codec.Report) (codec.Report, error) {
	p, err := a.open(b, last)
	if err != nil {
		return a.refuse(b, last, err)
	}
	if a.complete(p) {
		return codec.NewReport(b, p.last)
	}
	a.resolve(p)
	err = a.settle(ctx, p)
	sortForApply(p.manifests)
	if err == nil {
		err = a.applyPass(ctx, p)
	}
	for _, m := range p.manifests {
		if m.outcome.action == none {
			m.outcome = failure(m.gvk(), cmpError(err, ctx.Err()))
		}
		a.metrics.applied.WithLabelValues(string(m.outcome.action)).Inc()
	}
	a.lookOn(ctx, p)
	now := metav1.Now()
	err = errors.Join(err, a.record(ctx, p, now))
	report, encodeErr := codec.NewReport(b, a.statusOf(p, now))
	return report, errors.Join(p.failures(), err, encodeErr)
}

// open reads a bundle. An error means that no other try will read it either.
func (a *Applier) open(b codec.Bundle, last codec.Report) (*pass, error) {
	work, err := b.Work()
	if err != nil {
		return nil, fmt.Errorf("read the work: %w", err)
	}
	if len(work.Spec.Workload.Manifests) == 0 {
		// Were it applied, all objects of the work would go. Who wants that
		// deletes the work.
		return nil, errors.New("the work has no manifests")
	}
	if err := a.options.Limits.checkSize(work.Spec.Workload.Manifests); err != nil {
		return nil, err
	}
	who, err := a.rights.executorOf(&work.Spec)
	if err != nil {
		return nil, err
	}
	c, err := a.rights.client(who)
	if err != nil {
		return nil, err
	}
	return &pass{
		bundle: b, key: workKey{b.Source, b.ID}, work: work, last: lastStatus(last), executor: who, client: c,
		manifests: readManifests(work.Spec.Workload.Manifests, a.options.Limits),
	}, nil
}

// lastStatus reads a report that is ours. It only lends transition times, so
// one that cannot be read counts as none.
func lastStatus(last codec.Report) workv1.ManifestWorkStatus {
	if len(last.Payload) == 0 {
		return workv1.ManifestWorkStatus{}
	}
	status, err := last.Status()
	if err != nil {
		return workv1.ManifestWorkStatus{}
	}
	return status
}

func (a *Applier) refuse(b codec.Bundle, last codec.Report, reason error) (codec.Report, error) {
	before := lastStatus(last).Conditions
	status := workRefusal(api.ReasonWorkFailed, reason, before, b.Generation, metav1.Now())
	if was := meta.FindStatusCondition(before, workv1.WorkApplied); was == nil || *was != status.Conditions[0] {
		a.log.Warn("work refused", "source", b.Source, "work", b.ID, "generation", b.Generation, "reason", clip(reason.Error()), "trace", b.TraceValue())
	}
	return codec.NewReport(b, status)
}

// resolve finds out which objects the manifests mean and what is asked for them.
func (a *Applier) resolve(p *pass) {
	defined := definedKinds(p.manifests)
	seen := make(map[objectID]*manifest, len(p.manifests))
	missing := make(map[string]struct{})
	defer func() { a.arrivals.await(p.key, missing) }()
	for _, m := range p.manifests {
		if m.object == nil {
			continue
		}
		r, err := a.mapper.resource(m.gvk())
		if own, ok := defined[m.gvk()]; err != nil && ok {
			r, err = own, nil
		}
		if err != nil {
			if errors.Is(err, errNoKind) {
				missing[m.meta.Group] = struct{}{}
			}
			m.outcome = failure(m.gvk(), err)
			continue
		}
		m.resource, m.meta.Resource = r, r.Resource
		if !r.namespaced {
			m.object.SetNamespace("")
			m.meta.Namespace = ""
		} else if m.meta.Namespace == "" {
			m.resource = resource{}
			m.outcome = refused(fmt.Errorf("metadata.namespace is missing: %s is namespaced", clip(m.meta.Kind)))
			continue
		}
		if first, ok := seen[m.id()]; ok {
			m.outcome = refused(fmt.Errorf("manifest %d means the same object", first.meta.Ordinal))
			continue
		}
		seen[m.id()] = m
		is := workv1.ResourceIdentifier{Group: r.Group, Resource: r.Resource, Namespace: m.meta.Namespace, Name: m.meta.Name}
		m.option, err = resolveOption(&p.work.Spec, is)
		if err == nil {
			m.rules, err = resolveRules(p.work.Spec.ManifestConfigs, is)
		}
		if err != nil {
			m.outcome = refused(err)
			continue
		}
		if m.option.ignored, err = a.ignores.Compile(m.option.ignoreFields); err != nil {
			m.outcome = unreduced(m, err, presenceUnknown)
		}
	}
}

// applyPass claims the work, lists its objects, applies them and prunes what
// the work dropped. Its error speaks of the work as a whole.
func (a *Applier) applyPass(ctx context.Context, p *pass) error {
	if err := a.rights.review(ctx, p); err != nil {
		return err
	}
	h, err := a.claim(ctx, p)
	if err != nil {
		return err
	}
	wanted := p.entries()
	if union, changed := unite(h.entries, p.listed(wanted)); changed {
		if err := a.writeInventory(ctx, p.key, h, union); err != nil {
			return err
		}
	}
	established := make(map[schema.GroupKind]bool)
	for _, m := range p.manifests {
		if m.outcome.action != none || ctx.Err() != nil {
			continue
		}
		if m.reopened && a.reexamine(ctx, p, m) {
			continue
		}
		m.outcome = a.applyManifest(ctx, p, h, m, established)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if p.resolved() {
		err = a.prune(ctx, p, h, dropped(h.entries, wanted))
	}
	return errors.Join(err, a.completeInventory(ctx, p, h))
}

// inventoryDelay is for how long the status of an AppliedManifestWork may be
// behind. Works come in bursts, and what comes next to a work is often another
// change of it.
const inventoryDelay = 5 * time.Second

// completeInventory has the status list the objects as they are, with their
// UIDs. Nothing depends on that in a hurry: what is listed in an annotation is
// listed, and UIDs are for readers. So what a pass has to complete it leaves to
// the next, which comes when there is time; the work's report does not wait for it.
func (a *Applier) completeInventory(ctx context.Context, p *pass, h *holding) error {
	if !h.unlisted && !a.outdated(h.entries) {
		return nil
	}
	if h.reminded || !p.wrote() || !a.watches.active() {
		return a.writeInventory(ctx, p.key, h, slices.Clone(h.entries))
	}
	h.reminded = true
	a.bell.remind(p.key, inventoryDelay)
	return nil
}

// outdated says whether entries lack a UID that is known.
func (a *Applier) outdated(entries []entry) bool {
	return slices.ContainsFunc(entries, func(e entry) bool {
		uid := a.index.uid(e.objectID)
		return uid != "" && uid != e.UID
	})
}

// wrote says whether the pass changed anything on the cluster.
func (p *pass) wrote() bool {
	return p.fresh || slices.ContainsFunc(p.manifests, func(m *manifest) bool {
		return m.outcome.action == created || m.outcome.action == configured
	})
}

// resolved says whether it is known of every manifest which object it means.
func (p *pass) resolved() bool {
	for _, m := range p.manifests {
		if m.object == nil || !m.resolved() {
			return false
		}
	}
	return true
}

// entries are the objects of the work that are known.
func (p *pass) entries() []entry {
	var entries []entry
	seen := make(map[objectID]bool, len(p.manifests))
	for _, m := range p.manifests {
		if m.object == nil || !m.resolved() || seen[m.id()] {
			continue
		}
		seen[m.id()] = true
		entries = append(entries, entry{objectID: m.id(), Version: m.resource.Version})
	}
	return entries
}

// failures is the error that asks for another try, nil if none would help.
func (p *pass) failures() error {
	const most = 3
	var texts []string
	count := 0
	for _, m := range p.manifests {
		if m.outcome.applied() || !m.outcome.retry() {
			continue
		}
		if count++; count <= most {
			texts = append(texts, fmt.Sprintf("%s: %v", m, m.outcome.err))
		}
	}
	if count == 0 {
		return nil
	}
	if count > most {
		texts = append(texts, fmt.Sprintf("and %d more", count-most))
	}
	return fmt.Errorf("apply work %s of source %s: %d of %d manifests: %s",
		p.key.id, p.key.source, count, len(p.manifests), strings.Join(texts, "; "))
}

func cmpError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return errors.New("it was not tried")
}
