package sources_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/event"
	"github.com/fleetcast-io/fleetcast/sources"
)

func TestIdentity(t *testing.T) {
	from := func(lane brokers.Lane, source, cluster string) brokers.Topic {
		return brokers.Topic{Lane: lane, Source: source, Cluster: cluster}
	}
	aReport := func(change func(*codec.Report)) func(*testing.T) event.Event {
		return func(t *testing.T) event.Event {
			r := report(t, bundle("c1", "a", 1), 7)
			change(&r)
			return encode(t, r, codec.Update)
		}
	}
	question := func(change func(*codec.SpecResync)) func(*testing.T) event.Event {
		return func(t *testing.T) event.Event {
			q := codec.SpecResync{Agent: "c1-agent", Source: sourceID, Cluster: "c1"}
			change(&q)
			return encode(t, q, codec.ResyncRequest)
		}
	}
	for name, tc := range map[string]struct {
		reason string
		from   brokers.Topic
		event  func(*testing.T) event.Event
		want   string
		result string
	}{
		"report": {
			reason: "address and content agree", from: toSource("c1"),
			event: aReport(func(*codec.Report) {}), want: "acknowledged", result: "ok",
		},
		"report of another cluster": {
			reason: "c2 must not speak for c1", from: toSource("c2"),
			event: aReport(func(*codec.Report) {}), want: "rejected", result: "foreign_cluster",
		},
		"report on another source's work": {
			reason: "an ID means nothing without its source", from: toSource("c1"),
			event: aReport(func(r *codec.Report) { r.Source = "hub2" }), want: "rejected", result: "mismatch",
		},
		"report to all": {
			reason: "reports go to their source", from: from(brokers.ToAllSources, "", "c1"),
			event: aReport(func(*codec.Report) {}), want: "rejected", result: "mismatch",
		},
		"question": {
			reason: "address and content agree", from: toSource("c1"),
			event: question(func(*codec.SpecResync) {}), want: "acknowledged", result: "ok",
		},
		"question to whom it concerns": {
			reason: "an empty source asks all", from: toSource("c1"),
			event: question(func(q *codec.SpecResync) { q.Source = "" }), want: "acknowledged", result: "ok",
		},
		"question to all": {
			reason: "the broadcast lane is for questions", from: from(brokers.ToAllSources, "", "c1"),
			event: question(func(q *codec.SpecResync) { q.Source = "" }), want: "acknowledged", result: "ok",
		},
		"question of another cluster": {
			reason: "c2 must not have c1's works sent, nor learn of them", from: toSource("c2"),
			event: question(func(*codec.SpecResync) {}), want: "rejected", result: "foreign_cluster",
		},
		"question to all of another cluster": {
			reason: "the same on the broadcast lane", from: from(brokers.ToAllSources, "", "c2"),
			event: question(func(*codec.SpecResync) {}), want: "rejected", result: "foreign_cluster",
		},
		"question to another source": {
			reason: "hub2's answer is hub2's to give", from: toSource("c1"),
			event: question(func(q *codec.SpecResync) { q.Source = "hub2" }), want: "rejected", result: "mismatch",
		},
		"bundle": {
			reason: "sources take no works", from: toSource("c1"),
			event: func(t *testing.T) event.Event { return encode(t, bundle("c1", "a", 1), codec.Update) }, want: "rejected", result: "unexpected",
		},
		"unknown type": {
			reason: "it may be meant for somebody else on the topic", from: toSource("c1"),
			event:  func(*testing.T) event.Event { return event.New("com.example.other", "x", time.Unix(0, 0), 0) },
			want:   "rejected",
			result: "unknown_type",
		},
		"malformed": {
			reason: "a report without a sequence cannot be ordered", from: toSource("c1"),
			event: func(t *testing.T) event.Event {
				e := encode(t, report(t, bundle("c1", "a", 1), 7), codec.Update)
				e.Unset("sequenceid")
				return e
			},
			want: "rejected", result: "malformed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, f := newSource(), &fakeTransport{}
				d := run(t, src, f, sources.Options{})
				f.ready()
				got := f.deliver(t, tc.from, tc.event(t))
				if got.String() != tc.want {
					t.Errorf("%s: %s, want %s", tc.reason, got, tc.want)
				}
				if tc.want == "rejected" && len(src.taken) > 0 {
					t.Errorf("%s: the source saw the report", tc.reason)
				}
				if n := countEvents(t, d, tc.result); n != 1 {
					t.Errorf("%s: %v events counted as %s, want 1", tc.reason, n, tc.result)
				}
			})
		})
	}
}

func TestNewestReportSettlesThoseBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(), &fakeTransport{}
		release := make(chan struct{})
		src.report = func(codec.Report) (sources.Verdict, error) { <-release; return sources.Accepted, nil }
		run(t, src, f, sources.Options{ReportWorkers: 1})
		f.ready()
		b := bundle("c1", "a", 3)
		send := func(sequence codec.Sequence) *settlement {
			got := f.deliver(t, toSource("c1"), encode(t, report(t, b, sequence), codec.Update))
			synctest.Wait()
			return got
		}
		first := send(1)                                    // In the worker's hands.
		waiting := []*settlement{send(2), send(4), send(3)} // Out of order.
		for _, got := range append(waiting, first) {
			if got.String() != "open" {
				t.Fatalf("%s before the source has it", got)
			}
		}
		release <- struct{}{}
		if first.String() != "acknowledged" || waiting[0].String() != "open" {
			t.Errorf("after the first call: first %s, second %s; want acknowledged, open", first, waiting[0])
		}
		release <- struct{}{}
		for i, got := range waiting {
			if got.String() != "acknowledged" {
				t.Errorf("waiting report %d: %s, want acknowledged", i, got)
			}
		}
		if diff := cmp.Diff([]codec.Sequence{1, 4}, src.sequences()); diff != "" {
			t.Errorf("sequences that the source saw (-want +got):\n%s", diff)
		}
	})
}

func TestVerdictsAcknowledge(t *testing.T) {
	for _, verdict := range []sources.Verdict{
		sources.Accepted, sources.Unchanged, sources.Stale, sources.Foreign, sources.Unknown, sources.Invalid,
	} {
		t.Run(string(verdict), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, f := newSource(), &fakeTransport{}
				src.report = func(codec.Report) (sources.Verdict, error) { return verdict, nil }
				run(t, src, f, sources.Options{})
				f.ready()
				got := f.deliver(t, toSource("c1"), encode(t, report(t, bundle("c1", "a", 1), 7), codec.Update))
				if got.String() != "acknowledged" {
					t.Errorf("%s, want acknowledged: no verdict gets better by another delivery", got)
				}
			})
		})
	}
}

func TestReportsAreRetriedAndThenGivenUp(t *testing.T) {
	for name, tc := range map[string]struct {
		reason   string
		err      error
		failures int
		want     string
	}{
		"for a while":     {reason: "an API server restarts", err: errors.New("refused"), failures: 5, want: "acknowledged"},
		"for good":        {reason: "what stays open fills the window of all clusters", err: errors.New("refused"), failures: 1000, want: "acknowledged"},
		"not loaded long": {reason: "a source that fills up is no failure", err: sources.ErrNotLoaded, failures: 15, want: "acknowledged"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, f := newSource(), &fakeTransport{}
				left := tc.failures
				src.report = func(codec.Report) (sources.Verdict, error) {
					if left--; left >= 0 {
						return "", fmt.Errorf("save: %w", tc.err)
					}
					return sources.Accepted, nil
				}
				run(t, src, f, sources.Options{})
				f.ready()
				got := f.deliver(t, toSource("c1"), encode(t, report(t, bundle("c1", "a", 1), 7), codec.Update))
				if got.String() != "open" {
					t.Fatalf("%s: %s after the first failure, want open", tc.reason, got)
				}
				pass(20 * time.Minute)
				if got.String() != tc.want {
					t.Errorf("%s: %s, want %s", tc.reason, got, tc.want)
				}
			})
		})
	}
}

