package apply

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/executor"
)

// executorAnnotation on an AppliedManifestWork says whose rights its objects are
// written and deleted with: "namespace/name" of a service account, nothing for
// the agent's own. A deletion does not say it. Of a work that is deleted, who
// administers the cluster may put another one there.
const executorAnnotation = "work.fleetcast.io/executor"

const (
	// deniedRetry is after how long a work is tried again whose executor lacks
	// rights, as in OCM.
	deniedRetry = time.Minute
	// changedRetry is the same once rights have changed. The API server itself
	// needs a moment to heed the change.
	changedRetry = 5 * time.Second
	// mostExecutors is how many clients of executors are kept.
	mostExecutors = 256
)

// errExecutor marks what the API server refuses to an executor.
var errExecutor = errors.New("its executor lacks the right")

// Executors say whose rights works have.
type Executors struct {
	// CheckOnly has the agent act with its own rights once it has asked whether
	// the executor may do the same, as OCM's agent does. Objects are then deleted
	// with the agent's rights. Default: the agent acts as the executor.
	CheckOnly bool
	// Required refuses works without an executor, unless there is a Default.
	Required bool
	// Default is the executor of works that name none. Default: the agent's own
	// rights.
	Default executor.Subject
}

// rights knows what works may do.
type rights struct {
	Executors
	reviewer *executor.Reviewer
	clients  *executor.Clients
	own      *client
	bell     *bell
	recheck  time.Duration

	mu    sync.Mutex
	works map[workKey]turn
}

// A turn is when a work with an executor is to be looked at for what its
// executor may do then.
type turn struct {
	at     time.Time
	denied bool
}

func newRights(o Options, own *client, ring *bell) (*rights, error) {
	r := &rights{
		Executors: o.Executors, clients: own.executors, own: own,
		bell: ring, recheck: o.Recheck, works: make(map[workKey]turn),
	}
	var err error
	r.reviewer, err = executor.NewReviewer(own.reviews, own.metadata, executor.Options{
		Timeout: o.Timeout, Changed: r.changed, Log: o.Log, Registerer: o.Registerer,
	})
	return r, err
}

// run has works looked at when it is their turn, until ctx ends.
func (r *rights) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { r.reviewer.Run(ctx) })
	defer wg.Wait()
	tick := time.NewTicker(r.bell.interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			r.bell.ring(r.due(now)...)
		}
	}
}

func (r *rights) due(now time.Time) []workKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	var keys []workKey
	for key, t := range r.works {
		if !now.Before(t.at) {
			keys = append(keys, key)
			delete(r.works, key) // The look at it says when the next one is.
		}
	}
	return keys
}

// looked takes down that the work was held against the rights of its executor.
func (r *rights) looked(key workKey, denied bool) {
	const spread = 0.5
	after := wait.Jitter(r.recheck, spread)
	if denied {
		after = deniedRetry
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.works[key] = turn{time.Now().Add(after), denied}
}

func (r *rights) forget(key workKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.works, key)
}

// changed gives works that were denied something their turn soon.
func (r *rights) changed() {
	soon := time.Now().Add(changedRetry)
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, t := range r.works {
		if t.denied && t.at.After(soon) {
			r.works[key] = turn{soon, true}
		}
	}
}

// executorOf returns whose rights a work has, nobody for the agent's own.
func (r *rights) executorOf(spec *workv1.ManifestWorkSpec) (executor.Subject, error) {
	if spec.Executor == nil {
		if r.Required && r.Default.IsZero() {
			return executor.Subject{}, errors.New("the work names no executor, and the agent of this cluster applies none without: " +
				"set spec.executor.subject to a service account of the cluster")
		}
		return r.Default, nil
	}
	subject := spec.Executor.Subject
	if subject.Type != workv1.ExecutorSubjectTypeServiceAccount {
		return executor.Subject{}, fmt.Errorf("spec.executor.subject.type %.64q is not known, only %s is", string(subject.Type), workv1.ExecutorSubjectTypeServiceAccount)
	}
	if subject.ServiceAccount == nil {
		return executor.Subject{}, errors.New("spec.executor.subject.serviceAccount is missing")
	}
	who, err := executor.NewSubject(subject.ServiceAccount.Namespace, subject.ServiceAccount.Name)
	if err != nil {
		return who, fmt.Errorf("spec.executor.subject: %w", err)
	}
	return who, nil
}

