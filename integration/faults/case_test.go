package faults

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A faultCase is one row of the table in docs/reliability.md.
type faultCase struct {
	id         string
	title      string // What happens.
	promises   string // Those it is about, by their names in docs/reliability.md.
	bound      time.Duration
	smoke      bool     // It runs in the smoke test, too.
	only       []string // The brokers it is for; all if empty.
	world      settings
	run        func(*world) // Returns when the faults are over.
	afterwards func(*world) // What else must be so when everything converged.
}

// An outcome is what came of a case with one broker.
type outcome struct {
	id, broker string
	took       time.Duration
	broken     []string
}

func (o outcome) String() string {
	if len(o.broken) > 0 {
		return "failed"
	}
	return fmt.Sprintf("holds, %.1f s", max(0.1, o.took.Seconds()))
}

// seed is FLEETCAST_SEED, or a new one.
func seed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("FLEETCAST_SEED")
	if text == "" {
		return uint64(time.Now().UnixNano()) & 0xffffffff
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("FLEETCAST_SEED: %v", err)
	}
	return n
}

// runCase runs one case over a broker. slack multiplies the bound.
func runCase(t *testing.T, kind *brokerKind, c faultCase, slack int) (o outcome) {
	t.Helper()
	s := seed(t)
	o = outcome{id: c.id, broker: kind.name}
	defer func() {
		if !t.Failed() {
			return
		}
		if len(o.broken) == 0 {
			o.broken = []string{"it did not come to its end"}
		}
		t.Logf("once more, with its history and logs kept: FLEETCAST_SEED=%d go test -tags faults -run '^%s$' -artifacts -outputdir /tmp ./integration/faults",
			s, strings.ReplaceAll(t.Name(), "/", "$/^"))
	}()
	w := newWorld(t, kind, c.world, s)
	defer w.tell()
	c.run(w)
	w.stepf("the faults are over")
	over := w.over
	if over.IsZero() {
		over = time.Now()
	}
	// What was right before the faults would be right at once. This has to go
	// all the way, behind whatever else is on it.
	for name, to := range w.clusters {
		if !to.dead {
			w.put(key{name, "last"})
		}
	}
	// What does not converge at all is told from what is late.
	err := within(3*time.Duration(slack)*c.bound, w.settled)
	o.took = time.Since(over)
	w.stepf("converged")
	if err != nil {
		o.broken = append(o.broken, "V2: "+strings.ReplaceAll(errors.Join(err).Error(), "\n", ", "))
	} else {
		if c.afterwards != nil {
			c.afterwards(w)
		}
		o.broken = append(o.broken, w.validate()...)
	}
	if bound := time.Duration(slack) * c.bound; o.took > bound {
		o.broken = append(o.broken, fmt.Sprintf("V8: converged after %s, the bound is %s", o.took.Round(time.Millisecond), bound))
	}
	for _, b := range o.broken {
		t.Error(b)
	}
	return o
}

// tell prints the end of every program's log if the case failed.
func (w *world) tell() {
	if !w.t.Failed() {
		return
	}
	all := []*process{w.hub.process}
	for _, n := range w.broker.nodes {
		all = append(all, n.process)
	}
	for _, c := range w.clusters {
		if c.agent != nil {
			all = append(all, c.agent)
		}
	}
	for _, p := range all {
		log, err := os.ReadFile(p.log)
		if err != nil {
			w.t.Logf("log of %s: %v", p.name, err)
			continue
		}
		const most = 3000
		w.t.Logf("end of the log of %s:\n%s", p.name, log[max(0, len(log)-most):])
	}
}

// cases are all there are, in the order of the table.
func cases() []faultCase {
	return slices.Concat(brokerCases, networkCases, programCases, leadCases, applyCases, apiServerCases, kindCases, incidentCases)
}

// TestSmoke runs some cases over the brokers that need no installation. Its
// bounds are wide: it shares its machine with all other tests.
func TestSmoke(t *testing.T) {
	for _, kind := range []*brokerKind{embeddedNATS, embeddedMQTT} {
		for _, c := range cases() {
			if c.smoke {
				t.Run(kind.name+"/"+c.id, func(t *testing.T) { runCase(t, kind, c, 5) })
			}
		}
	}
}
