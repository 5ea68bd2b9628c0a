package sources_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/sources"
)

func ask(t *testing.T, f *fakeTransport, cluster string, versions ...codec.Version) *settlement {
	t.Helper()
	q := codec.SpecResync{Agent: cluster + "-agent", Cluster: cluster, Versions: versions}
	return f.deliver(t, toSource(cluster), encode(t, q, codec.ResyncRequest))
}

func TestAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		held   []codec.Bundle
		listed []codec.Version
		want   []string
	}{
		"everything": {
			reason: "an agent without state gets all, and the question for its statuses",
			held:   []codec.Bundle{bundle("c1", "a", 1), deletion("c1", "b", 4)},
			want:   []string{"c1 status? 2", "c1/a@1 resync_response", "c1/b@4 resync_response"},
		},
		"what is missing": {
			reason: "only what is newer",
			held:   []codec.Bundle{bundle("c1", "a", 3), bundle("c1", "b", 4)},
			listed: []codec.Version{{ID: "a", Generation: 3}, {ID: "b", Generation: 3}},
			want:   []string{"c1 status? 2", "c1/b@4 resync_response"},
		},
		"nothing held": {
			reason: "an unknown work is never answered with a deletion, nor is an empty question sent",
			listed: []codec.Version{{ID: "other", Generation: 3}},
		},
		"other clusters": {
			reason: "a cluster's question concerns its own works",
			held:   []codec.Bundle{bundle("c2", "a", 3)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, f := newSource(), &fakeTransport{}
				run(t, src, f, sources.Options{})
				f.ready() // Compares with nobody: nothing is held yet.
				for _, b := range tc.held {
					src.put(b)
				}
				got := ask(t, f, "c1", tc.listed...)
				if diff := cmp.Diff(tc.want, f.take()); diff != "" {
					t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
				}
				if got.String() != "acknowledged" {
					t.Errorf("the question is %s, want acknowledged", got)
				}
			})
		})
	}
}

// TestAnswerIsOwedUntilLoaded: a half-filled source would make works look gone.
func TestAnswerIsOwedUntilLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(), &fakeTransport{}
		run(t, src, f, sources.Options{})
		f.ready()
		src.put(bundle("c1", "a", 1))
		src.fail(fmt.Errorf("list: %w", sources.ErrNotLoaded))
		got := ask(t, f, "c1")
		pass(time.Minute)
		if published := f.take(); published != nil || got.String() != "open" {
			t.Errorf("published %v, question %s; a source that is not loaded answers nothing", published, got)
		}
		src.fail(nil)
		pass(2 * time.Minute)
		if diff := cmp.Diff([]string{"c1 status? 1", "c1/a@1 resync_response"}, f.take()); diff != "" {
			t.Errorf("once loaded (-want +got):\n%s", diff)
		}
		if got.String() != "acknowledged" {
			t.Errorf("question %s, want acknowledged", got)
		}
	})
}

// TestQuestionsAreCoalesced: an agent that asks in a loop gets an answer per
// pause, the first at once, leaves nothing unsettled, and delays nobody.
func TestQuestionsAreCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(), &fakeTransport{}
		run(t, src, f, sources.Options{})
		f.ready()
		src.put(bundle("c1", "a", 1))
		src.put(bundle("c2", "a", 1))
		answer := []string{"c1 status? 1", "c1/a@1 resync_response"}
		ask(t, f, "c1")
		if diff := cmp.Diff(answer, f.take()); diff != "" {
			t.Errorf("the first question (-want +got):\n%s", diff)
		}
		for range 100 {
			if got := ask(t, f, "c1"); got.String() != "acknowledged" {
				t.Fatalf("a question within the pause is %s: in order, others are stuck behind it", got)
			}
		}
		ask(t, f, "c2")
		if diff := cmp.Diff([]string{"c2 status? 1", "c2/a@1 resync_response"}, f.take()); diff != "" {
			t.Errorf("within the pause (-want +got):\n%s", diff)
		}
		pass(15 * time.Second)
		if diff := cmp.Diff(answer, f.take()); diff != "" {
			t.Errorf("after the pause (-want +got):\n%s", diff)
		}
	})
}

// TestQuestionIsSettledWhenAnswered: a hub that is killed before its answer is
// with the broker leaves the question there.
func TestQuestionIsSettledWhenAnswered(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		err    error
		want   string
	}{
		"published":   {reason: "the answer is with the broker", want: "acknowledged"},
		"unavailable": {reason: "the answer is owed until the broker is back", err: brokers.ErrUnavailable, want: "open"},
		"too large":   {reason: "there is no other answer", err: brokers.ErrTooLarge, want: "acknowledged"},
		"refused":     {reason: "an open question takes room in every cluster's window", err: brokers.ErrRefused, want: "acknowledged"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := newSource(bundle("c1", "a", 1), bundle("c1", "b", 1))
				// Reported, so that only a question has the work sent.
				src.held["c1"] = []sources.Held{{ID: "a", Generation: 1, Reported: 1}, {ID: "b", Generation: 1, Reported: 1}}
				release := make(chan struct{})
				f := &fakeTransport{publish: func(_ brokers.Topic, m codec.Message) error {
					if b, ok := m.(codec.Bundle); ok && b.ID == "b" {
						<-release
						return tc.err
					}
					return nil
				}}
				run(t, src, f, sources.Options{})
				f.ready()
				got := ask(t, f, "c1")
				if got.String() != "open" {
					t.Errorf("%s while half of the answer waits for the broker, want open", got)
				}
				close(release)
				if got.String() != tc.want {
					t.Errorf("%s: %s, want %s", tc.reason, got, tc.want)
				}
			})
		})
	}
}