// client returns what acts with the rights of who.
func (r *rights) client(who executor.Subject) (*client, error) {
	if who.IsZero() || r.CheckOnly {
		return r.own, nil
	}
	as, err := r.clients.As(who)
	if err != nil {
		return nil, err
	}
	acting := *r.own
	acting.objects, acting.metadata, acting.own = as.Objects, as.Metadata, r.own
	return &acting, nil
}

// clientOf returns what acts with the rights that an AppliedManifestWork has.
func (r *rights) clientOf(live *workv1.AppliedManifestWork) (*client, error) {
	name := live.Annotations[executorAnnotation]
	if name == "" {
		return r.own, nil
	}
	who, err := executor.ParseSubject(name)
	if err != nil {
		return nil, fmt.Errorf("annotation %s: %w", executorAnnotation, err)
	}
	return r.client(who)
}

// explain says what to do about objects that an executor may not remove.
func (r *rights) explain(live *workv1.AppliedManifestWork, err error) error {
	if !errors.Is(err, errExecutor) {
		return err
	}
	return fmt.Errorf("executor %s lacks rights; give them back, remove the objects, or name another executor in annotation %s of AppliedManifestWork %s: %w",
		live.Annotations[executorAnnotation], executorAnnotation, live.Name, err)
}

// verbsFor are what an executor has to be allowed for a manifest: what OCM asks
// for, except that nothing is written for ReadOnly.
func verbsFor(o option) []string {
	switch {
	case o.strategy == workv1.UpdateStrategyTypeReadOnly:
		return []string{"get"}
	case o.owned:
		return []string{"get", "create", "update", "patch", "delete"}
	default:
		return []string{"get", "create", "update", "patch"}
	}
}

func objectOf(m *manifest) executor.Object {
	return executor.Object{GroupResource: m.resource.GroupResource(), Namespace: m.meta.Namespace, Name: m.meta.Name}
}

// review refuses the manifests that the work's executor may not apply. Its error
// says that this could not be found out.
func (r *rights) review(ctx context.Context, p *pass) error {
	if p.executor.IsZero() {
		r.forget(p.key)
		return nil
	}
	denied := false
	for _, m := range p.manifests {
		if m.outcome.action != none {
			continue
		}
		err := r.reviewer.Check(ctx, p.executor, objectOf(m), verbsFor(m.option)...)
		if _, no := errors.AsType[*executor.DeniedError](err); no {
			m.outcome, denied = refused(err), true
		} else if err != nil {
			return err
		}
	}
	r.looked(p.key, denied)
	return nil
}

// mayRead says whether the work's executor may get the object of a manifest. An
// agent that only asks would else tell the work what it may not know.
func (r *rights) mayRead(ctx context.Context, p *pass, m *manifest) (bool, error) {
	if p.executor.IsZero() {
		return true, nil
	}
	err := r.reviewer.Check(ctx, p.executor, objectOf(m), "get")
	if _, no := errors.AsType[*executor.DeniedError](err); no {
		return false, nil
	}
	return err == nil, err
}

// mayReplace refuses to delete the object of a manifest with the agent's rights
// for an executor that may not.
func (r *rights) mayReplace(ctx context.Context, p *pass, m *manifest) error {
	if p.executor.IsZero() || !r.CheckOnly {
		return nil
	}
	err := r.reviewer.Check(ctx, p.executor, objectOf(m), "delete")
	if _, no := errors.AsType[*executor.DeniedError](err); no {
		r.looked(p.key, true)
	}
	return err
}

// listed are those of the wanted entries that get into the inventory. What the
// executor was denied from the start does not: the work has nothing of it that
// a deletion would have to wait for.
func (p *pass) listed(wanted []entry) []entry {
	denied := make(map[objectID]bool)
	for _, m := range p.manifests {
		if _, no := errors.AsType[*executor.DeniedError](m.outcome.err); no {
			denied[m.id()] = true
		}
	}
	return without(wanted, denied)
}

