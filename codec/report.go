package codec

import (
	"bytes"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// reportBody is the body of a report: a work's status without the level
// between resourceStatus and its manifests.
type reportBody struct {
	Conditions []metav1.Condition         `json:"conditions,omitempty"`
	Manifests  []workv1.ManifestCondition `json:"resourceStatus,omitempty"`
}

// NewReport describes the status of the work that b asked for. Agent and
// Sequence are left to the caller. Metadata that is over the limit, as that of a
// bundle may be with what an agent adds to it, is cut down to what identifies
// the work and api.SourceLabel. The error wraps ErrPayloadTooLarge or
// ErrMalformed.
func NewReport(b Bundle, status workv1.ManifestWorkStatus) (Report, error) {
	r, err := newReport(b, status)
	if err != nil {
		return Report{}, fmt.Errorf("report on work %q of cluster %q: %w", b.ID, b.Cluster, err)
	}
	return r, nil
}

func newReport(b Bundle, status workv1.ManifestWorkStatus) (Report, error) {
	r := Report{
		ID:         b.ID,
		Source:     b.Source,
		Cluster:    b.Cluster,
		Generation: b.Generation,
		Trace:      b.Trace,
	}
	var err error
	if r.Hash, err = HashStatus(status); err != nil {
		return Report{}, err
	}
	meta, err := b.meta()
	if err != nil {
		return Report{}, err
	}
	if r.Metadata, err = formatMetadata(meta); err != nil {
		least := identity(meta)
		least.Labels = map[string]string{api.SourceLabel: b.Source}
		if r.Metadata, err = formatMetadata(least); err != nil {
			return Report{}, err
		}
	}
	r.Payload, err = json.Marshal(reportBody{status.Conditions, status.ResourceStatus.Manifests})
	if err != nil {
		return Report{}, fmt.Errorf("write status: %w", err)
	}
	if len(r.Payload) > MaxPayload {
		return Report{}, fmt.Errorf("%w: %d bytes of status, at most %d are allowed",
			ErrPayloadTooLarge, len(r.Payload), MaxPayload)
	}
	return r, nil
}

// Status parses the report. Unknown fields are ignored, values of the wrong
// type are errors that wrap ErrMalformed.
func (r Report) Status() (workv1.ManifestWorkStatus, error) {
	var body reportBody
	if err := r.parse(&body); err != nil {
		return workv1.ManifestWorkStatus{}, err
	}
	return workv1.ManifestWorkStatus{
		Conditions:     body.Conditions,
		ResourceStatus: workv1.ManifestResourceStatus{Manifests: body.Manifests},
	}, nil
}

// Deleted says whether the report confirms that the work is gone: whether its
// condition api.ConditionDeleted is true. It parses only a report that may
// have the condition, so it finds no fault in most others.
func (r Report) Deleted() (bool, error) {
	// Whoever spells the word with escapes needs \u00 for its letters.
	if !bytes.Contains(r.Payload, []byte(`"`+api.ConditionDeleted+`"`)) && !bytes.Contains(r.Payload, []byte(`\u00`)) {
		return false, nil
	}
	var body struct {
		Conditions []struct {
			Type   string                 `json:"type"`
			Status metav1.ConditionStatus `json:"status"`
		} `json:"conditions"`
	}
	if err := r.parse(&body); err != nil {
		return false, err
	}
	for _, c := range body.Conditions {
		if c.Type == api.ConditionDeleted {
			return c.Status == metav1.ConditionTrue, nil
		}
	}
	return false, nil
}

func (r Report) parse(body any) error {
	if err := parseBody(r.Payload, body); err != nil {
		return fmt.Errorf("read status of work %q of cluster %q: %w", r.ID, r.Cluster, err)
	}
	return nil
}
