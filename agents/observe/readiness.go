package observe

import (
	"fmt"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// ConditionReady says of a manifest whether its object is as it should be.
const ConditionReady = api.ConditionReady

// Reasons of ConditionReady.
const (
	ReasonCurrent     = string(status.CurrentStatus)
	ReasonInProgress  = string(status.InProgressStatus)
	ReasonFailed      = string(status.FailedStatus)
	ReasonTerminating = string(status.TerminatingStatus)
	ReasonNotFound    = string(status.NotFoundStatus)
	ReasonUnknown     = string(status.UnknownStatus)
)

// ByMetadata says whether the metadata of objects of the kind are enough to tell
// whether they are ready: they have no status.
func ByMetadata(gvk schema.GroupVersionKind) bool {
	switch gvk.Group {
	case "":
		switch gvk.Kind {
		case "ConfigMap", "Secret", "ServiceAccount", "LimitRange":
			return true
		}
	case rbacv1.GroupName:
		return true
	}
	return false
}

// readiness is the condition of a live object. It is transient if time alone may
// change it.
func readiness(live *unstructured.Unstructured) (c metav1.Condition, transient bool) {
	c = metav1.Condition{Type: ConditionReady, Status: metav1.ConditionUnknown, Reason: ReasonUnknown}
	defer func() {
		if p := recover(); p != nil {
			c.Message = "The status of the resource is of an unknown form"
		}
	}()
	result, err := status.Compute(live)
	if err != nil {
		c.Message = sentence(fmt.Errorf("the status of the resource cannot be read: %w", err))
		return c, false
	}
	c.Reason, c.Message = string(result.Status), clip(result.Message)
	switch result.Status {
	case status.CurrentStatus:
		c.Status = metav1.ConditionTrue
	case status.InProgressStatus, status.FailedStatus, status.TerminatingStatus, status.NotFoundStatus:
		c.Status = metav1.ConditionFalse
	case status.UnknownStatus:
	}
	// A Pod that cannot be scheduled counts as failed after a while.
	gvk := live.GroupVersionKind()
	waiting := gvk.Group == corev1.GroupName && gvk.Kind == "Pod" && result.Status == status.InProgressStatus
	return c, waiting
}
