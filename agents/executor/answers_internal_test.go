package executor

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A server answers reviews as a function says, and counts them.
type server struct {
	asked  int
	answer func(authorizationv1.ResourceAttributes) (bool, error)
}

func (s *server) Create(_ context.Context, review *authorizationv1.SubjectAccessReview, _ metav1.CreateOptions) (*authorizationv1.SubjectAccessReview, error) {
	s.asked++
	ok, err := s.answer(*review.Spec.ResourceAttributes)
	if err != nil {
		return nil, err
	}
	review.Status.Allowed = ok
	return review, nil
}

func always(ok bool) func(authorizationv1.ResourceAttributes) (bool, error) {
	return func(authorizationv1.ResourceAttributes) (bool, error) { return ok, nil }
}

func newTestReviewer(t *testing.T, s *server, o Options) *Reviewer {
	t.Helper()
	r, err := NewReviewer(s, nil, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var team = Subject{"team-a", "deployer"}

func object(namespace, name string) Object {
	return Object{schema.GroupResource{Resource: "configmaps"}, namespace, name}
}

// TestWideAnswers counts questions about several objects.
func TestWideAnswers(t *testing.T) {
	for _, tc := range []struct {
		reason string
		answer func(authorizationv1.ResourceAttributes) (bool, error)
		want   int
		denied bool
	}{
		{"a right to all objects is asked for once per verb", always(true), 2, false},
		{"a right to named objects is asked for once per verb and object, and once for all", func(a authorizationv1.ResourceAttributes) (bool, error) { return a.Name != "", nil }, 2 * (1 + 3), false},
		{"no right is asked for like one to named objects", always(false), 2 * (1 + 3), true},
	} {
		s := &server{answer: tc.answer}
		r := newTestReviewer(t, s, Options{})
		for range 2 {
			for _, name := range []string{"a", "b", "c"} {
				err := r.Check(t.Context(), team, object("team-a", name), "get", "patch")
				if _, denied := errors.AsType[*DeniedError](err); denied != tc.denied || (err != nil && !denied) {
					t.Errorf("%s: Check: %v", tc.reason, err)
				}
			}
		}
		if s.asked != tc.want {
			t.Errorf("%s: %d questions, want %d", tc.reason, s.asked, tc.want)
		}
	}
}

// TestAnswersEnd says after how long an answer is asked for again.
func TestAnswersEnd(t *testing.T) {
	for _, tc := range []struct {
		reason  string
		allowed bool
		watched bool
		after   time.Duration // Between the last change of rights and the question.
		kept    time.Duration
	}{
		{"a permission that nothing watches over", true, false, time.Hour, 30 * time.Second},
		{"a permission while roles are watched", true, true, time.Hour, 10 * time.Minute},
		{"a permission just after a change, by an authorizer that may not know it", true, true, 9 * time.Second, 30 * time.Second},
		{"a permission when that is over", true, true, 10 * time.Second, 10 * time.Minute},
		{"a denial, which may be another authorizer's than RBAC", false, true, time.Hour, 30 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &server{answer: func(a authorizationv1.ResourceAttributes) (bool, error) { return tc.allowed && a.Name == "", nil }}
			r := newTestReviewer(t, s, Options{})
			r.answers.watch(tc.watched)
			<-time.After(tc.after)
			check := func() { _ = r.Check(t.Context(), team, object("a", ""), "get") }
			check()
			first := s.asked
			<-time.After(tc.kept - time.Millisecond)
			check()
			if s.asked != first {
				t.Errorf("%s: asked again within %s", tc.reason, tc.kept)
			}
			<-time.After(2 * time.Millisecond)
			check()
			if s.asked == first {
				t.Errorf("%s: still not asked again after %s", tc.reason, tc.kept)
			}
		})
	}
}

// TestChangeDuringQuestion has rights change while the API server thinks: its
// answer may be of the time before, and is not kept.
func TestChangeDuringQuestion(t *testing.T) {
	s := &server{}
	r := newTestReviewer(t, s, Options{})
	s.answer = func(authorizationv1.ResourceAttributes) (bool, error) {
		if s.asked == 1 {
			r.watchOf("team-b") // Elsewhere: it is not worth to be told apart.
		}
		return true, nil
	}
	for range 3 {
		if err := r.Check(t.Context(), team, object("team-a", "a"), "get"); err != nil {
			t.Fatal(err)
		}
	}
	if s.asked != 2 {
		t.Errorf("%d questions, want 2: the first answer is not kept, the second is", s.asked)
	}
}

// watchOf has the watch report a role in the namespace.
func (r *Reviewer) watchOf(namespace string) { r.watch.forget(namespace) }

func TestForget(t *testing.T) {
	for _, tc := range []struct {
		reason string
		forget func(*Reviewer)
		want   int
	}{
		{"a role in the namespace", func(r *Reviewer) { r.watchOf("team-a") }, 1},
		{"a role in another namespace", func(r *Reviewer) { r.watchOf("team-b") }, 0},
		{"a role of the cluster", func(r *Reviewer) { r.watchOf("") }, 1},
		{"the API server refused the very object", func(r *Reviewer) { r.Forget(team, object("team-a", "a")) }, 1},
		{"it refused another of the same resource: the answer was for all", func(r *Reviewer) { r.Forget(team, object("team-a", "b")) }, 1},
		{"it refused somebody else", func(r *Reviewer) { r.Forget(Subject{"team-a", "other"}, object("team-a", "a")) }, 0},
		{"the watch breaks", func(r *Reviewer) { r.answers.watch(false) }, 1},
		{"the watch goes on", func(r *Reviewer) { r.answers.watch(true) }, 0},
	} {
		s := &server{answer: always(true)}
		r := newTestReviewer(t, s, Options{})
		r.answers.watch(true)
		for range 2 {
			if err := r.Check(t.Context(), team, object("team-a", "a"), "get"); err != nil {
				t.Fatal(err)
			}
			if s.asked == 1 {
				tc.forget(r)
			}
		}
		if got := s.asked - 1; got != tc.want {
			t.Errorf("%s: asked %d times more, want %d", tc.reason, got, tc.want)
		}
	}
}

// TestChangeBearsOnItsScope keeps answers long that a change elsewhere has nothing
// to do with.
func TestChangeBearsOnItsScope(t *testing.T) {
	other := Subject{"team-a", "other"}
	for _, tc := range []struct {
		reason string
		forget func(*Reviewer)
		kept   bool
	}{
		{"a role in the namespace", func(r *Reviewer) { r.watchOf("team-a") }, false},
		{"a role of the cluster", func(r *Reviewer) { r.watchOf("") }, false},
		{"it refused the same to the same", func(r *Reviewer) { r.Forget(team, object("team-a", "a")) }, false},
		{"a role in another namespace", func(r *Reviewer) { r.watchOf("team-b") }, true},
		{"it refused somebody else", func(r *Reviewer) { r.Forget(other, object("team-a", "a")) }, true},
		{"it refused the same elsewhere", func(r *Reviewer) { r.Forget(team, object("team-b", "a")) }, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &server{answer: always(true)}
			r := newTestReviewer(t, s, Options{})
			r.answers.watch(true)
			<-time.After(time.Hour)
			tc.forget(r)
			for range 2 {
				if err := r.Check(t.Context(), team, object("team-a", "a"), "get"); err != nil {
					t.Fatal(err)
				}
				<-time.After(time.Minute)
			}
			if kept := s.asked == 1; kept != tc.kept {
				t.Errorf("%s: the answer is kept for a minute: %v, want %v", tc.reason, kept, tc.kept)
			}
		})
	}
}

