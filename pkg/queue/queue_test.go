package queue

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func take(t *testing.T, q *Queue[string, int]) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	g, k, ok := q.Get(ctx)
	if !ok {
		t.Fatal("Get: nothing came")
	}
	return g, k
}

func TestCoalesces(t *testing.T) {
	q := New[string, int](Options{})
	for range 3 {
		q.Add("a", 1)
	}
	if got := q.Len(); got != 1 {
		t.Fatalf("Len after three adds of one key = %d, want 1", got)
	}
	take(t, q)
	q.Add("a", 1)
	q.Add("a", 1)
	if got := q.Len(); got != 0 {
		t.Errorf("Len while the key is worked on = %d, want 0: it must not be handed out twice", got)
	}
	q.Done("a", 1)
	if got := q.Len(); got != 1 {
		t.Errorf("Len after Done = %d, want 1: it was added meanwhile", got)
	}
	take(t, q)
	q.Done("a", 1)
	if len(q.items) != 0 {
		t.Errorf("%d items are remembered, want none", len(q.items))
	}
}

func TestServesGroupsInTurn(t *testing.T) {
	q := New[string, int](Options{})
	for k := range 100 {
		q.Add("many", k)
	}
	q.Add("few", 0)
	q.Add("one", 0)
	var order []string
	for range 5 {
		g, k := take(t, q)
		order = append(order, g)
		q.Done(g, k)
	}
	if want := []string{"many", "few", "one", "many", "many"}; !slices.Equal(order, want) {
		t.Errorf("groups served = %v, want %v", order, want)
	}
}

func TestDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New[string, int](Options{})
		start := time.Now()
		q.AddAfter("a", 1, 3*time.Second)
		q.AddAfter("a", 2, time.Second)
		q.AddAfter("a", 1, 2*time.Second) // Earlier wins.
		q.AddAfter("a", 2, 5*time.Second) // Later does not.
		for _, want := range []struct {
			key int
			at  time.Duration
		}{{2, time.Second}, {1, 2 * time.Second}} {
			g, k := take(t, q)
			if at := time.Since(start); k != want.key || at != want.at {
				t.Errorf("got key %d after %s, want %d after %s", k, at, want.key, want.at)
			}
			q.Done(g, k)
		}
		q.AddAfter("a", 3, time.Hour)
		q.Add("a", 3)
		take(t, q)
		q.Done("a", 3)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		if _, k, ok := q.Get(ctx); ok {
			t.Errorf("key %d came again; Add ends the delay it was waiting for", k)
		}
	})
}

func TestRetryBacksOff(t *testing.T) {
	q := New[string, int](Options{MinBackoff: time.Second, MaxBackoff: 8 * time.Second})
	for i, most := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 8 * time.Second} {
		d := q.Retry("a", 1)
		if d < most/2 || d > most {
			t.Errorf("retry %d waits %s, want %s to %s", i, d, most/2, most)
		}
		// What was scheduled is taken out, as a worker would.
		q.mu.Lock()
		q.undelay(q.items[name[string, int]{"a", 1}])
		q.mu.Unlock()
	}
	q.Forget("a", 1)
	if d := q.Retry("a", 1); d > time.Second {
		t.Errorf("retry after Forget waits %s, want at most 1s", d)
	}
}

func TestRetryWhileWorking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New[string, int](Options{})
		q.Add("a", 1)
		g, k := take(t, q)
		q.Retry(g, k)
		q.Done(g, k)
		if _, k := take(t, q); k != 1 {
			t.Errorf("got key %d, want 1", k)
		}
	})
}

func TestGetPassesWakeUpsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New[string, int](Options{})
		for range 100 {
			ctx, cancel := context.WithCancel(t.Context())
			var taken sync.WaitGroup
			taken.Go(func() {
				if g, k, ok := q.Get(ctx); ok {
					q.Done(g, k)
					q.Add(g, k)
				}
			})
			taken.Go(func() {
				g, k := take(t, q)
				q.Done(g, k)
			})
			synctest.Wait()
			q.Add("a", 1)
			cancel()
			taken.Wait()
			for q.Len() > 0 {
				g, k := take(t, q)
				q.Done(g, k)
			}
		}
	})
}

// TestNothingLost runs random operations beside a model: what was added is
// handed out, nothing else is, and never to two workers at once.
func TestNothingLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := New[string, int](Options{})
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		pending, working := map[int]bool{}, map[int]bool{}
		group := func(k int) string { return string(rune('a' + k%3)) }
		key := rapid.IntRange(0, 8)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				k := key.Draw(t, "key")
				q.Add(group(k), k)
				pending[k] = true
			},
			"take": func(t *rapid.T) {
				if q.Len() == 0 {
					if _, _, ok := q.Get(ended); ok {
						t.Fatal("Get on an empty queue returned a key")
					}
					return
				}
				_, k, _ := q.Get(context.Background())
				if !pending[k] || working[k] {
					t.Fatalf("key %d handed out: pending %v, working %v", k, pending[k], working[k])
				}
				delete(pending, k)
				working[k] = true
			},
			"done": func(t *rapid.T) {
				k := key.Draw(t, "key")
				q.Done(group(k), k)
				delete(working, k)
			},
			"": func(t *rapid.T) {
				want := 0
				for k := range pending {
					if !working[k] {
						want++
					}
				}
				if got := q.Len(); got != want {
					t.Fatalf("Len = %d, want %d", got, want)
				}
			},
		})
	})
}

func BenchmarkAddGetDone(b *testing.B) {
	q := New[int, int](Options{})
	ctx := context.Background()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		q.Add(i%100, i%1000)
		g, k, _ := q.Get(ctx)
		q.Done(g, k)
	}
}

// TestBusyGroupStaysSmall holds that the list of a group that always has a key
// waiting does not keep those that were taken.
func TestBusyGroupStaysSmall(t *testing.T) {
	q := New[string, int](Options{})
	q.Add("a", 0)
	for i := range 10_000 {
		q.Add("a", i%2+1)
		_, k := take(t, q)
		q.Done("a", k)
		if n := len(q.ready["a"].keys); n > 10 {
			t.Fatalf("after %d keys, a queue of %d holds a list of %d", i+1, q.Len(), n)
		}
	}
}
