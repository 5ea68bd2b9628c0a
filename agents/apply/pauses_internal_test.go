package apply

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A scriptedServer answers with its next answer, and with 200 after the last.
type scriptedServer struct {
	answers []http.Response
	asked   int
}

func (s *scriptedServer) RoundTrip(*http.Request) (*http.Response, error) {
	s.asked++
	if len(s.answers) == 0 {
		return &http.Response{StatusCode: http.StatusOK}, nil
	}
	a := s.answers[0]
	s.answers = s.answers[1:]
	return &a, nil
}

func answerOf(code int, retryAfter string) http.Response {
	return http.Response{StatusCode: code, Header: http.Header{"Retry-After": {retryAfter}}}
}

func TestPausesLastAsLongAsTheServerAsks(t *testing.T) {
	const core, works, roles = "/api/v1/namespaces/a/configmaps/b", "/apis/work.open-cluster-management.io/v1/appliedmanifestworks", "/apis/rbac.authorization.k8s.io/v1/roles"
	for _, tt := range []struct {
		reason       string
		answers      []http.Response
		first, later string // Paths.
		want         time.Duration
	}{
		{"nothing is wrong", nil, core, core, 0},
		{"the server has too much to do", []http.Response{answerOf(429, "3")}, core, core, 3 * time.Second},
		{"another object of the group is meant", []http.Response{answerOf(429, "3")}, works, works + "/x/status", 3 * time.Second},
		{"another group may be served by somebody else", []http.Response{answerOf(503, "3")}, works, roles, 0},
		{"the core is a group like others", []http.Response{answerOf(429, "3")}, works, core, 0},
		{"it is going down", []http.Response{answerOf(503, "1")}, core, core, time.Second},
		{"it asks for more than anybody waits", []http.Response{answerOf(429, "86400")}, core, core, longestPause},
		{"the number does not fit a duration", []http.Response{answerOf(429, "9223372036854775807")}, core, core, longestPause},
		{"it asks for nothing", []http.Response{answerOf(429, "")}, core, core, 0},
		{"it asks for a date, which is not done in Kubernetes", []http.Response{answerOf(429, "Wed, 21 Oct 2015 07:28:00 GMT")}, core, core, 0},
		{"it asks for the past", []http.Response{answerOf(429, "-3")}, core, core, 0},
		{"an answer of other kinds asks for nothing", []http.Response{answerOf(404, "3")}, core, core, 0},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPauses(&scriptedServer{answers: tt.answers})
				if err := ask(t.Context(), t, p, tt.first); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				if err := ask(t.Context(), t, p, tt.later); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took != tt.want {
					t.Errorf("the next request was sent after %s, want %s", took, tt.want)
				}
			})
		})
	}
}

func TestPauseThatIsTooLongIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &scriptedServer{answers: []http.Response{answerOf(429, "20")}}
		p := newPauses(server)
		if err := ask(t.Context(), t, p, "/api/v1/nodes"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		err := ask(ctx, t, p, "/api/v1/nodes")
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "429 Too Many Requests") {
			t.Errorf("error %v does not say why", err)
		}
		if took := time.Since(began); took != 0 || server.asked != 1 {
			t.Errorf("it took %s and %d requests to say so", took, server.asked)
		}

		// client-go waits by itself, and comes back when the time is up.
		<-time.After(20 * time.Second)
		if err = ask(ctx, t, p, "/api/v1/nodes"); err == nil || !strings.Contains(err.Error(), "429 Too Many Requests") {
			t.Errorf("error %v after waiting does not say why", err)
		}
		if err := ask(t.Context(), t, p, "/api/v1/nodes"); err != nil {
			t.Fatal(err)
		}
		if _, kept := p.asked(""); kept {
			t.Error("the pause is remembered although a request got through")
		}
	})
}

func TestPauseEndsWithItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPauses(&scriptedServer{answers: []http.Response{answerOf(429, "20")}})
		if err := ask(t.Context(), t, p, "/api/v1/nodes"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := ask(ctx, t, p, "/api/v1/nodes"); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want that it was cancelled", err)
		}
	})
}

func ask(ctx context.Context, t *testing.T, p *pauses, path string) error {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.example"+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := p.RoundTrip(r)
	if err == nil && response.Body != nil {
		_ = response.Body.Close()
	}
	return err
}
