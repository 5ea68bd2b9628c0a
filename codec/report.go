package codec

import (
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// NewReport describes the status of the work that b asked for. Agent and
// Sequence are left to the caller.
func NewReport(b Bundle, status workv1.ManifestWorkStatus) (Report, error) { return Report{}, errTODO }

// Encode implements Message.
func (r Report) Encode(a Action) (event.Event, error) { return event.Event{}, errTODO }

// Status parses the report.
func (r Report) Status() (workv1.ManifestWorkStatus, error) {
	return workv1.ManifestWorkStatus{}, errTODO
}

// Deleted says whether the report confirms that the work is gone.
func (r Report) Deleted() (bool, error) { return false, errTODO }

// HashStatus is OCM's status hash.
func HashStatus(status workv1.ManifestWorkStatus) (string, error) { return "", errTODO }
