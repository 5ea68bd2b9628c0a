package brokertest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

func attributesSurvive(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	l := e.listen(agent, works(cluster))

	required := func() event.Event {
		return event.Of(
			nil,
			event.Attribute{Name: event.SpecVersion, Value: event.Version},
			event.Attribute{Name: event.ID, Value: e.name("id")},
			event.Attribute{Name: event.Source, Value: "brokertest"},
			event.Attribute{Name: event.Type, Value: "io.fleetcast.brokertest"},
		)
	}
	all := required()
	all.Set(event.Time, event.FormatTime(time.Date(2024, 2, 29, 23, 59, 59, 123456789, time.UTC)))
	all.Set(event.Subject, "a/b?c#d")
	all.Set(event.DataSchema, "https://example.com/schema?v=1#frag")
	all.Set(event.DataContentType, "application/json; charset=utf-8")
	all.Data = []byte("{}")

	tests := []struct {
		reason string
		event  event.Event
	}{
		{"no optional attribute: none may be added", required()},
		{"every optional attribute of CloudEvents", all},
	}
	for name, value := range map[string]string{
		"boolean":                          "true",
		"integer":                          "-2147483648",
		"uri":                              "urn:uuid:00000000-0000-4000-8000-000000000000",
		"timestamp":                        "2024-02-29T23:59:59.000000001Z",
		"binary":                           "AAECAwT+/w==",
		"resourceversion":                  "7",
		"deletiontimestamp":                "2024-02-29T00:00:00Z",
		"empty":                            "",
		"utf8":                             "Grüße, 世界, 🚢",
		"quotes":                           `"a" \b\ 'c'; d=e, {f}`,
		"percent":                          "100%25 %41 %zz %",
		"padded":                           "  two spaces on both sides  ",
		"colon":                            "a: b",
		"metadata":                         long(60 << 10),
		"averylongextensionname0123456789": "v",
	} {
		ev := required()
		ev.Set(name, value)
		tests = append(tests, struct {
			reason string
			event  event.Event
		}{"extension " + name, ev})
	}
	for i, test := range tests {
		to := toCluster(source, cluster, fmt.Sprint(i))
		e.send(hub, to, test.event)
		got := l.await(test.event)[0]
		e.sameTopic(got.From, to)
		e.sameEvent(got.Event, test.event)
		if e.Failed() {
			e.Fatalf("the case was: %s", test.reason)
		}
	}
}

func bodiesSurvive(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	l := e.listen(agent, works(cluster))

	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	random := make([]byte, 256<<10)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random) // It never fails.
	for i, test := range []struct {
		reason string
		body   []byte
	}{
		{"no body", nil},
		{"a body of no bytes", []byte{}},
		{"one zero byte", []byte{0}},
		{"every byte", every},
		{"not UTF-8", []byte{0xff, 0xfe, 0xc3, 0x28}},
		{"UTF-8", []byte(`{"greeting":"Grüße, 世界, 🚢"}`)},
		{"line ends", []byte("\r\n\r\n.\r\nPUB x 1\r\n")},
		{"256 KiB", random},
	} {
		ev := e.event()
		ev.Data = test.body
		e.send(hub, toCluster(source, cluster, fmt.Sprint(i)), ev)
		got := l.await(ev)[0].Event
		if !bytes.Equal(got.Data, test.body) {
			e.Errorf("%s: %d bytes sent, %d others delivered", test.reason, len(test.body), len(got.Data))
		}
	}
}

func tooLarge(e *env) {
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	l := e.listen(agent, works(cluster))
	e.send(hub, toCluster(source, cluster, "first"), e.event())

	body := e.event()
	body.Data = []byte(long(e.h.MaxSize))
	attributes := e.event()
	attributes.Data = []byte(long(e.h.MaxSize / 2))
	for n := 0; n < e.h.MaxSize/2; n += 60_000 {
		attributes.Set(fmt.Sprintf("part%d", n), long(60_000))
	}
	for _, test := range []struct {
		reason string
		event  event.Event
	}{
		{"the body alone is over the limit", body},
		{"attributes count too", attributes},
	} {
		err := hub.Publish(e.ctx, toCluster(source, cluster, "large"), test.event)
		if !errors.Is(err, brokers.ErrTooLarge) {
			e.Errorf("%s: Publish returned %v, want ErrTooLarge", test.reason, err)
		}
	}

	// The connection is unharmed: no wait for a new one is needed.
	fits := e.event()
	fits.Data = []byte(long(e.h.MaxSize / 2))
	if err := hub.Publish(e.ctx, toCluster(source, cluster, "fits"), fits); err != nil {
		e.Errorf("publish half of the limit after ErrTooLarge: %v", err)
	}
	l.await(fits)
	l.never("it is over the limit", body, attributes)
}

func manyPublishers(e *env) {
	const publishers = 1000
	source, cluster := e.name("source"), e.name("cluster")
	hub, agent := e.source(source), e.agent(cluster)
	l := e.listen(agent, works(cluster))

	events := make([]event.Event, publishers)
	var wg sync.WaitGroup
	for i := range events {
		events[i] = e.event()
		wg.Go(func() {
			if err := e.trySend(hub, toCluster(source, cluster, fmt.Sprint(i)), events[i]); err != nil {
				e.Errorf("publish %d of %d at once: %v", i, publishers, err)
			}
		})
	}
	wg.Wait()
	if !e.Failed() {
		l.await(events...)
	}
}
