package executor

import (
	"context"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
)

// A Client does what it does as one service account.
type Client struct {
	Objects  dynamic.Interface
	Metadata metadata.Interface
}

// Clients makes and keeps a Client per service account. They share one
// connection, and what is wrapped around it.
type Clients struct {
	config *rest.Config
	shared *http.Client
	kept   *cache.LRUExpireCache
}

// NewClients returns Clients on a connection. Both arguments are as for
// dynamic.NewForConfigAndClient. No more than most clients are kept, those that
// were used last; one that is not kept is made anew, without a request.
func NewClients(cfg *rest.Config, shared *http.Client, most int) *Clients {
	return &Clients{config: rest.CopyConfig(cfg), shared: shared, kept: cache.NewLRUExpireCache(most)}
}

// As returns the client of a service account. It makes no request: that the
// agent may not impersonate it shows at the first.
func (c *Clients) As(who Subject) (Client, error) {
	if kept, ok := c.kept.Get(who); ok {
		if client, ok := kept.(Client); ok {
			return client, nil
		}
	}
	as := *c.shared
	// Groups are left to the API server, which knows those of a service account:
	// to name them would take a right to impersonate groups.
	as.Transport = transport.NewImpersonatingRoundTripper(transport.ImpersonationConfig{UserName: who.User()}, base(c.shared))
	objects, err := dynamic.NewForConfigAndClient(c.config, &as)
	if err != nil {
		return Client{}, fmt.Errorf("set up the object client of executor %s: %w", who, err)
	}
	metadataClient, err := metadata.NewForConfigAndClient(c.config, &as)
	if err != nil {
		return Client{}, fmt.Errorf("set up the metadata client of executor %s: %w", who, err)
	}
	client := Client{objects, metadataClient}
	const unused = time.Hour
	c.kept.Add(who, client, unused)
	return client, nil
}

func base(c *http.Client) http.RoundTripper {
	if c.Transport == nil {
		return http.DefaultTransport
	}
	return c.Transport
}

// GrantsRights says whether objects of the resource hold rights, so that who
// writes one may gain by it.
func GrantsRights(r schema.GroupResource) bool {
	for _, source := range sources {
		if r == source.GroupResource() {
			return true
		}
	}
	return false
}

// CheckEscalation asks the API server to create a role or a binding as who,
// without effect, and returns a *DeniedError if it would give away rights that who
// does not have. It needs the right to impersonate who.
//
// That is judged before the API server looks whether there is one of the name,
// so that it holds for one that is to be changed as well.
func (c *Clients) CheckEscalation(ctx context.Context, who Subject, r schema.GroupVersionResource, u *unstructured.Unstructured) error {
	client, err := c.As(who)
	if err != nil {
		return err
	}
	var api dynamic.ResourceInterface = client.Objects.Resource(r)
	if u.GetNamespace() != "" {
		api = client.Objects.Resource(r).Namespace(u.GetNamespace())
	}
	_, err = api.Create(ctx, u, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case err == nil || apierrors.IsAlreadyExists(err):
		return nil
	case apierrors.IsForbidden(err):
		what := Object{GroupResource: r.GroupResource(), Namespace: u.GetNamespace(), Name: u.GetName()}
		return &DeniedError{Subject: who, Object: what, Reason: err.Error()}
	default:
		return fmt.Errorf("try %s %s as executor %s: %w", r.GroupResource(), u.GetName(), who, err)
	}
}
