//go:build bench

package bench

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
)

var (
	works   = flag.Int("works", 500, "works per run")
	objects = flag.Int("objects", 1, "config maps per work")
	pairs   = flag.Int("pairs", 5, "runs of each agent")
	idle    = flag.Duration("idle", 0, "how long to look at an agent at rest")
	workers = flag.Int("workers", 10, "of the client that does nothing but create, to compare with")
)

// TestMain starts nothing: the test asks for what it needs.
func TestMain(m *testing.M) { apitest.Main(m, apitest.Full) }

// TestApply measures this repository's agent, and beside it that of
// OCM_WORK_AGENT if that is set: the path of a work agent of Open Cluster
// Management, which takes further flags from OCM_WORK_AGENT_FLAGS.
func TestApply(t *testing.T) {
	b := newBench(t)
	contenders := []contender{fleetcast(t)}
	if path := os.Getenv("OCM_WORK_AGENT"); path != "" {
		contenders = append(contenders, ocm(path, strings.Fields(os.Getenv("OCM_WORK_AGENT_FLAGS"))))
	}
	results := map[string][]result{}
	var floor []float64
	for pair := range *pairs {
		order := slices.Clone(contenders)
		if pair%2 == 1 {
			slices.Reverse(order)
		}
		for _, c := range order {
			r := b.run(t, c)
			results[c.name] = append(results[c.name], r)
			t.Logf("pair %d: %s", pair+1, r)
		}
		rate := b.floor(t, *works**objects, *workers)
		floor = append(floor, rate)
		t.Logf("pair %d: a client with %d workers creates %.0f config maps/s", pair+1, *workers, rate)
	}
	t.Log(report(contenders, results, floor))
}

// report is what the runs came to, as the tables of docs/performance.md.
func report(contenders []contender, results map[string][]result, floor []float64) string {
	var s strings.Builder
	fmt.Fprintf(&s, "\n%d works of %d config maps, %d runs each, medians. A client that only creates as many config maps, %d at a time: %.0f/s.\n",
		*works, *objects, *pairs, *workers, median(floor))
	fmt.Fprintf(&s, "\n| agent | phase | works/s | s | agent CPU s | API server CPU s | requests per work |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, c := range contenders {
		for _, phase := range phases {
			of := func(f func(measure) float64) float64 {
				var values []float64
				for _, r := range results[c.name] {
					values = append(values, f(r.phases[phase]))
				}
				return median(values)
			}
			rate := "-"
			if seconds := of(measure.seconds); phase != unchanged && phase != atRest && seconds > 0 {
				rate = fmt.Sprintf("%.1f", float64(*works)/seconds)
			}
			fmt.Fprintf(&s, "| %s | %s | %s | %.2f | %.2f | %.2f | %s |\n", c.name, phase, rate, of(measure.seconds),
				of(func(m measure) float64 { return m.agent }), of(func(m measure) float64 { return m.server }),
				requests(results[c.name], phase))
		}
	}
	fmt.Fprintf(&s, "\n| agent | RSS with the works, MB | max RSS, MB | binary, MB |\n| --- | --- | --- | --- |\n")
	for _, c := range contenders {
		var rss, most []float64
		for _, r := range results[c.name] {
			rss, most = append(rss, r.rss), append(most, r.maxRSS)
		}
		fmt.Fprintf(&s, "| %s | %.1f | %.1f | %.1f |\n", c.name, median(rss), median(most), megabytes(c.path))
	}
	if len(contenders) < 2 {
		return s.String()
	}
	for _, phase := range []string{created, changed, deleted} {
		var ratios []float64
		for i, ours := range results[contenders[0].name] {
			theirs := results[contenders[1].name][i]
			ratios = append(ratios, theirs.phases[phase].seconds()/ours.phases[phase].seconds())
		}
		fmt.Fprintf(&s, "\n%s: %s is %.1f times as fast as %s (median of %d neighbours, %.1f to %.1f)\n",
			phase, contenders[0].name, median(ratios), contenders[1].name, len(ratios), slices.Min(ratios), slices.Max(ratios))
	}
	return s.String()
}

// requests are the medians of what the API server counted, per work, of the kinds
// that go with the number of works.
func requests(results []result, phase string) string {
	kinds := map[string][]float64{}
	for _, r := range results {
		for kind := range r.phases[phase].requests {
			kinds[kind] = nil
		}
	}
	for kind := range kinds {
		for _, r := range results {
			kinds[kind] = append(kinds[kind], float64(r.phases[phase].requests[kind])/float64(*works))
		}
	}
	var texts []string
	total := 0.0
	for _, kind := range slices.SortedFunc(maps.Keys(kinds), func(x, y string) int {
		return cmp.Or(cmp.Compare(median(kinds[y]), median(kinds[x])), cmp.Compare(x, y))
	}) {
		const few = 0.05
		n := median(kinds[kind])
		if n < few {
			continue
		}
		total += n
		texts = append(texts, fmt.Sprintf("%s %.2f", kind, n))
	}
	if len(texts) == 0 {
		return "0"
	}
	return fmt.Sprintf("%.2f: %s", total, strings.Join(texts, ", "))
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	values = slices.Sorted(slices.Values(values))
	middle := len(values) / 2
	if len(values)%2 == 0 {
		return (values[middle-1] + values[middle]) / 2
	}
	return values[middle]
}

// A result is one run of one agent.
type result struct {
	name   string
	phases map[string]measure
	// rss is the memory of the agent with all works applied, maxRSS the most that
	// it had in the whole run; in MB.
	rss, maxRSS float64
}

// String is the run in one line.
func (r result) String() string {
	var texts []string
	for _, phase := range phases {
		m := r.phases[phase]
		texts = append(texts, fmt.Sprintf("%s %.2fs CPU %.2fs", phase, m.seconds(), m.agent))
	}
	return fmt.Sprintf("%s: %s; RSS %.1f MB, at most %.1f MB", r.name, strings.Join(texts, ", "), r.rss, r.maxRSS)
}

// A measure is what one phase of a run cost.
type measure struct {
	took          time.Duration
	agent, server float64 // CPU seconds.
	requests      map[string]int
}

func (m measure) seconds() float64 { return m.took.Seconds() }
