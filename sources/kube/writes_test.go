package kube_test

import (
	"net/http"
	"strings"
	"sync"
)

// writes counts what a hub writes, by the resource and its subresource.
type writes struct {
	mu    sync.Mutex
	count map[string]int
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
				w.mu.Unlock()
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
