package apply

import "context"

// readOnly writes nothing and only looks whether the object is there. The
// manifest counts as applied either way.
func readOnly(ctx context.Context, c *client, t task) applied {
	live, err := c.lookUp(ctx, entry{objectID: t.id(), Version: t.resource.Version})
	o := outcome{action: observed}
	switch {
	case err != nil:
		o.lookup = describe(t.gvk(), err)
		return applied{outcome: o}
	case live == nil:
		o.presence = absent
		return applied{outcome: o}
	}
	o.presence = present
	return applied{outcome: o, live: live}
}
