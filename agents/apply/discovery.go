package apply

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// A directory says which kinds the API server serves. client-go's own client for
// that knows the types of every API of Kubernetes, which are a fifth of a program
// that has no other use for them.
type directory struct {
	client  rest.Interface
	timeout time.Duration
}

func newDirectory(cfg *rest.Config, transport *http.Client, timeout time.Duration) (*directory, error) {
	known := runtime.NewScheme()
	metav1.AddToGroupVersion(known, schema.GroupVersion{Version: "v1"})
	cfg = rest.CopyConfig(cfg)
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(known).WithoutConversion()
	client, err := rest.UnversionedRESTClientForConfigAndClient(cfg, transport)
	if err != nil {
		return nil, err
	}
	return &directory{client, timeout}, nil
}

// kinds are what a group and version has. The error is that of the API server: it
// is not found if there is no such group and version.
func (d *directory) kinds(groupVersion string) (*metav1.APIResourceList, error) {
	gv, err := schema.ParseGroupVersion(groupVersion)
	if err != nil {
		return nil, err
	}
	path := []string{"apis", gv.Group, gv.Version}
	if gv.Group == "" {
		path = []string{"api", gv.Version}
	}
	list := &metav1.APIResourceList{}
	if err := d.get(list, path...); err != nil {
		return nil, err
	}
	return list, nil
}

// versions are those of a group, the server's favourite first.
func (d *directory) versions(group string) ([]string, error) {
	if group == "" {
		list := &metav1.APIVersions{}
		err := d.get(list, "api")
		return list.Versions, err
	}
	found := &metav1.APIGroup{}
	err := d.get(found, "apis", group)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	versions := []string{found.PreferredVersion.Version}
	for _, v := range found.Versions {
		if !slices.Contains(versions, v.Version) {
			versions = append(versions, v.Version)
		}
	}
	return versions, nil
}

func (d *directory) get(into runtime.Object, path ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), d.timeout)
	defer cancel()
	return d.client.Get().AbsPath(path...).Do(ctx).Into(into)
}

// reviews asks what others may do.
type reviews struct{ objects dynamic.Interface }

// Create implements executor.Reviews.
func (r reviews) Create(ctx context.Context, review *authorizationv1.SubjectAccessReview, o metav1.CreateOptions) (*authorizationv1.SubjectAccessReview, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(review)
	if err != nil {
		return nil, fmt.Errorf("write an access review: %w", err)
	}
	u := &unstructured.Unstructured{Object: content}
	u.SetGroupVersionKind(authorizationv1.SchemeGroupVersion.WithKind("SubjectAccessReview"))
	answer, err := r.objects.Resource(authorizationv1.SchemeGroupVersion.WithResource("subjectaccessreviews")).Create(ctx, u, o)
	if err != nil {
		return nil, err
	}
	out := &authorizationv1.SubjectAccessReview{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(answer.Object, out); err != nil {
		return nil, fmt.Errorf("read an access review: %w", err)
	}
	return out, nil
}