// TestNewerQuestionSettlesTheOlder, whose answer is not complete: the newer one
// covers what is left of it.
func TestNewerQuestionSettlesTheOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource(bundle("c1", "a", 1))
		release := make(chan struct{})
		f := &fakeTransport{publish: func(_ brokers.Topic, m codec.Message) error {
			if _, ok := m.(codec.Bundle); ok {
				<-release
			}
			return nil
		}}
		run(t, src, f, sources.Options{AnswerPause: time.Second})
		f.ready()
		first := ask(t, f, "c1")
		pass(time.Second)
		second := ask(t, f, "c1")
		if got := first.String() + ", " + second.String(); got != "acknowledged, open" {
			t.Errorf("%s; want acknowledged, open", got)
		}
		close(release)
		if second.String() != "acknowledged" {
			t.Errorf("once answered %s, want acknowledged", second)
		}
	})
}

func TestStatusQuestionIsSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(), &fakeTransport{}
		for i := range 2001 {
			src.held["c1"] = append(src.held["c1"], sources.Held{
				ID: fmt.Sprint("w", i), Generation: 1, Reported: 1, StatusHash: strings.Repeat("ab", 32),
			})
		}
		src.held["empty"] = nil
		run(t, src, f, sources.Options{})
		f.ready()
		pass(time.Second)
		if diff := cmp.Diff([]string{"c1 status? 1", "c1 status? 1000", "c1 status? 1000"}, f.take()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		seen := map[string]bool{}
		for i, m := range f.messages {
			key := f.topics[i].Key
			if seen[key] {
				t.Errorf("two parts have the key %q: a broker that keeps the last value loses one", key)
			}
			seen[key] = true
			for _, h := range m.(codec.StatusResync).Hashes {
				seen[h.ID] = true
			}
		}
		if len(seen) != 2001+3 {
			t.Errorf("%d works and keys in all parts, want %d", len(seen), 2001+3)
		}
	})
}

// TestStatusQuestionFitsTheBroker: a broker with small packets gets more and
// smaller questions, and every work is asked about.
func TestStatusQuestionFitsTheBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 30 // Hashes that fit.
		src, f := newSource(), &fakeTransport{publish: func(_ brokers.Topic, m codec.Message) error {
			if q, ok := m.(codec.StatusResync); ok && len(q.Hashes) > most {
				return fmt.Errorf("%w: %d hashes", brokers.ErrTooLarge, len(q.Hashes))
			}
			return nil
		}}
		for i := range 500 {
			src.held["c1"] = append(src.held["c1"], sources.Held{
				ID: fmt.Sprint("w", i), Generation: 1, Reported: 1, StatusHash: strings.Repeat("ab", 32),
			})
		}
		run(t, src, f, sources.Options{})
		f.ready()
		pass(time.Second)
		seen := map[string]bool{}
		for _, m := range f.messages {
			q, ok := m.(codec.StatusResync)
			if !ok || len(q.Hashes) == 0 {
				t.Errorf("the cluster was sent %T without hashes", m)
			}
			for _, h := range q.Hashes {
				seen[h.ID] = true
			}
		}
		if len(seen) != 500 {
			t.Errorf("%d of 500 works were asked about", len(seen))
		}
	})
}

func TestSessionsCompareAll(t *testing.T) {
	held := func(id string, generation, reported int64, deleting bool) sources.Held {
		return sources.Held{ID: id, Generation: generation, Reported: reported, Deleting: deleting, StatusHash: strings.Repeat("ab", 32)}
	}
	synctest.Test(t, func(t *testing.T) {
		src := newSource(bundle("c1", "reported", 3), bundle("c1", "never", 1), deletion("c2", "gone", 2))
		src.held["c1"] = []sources.Held{held("reported", 3, 3, false), held("never", 1, 0, false)}
		src.held["c2"] = []sources.Held{held("gone", 2, 2, true)}
		want := []string{"c1 status? 2", "c1/never@1 create_request", "c2 status? 1", "c2/gone@2 delete_request"}
		f := &fakeTransport{}
		run(t, src, f, sources.Options{CompareInterval: time.Hour})
		for _, resumed := range []bool{false, true} {
			synctest.Wait()
			f.sub.Ready(brokers.Session{Resumed: resumed})
			pass(10 * time.Second)
			if diff := cmp.Diff(want, f.take()); diff != "" {
				t.Errorf("session with resumed=%v (-want +got):\n%s", resumed, diff)
			}
		}
		pass(75 * time.Minute)
		if diff := cmp.Diff(want, f.take()); diff != "" {
			t.Errorf("periodic comparison (-want +got):\n%s", diff)
		}
	})
}

// TestComparisonSurvivesTheBroker: a question that could not be sent is sent
// later.
func TestComparisonSurvivesTheBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(), &fakeTransport{}
		src.held["c1"] = []sources.Held{{ID: "a", Generation: 1, Reported: 1, StatusHash: strings.Repeat("ab", 32)}}
		failures := 3
		f.publish = func(brokers.Topic, codec.Message) error {
			if failures--; failures >= 0 {
				return brokers.ErrUnavailable
			}
			return nil
		}
		run(t, src, f, sources.Options{CompareInterval: 24 * time.Hour})
		f.ready()
		pass(10 * time.Minute)
		if got := f.take(); !slices.Contains(got, "c1 status? 1") {
			t.Errorf("published %v, want the question for statuses", got)
		}
	})
}

func TestClustersAreListedAgainAfterAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(bundle("c1", "a", 1)), &fakeTransport{}
		src.fail(sources.ErrNotLoaded)
		run(t, src, f, sources.Options{CompareInterval: 24 * time.Hour})
		f.ready()
		src.fail(nil)
		pass(time.Minute)
		if diff := cmp.Diff([]string{"c1 status? 1", "c1/a@1 create_request"}, f.take()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
