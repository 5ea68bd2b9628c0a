package mem_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

var (
	hub     = brokers.Config{Role: brokers.RoleSource, Name: "hub"}
	cluster = brokers.Config{Role: brokers.RoleAgent, Name: "c1"}
	works   = brokers.Filter{Lane: brokers.ToCluster, Source: brokers.Any, Cluster: "c1"}
)

func work(key string) brokers.Topic {
	return brokers.Topic{Lane: brokers.ToCluster, Source: "hub", Cluster: "c1", Key: key}
}

func numbered(n int) event.Event {
	return event.Of(nil,
		event.Attribute{Name: event.SpecVersion, Value: event.Version},
		event.Attribute{Name: event.ID, Value: fmt.Sprint(n)},
		event.Attribute{Name: event.Source, Value: "mem"},
		event.Attribute{Name: event.Type, Value: "test"},
	)
}

// An inbox is a subscription within a synctest bubble, and what it got.
type inbox struct {
	mu       sync.Mutex
	ids      []string
	settle   func(brokers.Delivery)
	sessions []brokers.Session
	cancel   context.CancelFunc
	err      error
}

func subscribe(tr brokers.Transport, settle func(brokers.Delivery), filters ...brokers.Filter) *inbox {
	ctx, cancel := context.WithCancel(context.Background())
	in := &inbox{settle: settle, cancel: cancel}
	go func() {
		err := tr.Subscribe(ctx, brokers.Subscription{
			Filters: filters,
			Handle: func(_ context.Context, d brokers.Delivery) {
				in.mu.Lock()
				in.ids = append(in.ids, d.Event.Get(event.ID))
				in.mu.Unlock()
				in.settle(d)
			},
			Ready: func(s brokers.Session) {
				in.mu.Lock()
				in.sessions = append(in.sessions, s)
				in.mu.Unlock()
			},
		})
		in.mu.Lock()
		in.err = err
		in.mu.Unlock()
	}()
	return in
}

func (in *inbox) got() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.ids)
}

func (in *inbox) established() []brokers.Session {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.sessions)
}

func acknowledge(d brokers.Delivery) { d.Done(nil) }

// settled lets everything happen that is due within a minute of bubble time.
func settled() {
	synctest.Wait()
	<-time.After(time.Minute)
	synctest.Wait()
}

func publish(t *testing.T, tr brokers.Transport, to brokers.Topic, n int) {
	t.Helper()
	if err := tr.Publish(t.Context(), to, numbered(n)); err != nil {
		t.Fatalf("publish event %d: %v", n, err)
	}
}

func closeAll(t *testing.T, transports ...brokers.Transport) {
	t.Helper()
	for _, tr := range transports {
		if err := tr.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	synctest.Wait()
}

// order is in which order 50 events of different keys are delivered.
func order(t *testing.T, o mem.Options) (ids []string) {
	synctest.Test(t, func(t *testing.T) {
		b := mem.NewBroker(o)
		source, agent := b.Open(hub), b.Open(cluster)
		in := subscribe(agent, acknowledge, works)
		settled()
		for n := range 50 {
			publish(t, source, work(fmt.Sprint(n)), n)
		}
		settled()
		ids = in.got()
		closeAll(t, source, agent)
	})
	return ids
}

func TestSeedRepeatsARun(t *testing.T) {
	nasty := func(seed uint64) mem.Options {
		return mem.Options{Seed: seed, Delay: time.Second, Duplicate: 0.5}
	}
	first, again, other := order(t, nasty(1)), order(t, nasty(1)), order(t, nasty(2))
	if !slices.Equal(first, again) {
		t.Errorf("two runs of one seed differ:\n%v\n%v", first, again)
	}
	if slices.Equal(first, other) {
		t.Errorf("two seeds gave the same run: %v", first)
	}
	if len(first) <= 50 {
		t.Errorf("%d deliveries of 50 events, want duplicates", len(first))
	}
	if slices.IsSorted(first) {
		t.Errorf("events of different keys came in order")
	}
}

func TestDropLosesConfirmedEvents(t *testing.T) {
	if got := len(order(t, mem.Options{Drop: 0.5})); got == 0 || got == 50 {
		t.Errorf("%d of 50 events came with half of them dropped", got)
	}
}

func TestCutLosesConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mem.NewBroker(mem.Options{Cut: 0.5})
		source, agent := b.Open(hub), b.Open(cluster)
		in := subscribe(agent, acknowledge, works)
		settled()
		var failed, arrived int
		for n := range 100 {
			if err := source.Publish(t.Context(), work(fmt.Sprint(n)), numbered(n)); err != nil {
				if !errors.Is(err, brokers.ErrUnavailable) {
					t.Fatalf("Publish returned %v, want ErrUnavailable", err)
				}
				failed++
				settled()
				if slices.Contains(in.got(), fmt.Sprint(n)) {
					arrived++
				}
			}
		}
		if failed == 0 || failed == 100 {
			t.Errorf("%d of 100 publishes failed, want about half", failed)
		}
		if arrived == 0 || arrived == failed {
			t.Errorf("%d of %d events arrived unconfirmed, want some and not all", arrived, failed)
		}
		closeAll(t, source, agent)
	})
}

func TestQueueDropsTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mem.NewBroker(mem.Options{Queue: 3})
		source, agent := b.Open(hub), b.Open(cluster)
		in := subscribe(agent, acknowledge, works)
		settled()
		in.cancel()
		synctest.Wait()
		for n := range 10 {
			publish(t, source, work(fmt.Sprint(n%2)), n)
		}
		in = subscribe(agent, acknowledge, works)
		settled()
		got := in.got()
		slices.Sort(got)
		if want := []string{"7", "8", "9"}; !slices.Equal(got, want) {
			t.Errorf("after an overflow came %v, want %v", got, want)
		}
		if s := in.established(); len(s) != 1 || !s[0].Resumed {
			t.Errorf("sessions are %+v, want one that is resumed: queues overflow silently", s)
		}
		closeAll(t, source, agent)
	})
}

func TestBroadcastsAreLostAway(t *testing.T) {
	question := brokers.Topic{Lane: brokers.ToAllClusters, Source: "hub"}
	all := brokers.Filter{Lane: brokers.ToAllClusters, Source: brokers.Any}
	for _, test := range []struct {
		durable bool
		want    []string
	}{{false, nil}, {true, []string{"1"}}} {
		synctest.Test(t, func(t *testing.T) {
			b := mem.NewBroker(mem.Options{DurableBroadcast: test.durable})
			source, agent := b.Open(hub), b.Open(cluster)
			in := subscribe(agent, acknowledge, all)
			settled()
			b.Partition(cluster.Identity())
			publish(t, source, question, 1)
			b.Heal(cluster.Identity())
			settled()
			if got := in.got(); !slices.Equal(got, test.want) {
				t.Errorf("durable %t: got %v of a broadcast sent while away, want %v", test.durable, got, test.want)
			}
			closeAll(t, source, agent)
		})
	}
}

func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mem.NewBroker(mem.Options{})
		source, agent := b.Open(hub), b.Open(cluster)
		in := subscribe(agent, acknowledge, works)
		settled()
		b.Partition(cluster.Identity())
		publish(t, source, work("a"), 1)
		b.Stop()
		b.Start() // Does not end the partition.
		settled()
		report := brokers.Topic{Lane: brokers.ToSource, Source: "hub", Cluster: "c1"}
		if err := agent.Publish(t.Context(), report, numbered(2)); !errors.Is(err, brokers.ErrUnavailable) {
			t.Errorf("Publish during a partition returned %v, want ErrUnavailable", err)
		}
		if got := in.got(); len(got) > 0 {
			t.Errorf("%v came through a partition", got)
		}
		b.Heal(cluster.Identity())
		settled()
		if got := in.got(); !slices.Equal(got, []string{"1"}) {
			t.Errorf("after the partition came %v, want event 1", got)
		}
		closeAll(t, source, agent)
	})
}

func TestSameClientIDTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mem.NewBroker(mem.Options{Reconnect: 100 * time.Millisecond})
		first := b.Open(cluster)
		in := subscribe(first, acknowledge, works)
		settled()
		second := b.Open(cluster)
		<-time.After(time.Second)
		synctest.Wait()
		if n := len(in.established()); n < 2 {
			t.Errorf("the first connection was established %d times, want it to lose its place and fight for it", n)
		}
		closeAll(t, second)
		settled()
		source := b.Open(hub)
		settled()
		publish(t, source, work("a"), 1)
		settled()
		if got := in.got(); !slices.Equal(got, []string{"1"}) {
			t.Errorf("got %v after the other connection was closed, want event 1", got)
		}
		closeAll(t, first, source)
	})
}

func TestRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mem.NewBroker(mem.Options{Refuse: func(c brokers.Config, to brokers.Topic) bool {
			return c.Role == brokers.RoleAgent && to.Cluster != c.Name
		}})
		agent := b.Open(cluster)
		settled()
		other := brokers.Topic{Lane: brokers.ToSource, Source: "hub", Cluster: "c2"}
		if err := agent.Publish(t.Context(), other, numbered(1)); !errors.Is(err, brokers.ErrRefused) {
			t.Errorf("publish as another cluster returned %v, want ErrRefused", err)
		}
		closeAll(t, agent)
	})
}

func TestErrorWaitsBeforeRedelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mem.NewBroker(mem.Options{Redeliver: time.Minute})
		source, agent := b.Open(hub), b.Open(cluster)
		start := time.Now()
		var times []time.Duration
		subscribe(agent, func(d brokers.Delivery) {
			times = append(times, time.Since(start).Round(time.Minute))
			if len(times) < 3 {
				d.Done(errors.New("disk full"))
				return
			}
			d.Done(nil)
		}, works)
		<-time.After(time.Second)
		publish(t, source, work("a"), 1)
		<-time.After(time.Hour)
		synctest.Wait()
		if want := []time.Duration{0, time.Minute, 2 * time.Minute}; !slices.Equal(times, want) {
			t.Errorf("delivered at %v, want %v", times, want)
		}
		closeAll(t, source, agent)
	})
}

func TestOpenURL(t *testing.T) {
	for _, test := range []struct {
		url string
		ok  bool
	}{
		{"mem:", true},
		{"mem://", true},
		{"mem://shared", true},
		{"mem:shared", false},
		{"mem://shared/path", false},
		{"mem://shared?delay=1s", false},
		{"mem://user@shared", false},
		{"mem://shared#part", false},
	} {
		u, err := url.Parse(test.url)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := mem.Open(t.Context(), u, cluster)
		if (err == nil) != test.ok {
			t.Errorf("open %s returned %v, want success: %t", test.url, err, test.ok)
		}
		if tr != nil {
			closeAllNow(t, tr)
		}
	}
	u := &url.URL{Scheme: "mem", Host: "shared"}
	if _, err := mem.Open(t.Context(), u, brokers.Config{}); err == nil {
		t.Errorf("an empty configuration was accepted")
	}
}

func closeAllNow(t *testing.T, tr brokers.Transport) {
	t.Helper()
	if err := tr.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
}
