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

// managedBy is the label by which the hub knows the policies that it installed,
// which are the only ones that it removes.
const managedBy = "app.kubernetes.io/managed-by"

// keepPolicies returns when the API server has the policies that this hub is to
// install, and no other that a hub installed, or when ctx ends. It tells each
// reason to wait once. Works are dispatched meanwhile: the hub checks them, too.
func (c *Config) keepPolicies(ctx context.Context, cfg *rest.Config, h *health) {
	if !c.InstallPolicies {
		// A hub that never installed any needs no right to look for them.
		if err := c.applyPolicies(ctx, cfg); err != nil && !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			c.Log.Info("could not look for admission policies that an earlier start installed; they stay", "err", err)
		}
		return
	}
	told := ""
	for {
		err := c.applyPolicies(ctx, cfg)
		h.set(checkPolicies, err)
		if err == nil || ctx.Err() != nil {
			return
		}
		if told != err.Error() {
			told = err.Error()
			c.Log.Warn("admission policies of ManifestWorks are not installed, trying again", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryInterval):
		}
	}
}

// applyPolicies installs what is to be there and removes the rest of what a hub
// installed: all of it without InstallPolicies, and what an earlier version had.
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
			if err := applyPolicy(ctx, client, p); err != nil {
				return err
			}
		}
		for _, b := range bindings {
			wanted[b.Name] = true
			if err := applyBinding(ctx, client, b); err != nil {
				return err
			}
		}
	}
	return removePolicies(ctx, client, wanted)
}

func applyPolicy(ctx context.Context, client clientv1.ValidatingAdmissionPoliciesGetter, p *admissionv1.ValidatingAdmissionPolicy) error {
	p.Labels = map[string]string{managedBy: fieldManager}
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
	b.Labels = map[string]string{managedBy: fieldManager}
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

// removePolicies removes the policies of a hub that are not wanted, and the
// bindings first: a policy that is bound to nothing refuses nothing.
func removePolicies(ctx context.Context, client clientv1.AdmissionregistrationV1Interface, wanted map[string]bool) error {
	selected := metav1.ListOptions{LabelSelector: managedBy + "=" + fieldManager}
	bindings, err := client.ValidatingAdmissionPolicyBindings().List(ctx, selected)
	if err != nil {
		return fmt.Errorf("look for admission policies of a hub: %w", err)
	}
	for i := range bindings.Items {
		if name := bindings.Items[i].Name; !wanted[name] {
			err := client.ValidatingAdmissionPolicyBindings().Delete(ctx, name, metav1.DeleteOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("remove ValidatingAdmissionPolicyBinding %s: %w", name, err)
			}
		}
	}
	policies, err := client.ValidatingAdmissionPolicies().List(ctx, selected)
	if err != nil {
		return fmt.Errorf("look for admission policies of a hub: %w", err)
	}
	for i := range policies.Items {
		if name := policies.Items[i].Name; !wanted[name] {
			err := client.ValidatingAdmissionPolicies().Delete(ctx, name, metav1.DeleteOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("remove ValidatingAdmissionPolicy %s: %w", name, err)
			}
		}
	}
	return nil
}
