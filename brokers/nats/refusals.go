package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	natsgo "github.com/nats-io/nats.go"

	"github.com/fleetcast-io/fleetcast/brokers"
)

// refusals tells publishers that the server does not let them. It says so in a
// message of its own that names the subject, and never answers the request.
// The zero value is ready to use.
type refusals struct {
	mu      sync.Mutex
	waiting map[string]map[chan error]struct{}
}

// watch returns a channel that gets an error if publishing to subject is
// refused before stop is called.
func (r *refusals) watch(subject string) (refused <-chan error, stop func()) {
	c := make(chan error, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == nil {
		r.waiting = make(map[string]map[chan error]struct{})
	}
	if r.waiting[subject] == nil {
		r.waiting[subject] = make(map[chan error]struct{}, 1)
	}
	r.waiting[subject][c] = struct{}{}
	return c, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.waiting[subject], c)
		if len(r.waiting[subject]) == 0 {
			delete(r.waiting, subject)
		}
	}
}

// guard returns a context that ends when a request to subject is refused.
func (r *refusals) guard(ctx context.Context, subject string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	refused, stop := r.watch(subject)
	done := make(chan struct{})
	go func() {
		select {
		case err := <-refused:
			cancel(err)
		case <-done:
		}
	}()
	return ctx, func() {
		stop()
		close(done)
		cancel(nil)
	}
}

// report hands a violation to whoever published to its subject, and says
// whether there was anybody.
func (r *refusals) report(err error) bool {
	subject, ok := violated(err)
	if !ok {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.waiting[subject] {
		select {
		case c <- refusedError(subject):
		default:
		}
	}
	return len(r.waiting[subject]) > 0
}

func refusedError(subject string) error {
	return fmt.Errorf("%w: this user may not publish to %s", brokers.ErrRefused, subject)
}

// violated returns the subject of a publish that the server did not permit.
// Tokens hold nothing that the server would have to escape in its message.
func violated(err error) (string, bool) {
	if !errors.Is(err, natsgo.ErrPermissionViolation) {
		return "", false
	}
	_, quoted, ok := strings.Cut(err.Error(), `Publish to "`)
	if !ok {
		return "", false
	}
	subject, _, ok := strings.Cut(quoted, `"`)
	return subject, ok
}