// escalation refuses a role or a binding with more rights than the executor has.
// An agent that acts as the executor leaves that to the API server. ok says that
// the manifest may be applied.
func (r *rights) escalation(ctx context.Context, p *pass, m *manifest) (o outcome, ok bool) {
	if p.executor.IsZero() || !r.CheckOnly || m.option.strategy == workv1.UpdateStrategyTypeReadOnly ||
		!executor.GrantsRights(m.resource.GroupResource()) {
		return outcome{}, true
	}
	ctx, cancel := r.own.limit(ctx)
	defer cancel()
	err := r.clients.CheckEscalation(ctx, p.executor, m.resource.GroupVersionResource, m.object.DeepCopy())
	if err == nil {
		return outcome{}, true
	}
	if _, no := errors.AsType[*executor.DeniedError](err); no {
		r.looked(p.key, true)
		return refused(errors.New(clip(err.Error()))), false
	}
	return failure(m.gvk(), err), false
}

// judge takes a refusal of the API server, which came after the executor's rights
// were reviewed, for what it is.
func (r *rights) judge(p *pass, m *manifest, o outcome) outcome {
	if p.executor.IsZero() || r.CheckOnly || !lacksRight(o.err) {
		return o
	}
	r.reviewer.Forget(p.executor, objectOf(m))
	r.looked(p.key, true)
	text := "not allowed to apply the resource " + objectOf(m).String() + ": " + o.err.Error()
	if mayNotImpersonate(o.err) {
		text = fmt.Sprintf("the agent may not act as executor %s: give its service account the verb impersonate on that service account; %s", p.executor, text)
	}
	o.action, o.err = rejected, &description{text: clip(text), cause: o.err}
	return o
}

// lacksRight tells the refusal of a right from what admission forbids to anybody:
// a quota, a policy, a namespace that ends. Only the text says that.
func lacksRight(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsForbidden(err) || !errors.As(err, &status) {
		return false
	}
	_, said, ok := strings.Cut(status.Status().Message, "forbidden: ")
	return ok && (notAuthorized.MatchString(said) || attemptsToGrant.MatchString(said))
}

// How the API server begins to say that somebody lacks a right, and RBAC that he
// may not give away what he does not have.
var (
	notAuthorized   = regexp.MustCompile(`^User "[^"]*" cannot `)
	attemptsToGrant = regexp.MustCompile(`^user "[^"]*" \(groups=.*\) is attempting to grant RBAC permissions not currently held`)
)

// mayNotImpersonate tells the refusal to act as somebody from that to do what he
// may not do. Only the text of the first says that.
func mayNotImpersonate(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && strings.Contains(status.Status().Message, "cannot impersonate")
}

// sight is find for an object that is to be removed. Where an executor has lost
// even the right to look, the agent looks itself, at metadata only: what is gone,
// with its namespace for instance, or is not the work's any more, needs nobody's
// rights. It lists instead of reading, for that takes no more rights than to watch.
func (c *client) sight(ctx context.Context, e entry) (entry, *metav1.PartialObjectMetadata, error) {
	found, live, err := c.find(ctx, e)
	if c.own == nil || !apierrors.IsForbidden(err) {
		return found, live, err
	}
	seen, live, ownErr := c.own.pick(ctx, e)
	if typeMissing(ownErr) {
		if e.Version, ownErr = c.servedVersion(e); ownErr != nil {
			return e, nil, ownErr
		}
		if e.Version == "" {
			return e, nil, nil
		}
		seen, live, ownErr = c.own.pick(ctx, e)
	}
	if ownErr != nil {
		return e, nil, asExecutor(c, err) // That is the one to cure.
	}
	return seen, live, nil
}

// pick finds the metadata of one object in a list, nil if it is not there.
func (c *client) pick(ctx context.Context, e entry) (entry, *metav1.PartialObjectMetadata, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	list, err := c.metadataOf(e).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, e.Name).String(),
	})
	if err != nil {
		return e, nil, err
	}
	for i := range list.Items {
		if list.Items[i].Name == e.Name {
			return e, &list.Items[i], nil
		}
	}
	return e, nil, nil
}

// asExecutor marks a refusal as one that c's executor got.
func asExecutor(c *client, err error) error {
	if c.own == nil || !apierrors.IsForbidden(err) {
		return err
	}
	return fmt.Errorf("%w: %w", errExecutor, err)
}
