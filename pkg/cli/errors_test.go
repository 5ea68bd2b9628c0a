package cli

import (
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestRefusalsAreTold: what an admission policy says reaches the reader as it is,
// whatever reason the policy has for it.
func TestRefusalsAreTold(t *testing.T) {
	const policy = `manifestworks.work.open-cluster-management.io "web" is forbidden: ValidatingAdmissionPolicy 'manifestworks.work.fleetcast.io' with binding 'manifestworks.work.fleetcast.io' denied request: `
	for name, tc := range map[string]struct {
		reason  string
		status  metav1.StatusReason
		message string
		want    string
	}{
		"invalid":   {"most rules", metav1.StatusReasonInvalid, policy + "the work has no manifests", "cannot create it: the hub refuses it: the work has no manifests"},
		"too large": {"the policy knows the numbers", metav1.StatusReasonRequestEntityTooLarge, policy + "the manifests have 2 bytes", "cannot create it: the hub refuses it: the manifests have 2 bytes"},
		"forbidden": {"it is not about the right to write works", metav1.StatusReasonForbidden, policy + "bob may not have works executed as x", "cannot create it: the hub refuses it: bob may not have works executed as x"},
		"no policy": {"the API server itself", metav1.StatusReasonRequestEntityTooLarge, "limit is 3145728", "cannot create it: the work is too large for the API server. Split its manifests over several works"},
		"a quotation": {
			"only a policy's own words are cut", metav1.StatusReasonForbidden, "he said: " + "denied request: no",
			"cannot create it: not allowed: he said: denied request: no. Ask the hub's administrator for this right, or choose another user with --context",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cause := &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Reason: tc.status, Message: tc.message}}
			err := explain(cause, "create it", "hub.example.com")
			if err.Error() != tc.want {
				t.Errorf("%s: %s, want %s", tc.reason, err, tc.want)
			}
			if !errors.Is(err, cause) {
				t.Errorf("%s: the cause is lost", tc.reason)
			}
		})
	}
}