// TestUnsavedReportIsAskedFor: a report that was given up comes again when its
// cluster is asked for it, which costs less the longer it goes on.
func TestUnsavedReportIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(), &fakeTransport{}
		src.held["c1"] = []sources.Held{{ID: "a", Generation: 1, Reported: 1, StatusHash: strings.Repeat("ab", 32)}}
		var broken atomic.Bool
		broken.Store(true)
		src.report = func(codec.Report) (sources.Verdict, error) {
			if broken.Load() {
				return "", errors.New("etcdserver: request is too large")
			}
			return sources.Accepted, nil
		}
		run(t, src, f, sources.Options{CompareInterval: time.Hour})
		f.ready()
		pass(time.Minute)
		f.take()
		send := func() *settlement {
			return f.deliver(t, toSource("c1"), encode(t, report(t, bundle("c1", "a", 1), 7), codec.Update))
		}
		// An agent answers each question with the report that the source lacks.
		asked := func(within time.Duration) (n int) {
			for end := time.Now().Add(within); time.Now().Before(end); pass(time.Second) {
				for range f.take() {
					n++
					send()
				}
			}
			return n
		}
		send()
		if n := asked(5 * time.Minute); n == 0 {
			t.Error("within 5 minutes the cluster is not asked for the report that could not be saved")
		}
		if n := asked(6 * time.Hour); n < 6 || n > 20 {
			t.Errorf("asked %d times in 6 hours, want about once per hour", n)
		}
		broken.Store(false)
		if n := asked(2 * time.Hour); n == 0 {
			t.Error("never asked after the source could save again")
		}
		if got := send(); got.String() != "acknowledged" {
			t.Errorf("%s, want acknowledged", got)
		}
	})
}

// TestUnorderedReportIsAskedAbout: a source that could not tell whether a report
// was the newest has its cluster compared at once.
func TestUnorderedReportIsAskedAbout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(), &fakeTransport{}
		src.held["c1"] = []sources.Held{{ID: "a", Generation: 1, Reported: 1, StatusHash: strings.Repeat("ab", 32)}}
		src.report = func(codec.Report) (sources.Verdict, error) { return sources.Unordered, nil }
		run(t, src, f, sources.Options{})
		f.ready()
		pass(10 * time.Second)
		f.take()
		f.deliver(t, toSource("c1"), encode(t, report(t, bundle("c1", "a", 1), 7), codec.Update))
		if diff := cmp.Diff([]string{"c1 status? 1"}, f.take()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestPanicsOfTheSource cost the work its turn and nothing else anything.
func TestPanicsOfTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(), &fakeTransport{}
		var reads, saves atomic.Int64
		src.bundleErr = func(k sources.Key) error {
			if k.ID == "bad" && reads.Add(1) <= 3 {
				panic("read")
			}
			return nil
		}
		src.report = func(r codec.Report) (sources.Verdict, error) {
			if r.ID == "bad" && saves.Add(1) <= 3 {
				panic("save")
			}
			return sources.Accepted, nil
		}
		d := run(t, src, f, sources.Options{Workers: 1, ReportWorkers: 1})
		f.ready()
		for _, id := range []string{"bad", "good"} {
			d.Changed(src.put(bundle("c1", id, 1)))
		}
		bad := f.deliver(t, toSource("c1"), encode(t, report(t, bundle("c1", "bad", 1), 7), codec.Update))
		good := f.deliver(t, toSource("c1"), encode(t, report(t, bundle("c1", "good", 1), 7), codec.Update))
		if got := good.String() + ", " + bad.String(); got != "acknowledged, open" {
			t.Errorf("reports: %s; want acknowledged, open", got)
		}
		if diff := cmp.Diff([]string{"c1/good@1 create_request"}, f.takeBundles()); diff != "" {
			t.Errorf("while one work panics (-want +got):\n%s", diff)
		}
		pass(time.Minute)
		if bad.String() != "acknowledged" {
			t.Errorf("the report is %s after the panics, want acknowledged", bad)
		}
		if diff := cmp.Diff([]string{"c1/bad@1 create_request"}, f.takeBundles()); diff != "" {
			t.Errorf("after the panics (-want +got):\n%s", diff)
		}
	})
}

// TestStopLeavesReportsWithTheBroker: what was not saved is delivered to the
// next leader.
func TestStopLeavesReportsWithTheBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, f := newSource(), &fakeTransport{}
		src.report = func(codec.Report) (sources.Verdict, error) { return "", errors.New("refused") }
		ctx, cancel := context.WithCancel(t.Context())
		d := sources.NewDispatcher(sourceID, src, f, sources.Options{})
		done := make(chan error)
		go func() { done <- d.Run(ctx) }()
		f.ready()
		got := f.deliver(t, toSource("c1"), encode(t, report(t, bundle("c1", "a", 1), 7), codec.Update))
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if got.String() != "open" {
			t.Errorf("%s, want open", got)
		}
	})
}
