package codec

import (
	"errors"

	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/event"
)

var errTODO = errors.New("being written")

// NewBundle describes a ManifestWork for the wire. The ID is the work's UID, or
// ResourceID of its name where it has none; the generation is that of
// api.GenerationAnnotation or else metadata.generation.
func NewBundle(source string, w *workv1.ManifestWork) (Bundle, error) { return Bundle{}, errTODO }

// ResourceID is the ID that OCM's sources mint for a work: a UUID of version 5.
func ResourceID(source, cluster, name string) string { return "" }

// Encode implements Message.
func (b Bundle) Encode(a Action) (event.Event, error) { return event.Event{}, errTODO }

// Work rebuilds the ManifestWork as an agent sees it (see OCM's agent codec):
// UID is ID, namespace is Cluster, generation is Generation, the name falls back
// to ID, and SourceLabel and DataTypeAnnotation are set.
func (b Bundle) Work() (*workv1.ManifestWork, error) { return nil, errTODO }
