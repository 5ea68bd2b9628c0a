package hub

import (
	"context"
	"fmt"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clientv1 "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	"k8s.io/client-go/rest"

	"github.com/fleetcast-io/fleetcast/pkg/work"
)

// managedBy is the label by which a hub finds the policies that hubs installed.
const managedBy = "app.kubernetes.io/managed-by"

// policySource is the annotation with the source ID of the hub that installed a
// policy, which removes no others. A label has no room for every source ID.
const policySource = "fleetcast.io/source"

// policiesInterval is how often a hub looks whether its policies are as they are to
// be: somebody may have removed or changed them, or another replica, which
// was started differently, have brought them back.
const policiesInterval = 10 * time.Minute

// keepPolicies has the API server have the policies that this hub is to install, and
// no other that it installed, until ctx ends. It tells each reason to wait once.
// Works are dispatched meanwhile: the hub checks them, too.
func (c *Config) keepPolicies(ctx context.Context, cfg *rest.Config, h *health) {
	c.keepPoliciesEvery(ctx, cfg, h, policiesInterval)
}

func (c *Config) keepPoliciesEvery(ctx context.Context, cfg *rest.Config, h *health, interval time.Duration) {
	told := ""
	for {
		wait, err := interval, c.applyPolicies(ctx, cfg)
		switch {
		case ctx.Err() != nil:
			return
		case !c.InstallPolicies && (apierrors.IsForbidden(err) || apierrors.IsNotFound(err)):
			return // A hub that never installed any needs no right to look for them.
		case c.InstallPolicies:
			h.set(checkPolicies, err)
			if err != nil {
				wait = retryInterval
			}
		}
		switch {
		case err == nil:
			told = ""
		case told == err.Error():
		case c.InstallPolicies:
			told = err.Error()
			c.Log.Warn("admission policies of ManifestWorks are not installed, trying again", "err", err)
		default:
			told = err.Error()
			c.Log.Info("could not look for admission policies that an earlier start installed; they stay", "err", err, "again_after", wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// applyPolicies installs what is to be there and removes the rest of what hubs of
// this source ID installed: all of it without InstallPolicies, and what an earlier
// version had.
func (c *Config) applyPolicies(ctx context.Context, cfg *rest.Config) error {
	// Each attempt has its own client: a kubeconfig's credentials may change.
	client, err := clientv1.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("prepare the client for admission policies: %w", err)
	}
	wanted := map[string]bool{}
	if c.InstallPolicies {
		policies, bindings := work.Policies(work.PolicySettings{ManifestLimit: c.ManifestLimit, NilExecutorValidating: c.NilExecutorValidating})
		for _, p := range policies {
			wanted[p.Name] = true
			c.mark(&p.ObjectMeta)
			if err := applyPolicy(ctx, client, p); err != nil {
				return err
			}
		}
		for _, b := range bindings {
			wanted[b.Name] = true
			c.mark(&b.ObjectMeta)
			if err := applyBinding(ctx, client, b); err != nil {
				return err
			}
		}
	}
	return c.removePolicies(ctx, client, wanted)
}

// mark says that an object is of this hub.
func (c *Config) mark(o *metav1.ObjectMeta) {
	o.Labels = map[string]string{managedBy: fieldManager}
	o.Annotations = map[string]string{policySource: c.SourceID}
}

// removable says that an object is of this hub, and to be there no more.
func (c *Config) removable(o *metav1.ObjectMeta, wanted map[string]bool) bool {
	return o.Annotations[policySource] == c.SourceID && !wanted[o.Name]
}

// asListed has only that object deleted that was looked at: another hub may have
// made it its own since.
func asListed(o *metav1.ObjectMeta) metav1.DeleteOptions {
	return metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &o.UID, ResourceVersion: &o.ResourceVersion}}
}

// settled says that a deletion is done, or that the next look decides anew.
func settled(err error) bool {
	return err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err)
}

func applyPolicy(ctx context.Context, client clientv1.ValidatingAdmissionPoliciesGetter, p *admissionv1.ValidatingAdmissionPolicy) error {
	body, err := applyBody(p)
	if err == nil {
		force := true
		_, err = client.ValidatingAdmissionPolicies().Patch(ctx, p.Name, types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: fieldManager, Force: &force})
	}
	if err != nil {
		return fmt.Errorf("install ValidatingAdmissionPolicy %s: %w", p.Name, err)
	}
	return nil
}

func applyBinding(ctx context.Context, client clientv1.ValidatingAdmissionPolicyBindingsGetter, b *admissionv1.ValidatingAdmissionPolicyBinding) error {
	body, err := applyBody(b)
	if err == nil {
		force := true
		_, err = client.ValidatingAdmissionPolicyBindings().Patch(ctx, b.Name, types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: fieldManager, Force: &force})
	}
	if err != nil {
		return fmt.Errorf("install ValidatingAdmissionPolicyBinding %s: %w", b.Name, err)
	}
	return nil
}

// removePolicies removes the policies of this hub that are not wanted, and the
// bindings first: a policy that is bound to nothing refuses nothing.
func (c *Config) removePolicies(ctx context.Context, client clientv1.AdmissionregistrationV1Interface, wanted map[string]bool) error {
	selected := metav1.ListOptions{LabelSelector: managedBy + "=" + fieldManager}
	bindings, err := client.ValidatingAdmissionPolicyBindings().List(ctx, selected)
	if err != nil {
		return fmt.Errorf("look for admission policies of a hub: %w", err)
	}
	for i := range bindings.Items {
		if o := &bindings.Items[i].ObjectMeta; c.removable(o, wanted) {
			if err := client.ValidatingAdmissionPolicyBindings().Delete(ctx, o.Name, asListed(o)); !settled(err) {
				return fmt.Errorf("remove ValidatingAdmissionPolicyBinding %s: %w", o.Name, err)
			}
		}
	}
	policies, err := client.ValidatingAdmissionPolicies().List(ctx, selected)
	if err != nil {
		return fmt.Errorf("look for admission policies of a hub: %w", err)
	}
	for i := range policies.Items {
		if o := &policies.Items[i].ObjectMeta; c.removable(o, wanted) {
			if err := client.ValidatingAdmissionPolicies().Delete(ctx, o.Name, asListed(o)); !settled(err) {
				return fmt.Errorf("remove ValidatingAdmissionPolicy %s: %w", o.Name, err)
			}
		}
	}
	return nil
}
