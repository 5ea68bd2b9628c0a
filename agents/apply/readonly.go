package apply

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// readOnly only looks whether the object is there. All it ever writes is that
// the object does not belong to the work any more, if an earlier generation
// made it so. The manifest counts as applied either way.
func readOnly(ctx context.Context, c *client, t task) applied {
	e := entry{objectID: t.id(), Version: t.resource.Version}
	for range conflictTries {
		live, err := c.see(ctx, t.manifest)
		o := outcome{action: observed}
		switch {
		case err != nil:
			o.lookup = describe(t.gvk(), err)
			return applied{outcome: o}
		case live == nil:
			o.presence = absent
			return applied{outcome: o}
		}
		after, err := ensureOwner(ctx, c, t, e, live)
		switch {
		case apierrors.IsConflict(err) || apierrors.IsNotFound(err):
			continue
		case err != nil:
			return applied{outcome: withPresence(failure(t.gvk(), err), present)}
		}
		o.presence = present
		return applied{outcome: o, live: after, whole: entire(t.manifest, live)}
	}
	return applied{outcome: withPresence(failure(t.gvk(), errBusy), present)}
}
