package apply

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// longestPause bounds what the API server may ask for. Work that failed is tried
// again after a minute at the latest, so nobody is spared more by waiting longer.
const longestPause = time.Minute

// pauses keeps all requests for as long as the API server asks to (Retry-After
// of a 429 or 5xx). client-go does that for a request and its repetitions, and
// forgets it when it gives the request up; many works, each with requests of its
// own, would then go on as if nothing had been said.
//
// It counts per API group: another server may be behind each.
type pauses struct {
	next http.RoundTripper

	mu     sync.Mutex
	groups map[string]pause
}

// A pause is what was asked for last. It stays until a request gets through, so
// that one that ran out of time meanwhile can be told why.
type pause struct {
	until  time.Time
	answer string
}

func newPauses(next http.RoundTripper) *pauses {
	return &pauses{next: next, groups: make(map[string]pause)}
}

// RoundTrip implements http.RoundTripper.
func (p *pauses) RoundTrip(r *http.Request) (*http.Response, error) {
	group := groupOf(r.URL.Path)
	if err := p.wait(r.Context(), group); err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // As a RoundTripper has to.
		}
		return nil, err
	}
	response, err := p.next.RoundTrip(r)
	if err == nil {
		p.heed(group, response)
	}
	return response, err
}

// wait returns when requests of the group may be sent, or at once with an error
// if ctx ends before that.
func (p *pauses) wait(ctx context.Context, group string) error {
	for {
		asked, ok := p.asked(group)
		if !ok {
			return nil
		}
		late := fmt.Errorf("the API server answers %s and asks to wait: %w", asked.answer, context.DeadlineExceeded)
		left := time.Until(asked.until)
		deadline, ends := ctx.Deadline()
		switch {
		case ends && time.Until(deadline) <= max(0, left):
			return late
		case left <= 0:
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(left):
		}
	}
}

func (p *pauses) asked(group string) (pause, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked, ok := p.groups[group]
	return asked, ok
}

// heed takes down what an answer asks for.
func (p *pauses) heed(group string, response *http.Response) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if response.StatusCode != http.StatusTooManyRequests && response.StatusCode < http.StatusInternalServerError {
		delete(p.groups, group)
		return
	}
	// Kubernetes sends seconds; client-go knows no other form either.
	seconds, err := strconv.Atoi(response.Header.Get("Retry-After"))
	if err != nil || seconds <= 0 {
		return
	}
	until := time.Now().Add(time.Duration(min(seconds, int(longestPause/time.Second))) * time.Second)
	if until.After(p.groups[group].until) {
		p.groups[group] = pause{until, strconv.Itoa(response.StatusCode) + " " + http.StatusText(response.StatusCode)}
	}
}

// groupOf is the API group of a path, which is below /apis/ but for that of the
// core.
func groupOf(path string) string {
	_, rest, found := strings.Cut(path, "/apis/")
	if !found {
		return ""
	}
	group, _, _ := strings.Cut(rest, "/")
	return group
}
