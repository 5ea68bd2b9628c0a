package apply

import (
	"context"
	"errors"
	"fmt"

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
	a.resolve(p)
	before := previous(p.last)
	var errs []error
	for _, m := range p.manifests {
		if m.object != nil && m.resolved() {
			var there presence
			if there, err = a.look(ctx, p.client, m); err != nil {
				if !errors.Is(asExecutor(p.client, err), errExecutor) { // The work gets its turn when rights may be there.
					errs = append(errs, fmt.Errorf("look at %s: %w", m, err))
				}
				m.outcome.lookup = err
			}
			m.outcome.presence = there
		}
		m.outcome.carried = meta.FindStatusCondition(before.find(m.meta).Conditions, workv1.ManifestApplied)
	}
	report, err := codec.NewReport(b, statusOf(p.manifests, p.last, b.Generation, metav1.Now()))
	return report, errors.Join(append(errs, err)...)
}

// look says whether the object exists, from a watch if there is one.
func (a *Applier) look(ctx context.Context, c *client, m *manifest) (presence, error) {
	if a.index.vouched(m.id()) {
		return present, nil
	}
	live, err := c.lookUp(ctx, entry{objectID: m.id(), Version: m.resource.Version})
	switch {
	case err != nil:
		return presenceUnknown, describe(m.gvk(), err)
	case live == nil:
		return absent, nil
	}
	return present, nil
}
