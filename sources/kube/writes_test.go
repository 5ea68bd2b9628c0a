package kube_test

import (
	"errors"
	"net/http"
	"strings"
	"sync"
)

// writes counts what a hub writes, by the resource and its subresource.
type writes struct {
	mu    sync.Mutex
	count map[string]int
	// refused is what is refused, and heard of each.
	refused string
	heard   chan struct{}
}

// refuse has the API server fail writes of a resource from now on, "" for none,
// and tell of each.
func (w *writes) refuse(resource string) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused, w.heard = resource, make(chan struct{}, 100)
	return w.heard
}

func (w *writes) watch(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		for _, resource := range []string{"/agents", "/manifestworks"} {
			if _, path, ok := strings.Cut(r.URL.Path, resource); ok && r.Method != http.MethodGet {
				w.mu.Lock()
				if w.count == nil {
					w.count = map[string]int{}
				}
				what := strings.TrimPrefix(resource, "/")
				if strings.HasSuffix(path, "/status") {
					what += "/status"
				}
				w.count[what]++
				refused, heard := w.refused == what, w.heard
				w.mu.Unlock()
				if refused {
					select {
					case heard <- struct{}{}:
					default:
					}
					return nil, errors.New("the API server is away")
				}
			}
		}
		return next.RoundTrip(r)
	})
}

// of counts the writes of a resource.
func (w *writes) of(resource string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count[resource]
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
