package apply

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/codec"
)

// Observe looks again at what was applied for b, without changing it; see
// agents.Applier. What last says about applying stands.
func (a *Applier) Observe(ctx context.Context, b codec.Bundle, last codec.Report) (codec.Report, error) {
	p, err := a.open(b, last)
	if err != nil {
		return a.refuse(b, last, err)
	}
	if a.complete(p) {
		return codec.NewReport(b, p.last)
	}
	a.resolve(p)
	var errs []error
	if err = a.settle(ctx, p); err != nil {
		errs = append(errs, err)
	}
	before := previous(p.last)
	for _, m := range p.manifests {
		if m.finished {
			continue
		}
		if err := a.behold(ctx, p, m, before); err != nil {
			errs = append(errs, err)
		}
		m.outcome.carried = meta.FindStatusCondition(before.find(m.meta).Conditions, workv1.ManifestApplied)
	}
	now := metav1.Now()
	errs = append(errs, a.record(ctx, p, now))
	report, err := codec.NewReport(b, a.statusOf(p, now))
	return report, errors.Join(append(errs, err)...)
}

// behold looks at the object of a manifest, if the work's executor may. If not,
// what was last said of the object stands. The error asks for another try.
func (a *Applier) behold(ctx context.Context, p *pass, m *manifest, before history) error {
	if m.object == nil || !m.resolved() {
		return nil
	}
	may, err := a.rights.mayRead(ctx, p, m)
	if err != nil {
		m.outcome.lookup = err
		return fmt.Errorf("look at %s: %w", m, err)
	}
	if !may {
		m.outcome.presence = presenceOf(before.find(m.meta))
		return nil
	}
	if m.outcome.presence, err = a.look(ctx, p, m); err != nil {
		m.outcome.lookup = err
		if !errors.Is(asExecutor(p.client, err), errExecutor) { // The work gets its turn when rights may be there.
			return fmt.Errorf("look at %s: %w", m, err)
		}
	}
	return nil
}

// lookOn looks at the objects of manifests that were refused or given up before
// they were looked at, as Observe does: both say the same of them. Once a look
// fails the others wait for the next try.
func (a *Applier) lookOn(ctx context.Context, p *pass) {
	before := previous(p.last)
	var err error
	for _, m := range p.manifests {
		if m.outcome.applied() || m.outcome.presence != presenceUnknown || m.outcome.lookup != nil {
			continue
		}
		if err == nil && ctx.Err() == nil {
			err = a.behold(ctx, p, m, before)
		} else {
			m.outcome.presence = presenceOf(before.find(m.meta))
		}
	}
}

// look says whether the object exists, and has it say what it is asked: from what
// is known of it if a watch vouches for that, else with one call.
func (a *Applier) look(ctx context.Context, p *pass, m *manifest) (presence, error) {
	if seen, ok := a.index.sight(p, m); ok {
		m.seen = seen
		return present, nil
	}
	live, err := p.client.see(ctx, m)
	switch {
	case err != nil:
		return presenceUnknown, describe(m.gvk(), err)
	case live == nil:
		return absent, nil
	}
	a.regard(ctx, p, m, live, nil)
	return present, nil
}

// see reads as much of an object as it takes to answer what is asked of it. It
// returns nil if there is no such object.
func (c *client) see(ctx context.Context, m *manifest) (metav1.Object, error) {
	if m.needsWhole() {
		live, err := c.get(ctx, m)
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return liveObject(live), err
	}
	live, err := c.lookUp(ctx, entry{objectID: m.id(), Version: m.resource.Version})
	if live == nil {
		return nil, err
	}
	return live, err
}
