package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	clientv1 "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/fleetcast-io/fleetcast/pkg/api/crds"
	"github.com/fleetcast-io/fleetcast/pkg/api/v1alpha1"
)

// fieldManager signs what the hub installs.
const fieldManager = "fleetcast-hub"

var (
	// errMissing is wrapped when somebody has to install CRDs.
	errMissing = errors.New("CRDs are missing")
	// errNotEstablished is wrapped when the API server will serve a CRD soon.
	errNotEstablished = errors.New("not established yet")
)

// waitForCRDs returns true when the API server serves all CRDs of a hub, and
// false when ctx ended first. Fleetcast's own are installed here, which nobody
// else does, and the others if install is set. It tells each reason to wait once.
func waitForCRDs(ctx context.Context, cfg *rest.Config, install bool, h *health, log *slog.Logger) bool {
	told := ""
	for {
		err := ensureCRDs(ctx, cfg, install, log)
		h.set(checkCRDs, err)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if told != err.Error() {
			told = err.Error()
			log.Warn("the hub's API server is not ready for the hub, trying again", "err", err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(retryInterval):
		}
	}
}

// ensureCRDs succeeds when all CRDs of a hub are established.
func ensureCRDs(ctx context.Context, cfg *rest.Config, install bool, log *slog.Logger) error {
	// Each attempt has its own client: a kubeconfig's credentials may change.
	clients, err := apiextensions.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("prepare the client for CRDs: %w", err)
	}
	client := clients.ApiextensionsV1().CustomResourceDefinitions()
	var refused error
	for _, crd := range crds.Hub() {
		own := crd.Spec.Group == v1alpha1.GroupVersion.Group
		if !install && !own {
			continue
		}
		err := installCRD(ctx, client, crd)
		if own && !install && apierrors.IsForbidden(err) {
			refused = err // Somebody else may have installed it.
			continue
		}
		if err != nil {
			return err
		}
	}
	err = awaitCRDs(ctx, client)
	switch {
	case refused == nil:
	case errors.Is(err, errMissing):
		return fmt.Errorf("%w (%w)", err, refused)
	case err == nil:
		log.Info("the hub may not bring its own CRD up to date; apply the one of its version", "err", refused)
	}
	return err
}

// awaitCRDs looks for the CRDs until they are established, which an API server
// does within seconds of their creation, or says what is wrong.
func awaitCRDs(ctx context.Context, client clientv1.CustomResourceDefinitionInterface) error {
	const (
		patience = 20 * time.Second
		interval = 100 * time.Millisecond
	)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		err := lookUpCRDs(ctx, client)
		if !errors.Is(err, errNotEstablished) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// installCRD applies the CRD with server-side apply, which leaves alone what
// others added to it, such as a conversion webhook.
func installCRD(ctx context.Context, client clientv1.CustomResourceDefinitionInterface, crd *apiextensionsv1.CustomResourceDefinition) error {
	crd.TypeMeta = metav1.TypeMeta{APIVersion: apiextensionsv1.SchemeGroupVersion.String(), Kind: "CustomResourceDefinition"}
	body, err := applyBody(crd)
	if err != nil {
		return fmt.Errorf("install CRD %s: %w", crd.Name, err)
	}
	force := true
	_, err = client.Patch(ctx, crd.Name, types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: fieldManager, Force: &force})
	if err != nil {
		return fmt.Errorf("install CRD %s: %w", crd.Name, err)
	}
	return nil
}

// applyBody is an object without its status, which is not the hub's to claim.
func applyBody(o any) ([]byte, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	var fields map[string]any
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, err
	}
	delete(fields, "status")
	return json.Marshal(fields)
}

// lookUpCRDs says what is missing or not served yet.
func lookUpCRDs(ctx context.Context, client clientv1.CustomResourceDefinitionInterface) error {
	var missing []string
	for _, want := range crds.Hub() {
		have, err := client.Get(ctx, want.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			missing = append(missing, want.Name)
		case err != nil:
			return fmt.Errorf("look up CRD %s: %w", want.Name, err)
		case !established(have):
			return fmt.Errorf("CRD %s is %w", want.Name, errNotEstablished)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s; start the hub once with --install-crds or install them with its chart", errMissing, strings.Join(missing, ", "))
	}
	return nil
}

func established(crd *apiextensionsv1.CustomResourceDefinition) bool {
	for _, c := range crd.Status.Conditions {
		if c.Type == apiextensionsv1.Established {
			return c.Status == apiextensionsv1.ConditionTrue
		}
	}
	return false
}
