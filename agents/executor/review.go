package executor

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/metadata"
)

// Options configure a Reviewer. The zero value works.
type Options struct {
	// Timeout is for each question to the API server. Default: 30 s.
	Timeout time.Duration
	// TTL is for how long a permission counts while roles and bindings are
	// watched. It bounds how long what other authorizers than RBAC take away
	// goes unnoticed. Default: 10 min.
	TTL time.Duration
	// ShortTTL is for how long an answer counts otherwise. Default: 30 s.
	ShortTTL time.Duration
	// Settle is for how long after a change of rights answers count as if
	// nothing was watched: the API server judges by a copy that may be older
	// than the change. Default: 10 s.
	Settle time.Duration
	// Answers bounds how many are remembered; the least recently used ones go
	// first. Default: 16384, some 5 MB.
	Answers int
	// Changed is called when rights may have changed. It must not block.
	Changed func()
	// Log gets what an operator acts on. Default: slog.Default().
	Log *slog.Logger
	// Registerer gets the metrics. Default: none are registered.
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() Options {
	o.Timeout = cmp.Or(o.Timeout, 30*time.Second)
	o.TTL = cmp.Or(o.TTL, 10*time.Minute)
	o.ShortTTL = cmp.Or(o.ShortTTL, 30*time.Second)
	o.Settle = cmp.Or(o.Settle, 10*time.Second)
	o.Answers = cmp.Or(o.Answers, 16384)
	o.Log = cmp.Or(o.Log, slog.Default())
	if o.Changed == nil {
		o.Changed = func() {}
	}
	return o
}

// Reviews asks the API server; client-go's SubjectAccessReviewInterface is one.
// It may be called concurrently.
type Reviews interface {
	Create(ctx context.Context, review *authorizationv1.SubjectAccessReview, o metav1.CreateOptions) (*authorizationv1.SubjectAccessReview, error)
}

// A Reviewer says what service accounts may do, and remembers it.
type Reviewer struct {
	options Options
	reviews Reviews
	answers *answers
	watch   *watch
	metrics metrics

	first sync.Once
	asked chan struct{} // Closed at the first question.
}

// NewReviewer returns a Reviewer that asks and watches with the rights of its
// clients. It makes no request.
func NewReviewer(reviews Reviews, objects metadata.Interface, o Options) (*Reviewer, error) {
	o = o.withDefaults()
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register the executor's metrics: %w", err)
	}
	known := newAnswers(o)
	return &Reviewer{
		options: o, reviews: reviews, metrics: m, answers: known, asked: make(chan struct{}),
		watch: &watch{answers: known, client: objects, timeout: o.Timeout, log: o.Log, changed: o.Changed},
	}, nil
}

// Run watches roles and bindings until ctx ends, from the first question on: an
// agent whose works have no executors watches nothing. Where the agent may not
// watch, answers count for Options.ShortTTL. Call it once.
func (r *Reviewer) Run(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-r.asked:
		r.watch.run(ctx)
	}
}

// Check returns nil if who may do all of verbs to what, and a *DeniedError if not. It
// blocks for as long as the API server takes to answer.
func (r *Reviewer) Check(ctx context.Context, who Subject, what Object, verbs ...string) error {
	r.first.Do(func() { close(r.asked) })
	var denied []string
	for _, verb := range verbs {
		ok, err := r.allowed(ctx, question{who, what, verb})
		if err != nil {
			return fmt.Errorf("ask whether executor %s may %s %s: %w", who, verb, what, err)
		}
		if !ok {
			denied = append(denied, verb)
		}
	}
	if len(denied) > 0 {
		return &DeniedError{Subject: who, Object: what, Verbs: denied}
	}
	return nil
}

// Forget drops what is remembered of who and what, for the API server has judged
// otherwise.
func (r *Reviewer) Forget(who Subject, what Object) {
	r.answers.forget(scope{who, what.Namespace, what.GroupResource})
}

// allowed asks first about all objects of the resource in the namespace, which
// is what an empty name means in a review: most roles name none, and one answer
// is then good for all of them.
func (r *Reviewer) allowed(ctx context.Context, narrow question) (bool, error) {
	wide := narrow
	wide.what.Name = ""
	for _, q := range []question{wide, narrow} {
		ok, err := r.answer(ctx, q)
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (r *Reviewer) answer(ctx context.Context, q question) (bool, error) {
	if allowed, known := r.answers.get(q); known {
		return allowed, nil
	}
	era := r.answers.now()
	ctx, cancel := context.WithTimeout(ctx, r.options.Timeout)
	defer cancel()
	review, err := r.reviews.Create(ctx, q.review(), metav1.CreateOptions{})
	if err != nil {
		r.metrics.count("error")
		return false, err
	}
	if review.Status.Allowed {
		r.metrics.count("allowed")
	} else {
		r.metrics.count("denied")
	}
	r.answers.put(q, review.Status.Allowed, era)
	return review.Status.Allowed, nil
}

func (q question) review() *authorizationv1.SubjectAccessReview {
	return &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: q.who.User(), Groups: q.who.Groups(),
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Group: q.what.Group, Resource: q.what.Resource, Namespace: q.what.Namespace, Name: q.what.Name, Verb: q.verb,
		},
	}}
}