func TestNoAnswerIsNoPermission(t *testing.T) {
	down := errors.New("no route to host")
	s := &server{answer: func(authorizationv1.ResourceAttributes) (bool, error) { return false, down }}
	r := newTestReviewer(t, s, Options{})
	for range 2 {
		err := r.Check(t.Context(), team, object("team-a", "a"), "get")
		if _, denied := errors.AsType[*DeniedError](err); denied || !errors.Is(err, down) {
			t.Errorf("Check: %v, want an error that is no denial", err)
		}
	}
	if s.asked != 2 {
		t.Errorf("%d questions, want 2: an error is not remembered", s.asked)
	}
	s.answer = always(true)
	if err := r.Check(t.Context(), team, object("team-a", "a"), "get"); err != nil {
		t.Errorf("Check when the API server is back: %v", err)
	}
}

// TestAnswersAreBounded asks more than can be remembered.
func TestAnswersAreBounded(t *testing.T) {
	const most = 100
	s := &server{answer: always(true)}
	r := newTestReviewer(t, s, Options{Answers: most})
	for i := range 10 * most {
		if err := r.Check(t.Context(), team, object(fmt.Sprintf("n-%d", i), "a"), "get"); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(r.answers.known.Keys()); got > most {
		t.Errorf("%d answers are remembered, want at most %d", got, most)
	}
}

// TestSources has the answers count as watched only while all sources speak.
func TestSources(t *testing.T) {
	r := newTestReviewer(t, &server{answer: always(true)}, Options{})
	for i := range sources {
		if r.answers.watched {
			t.Fatalf("watched with %d of %d sources", i, len(sources))
		}
		r.watch.sync(i, true)
	}
	if !r.answers.watched {
		t.Error("not watched with all sources")
	}
	r.watch.sync(1, false)
	if r.answers.watched {
		t.Error("still watched without one of the sources")
	}
}

// TestNothingToWatch has no client to watch with: an agent without executors
// leaves the API server alone.
func TestNothingToWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTestReviewer(t, &server{answer: always(true)}, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.Run(ctx) }()
		synctest.Wait()
		select {
		case <-done:
			t.Error("Run ended before its context")
		default:
		}
		cancel()
		<-done
	})
}
