package fleet

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A Report is what a simulation came to.
type Report struct {
	// Simulated says what was not real.
	Simulated []string `json:"simulated"`

	Clusters        int     `json:"clusters"`
	WorksPerCluster int     `json:"worksPerCluster"`
	Size            int     `json:"payloadBytes"`
	Broker          string  `json:"broker"`
	Seed            uint64  `json:"seed"`
	Machine         Machine `json:"machine"`

	// Join is how many seconds it took until every agent listened.
	Join  float64  `json:"joinSeconds"`
	Steps []Result `json:"steps"`
}

// Machine is where it ran.
type Machine struct {
	CPUs int    `json:"cpus"`
	OS   string `json:"os"`
	Go   string `json:"go"`
	// Load is the system's load average over a minute when it began.
	Load string `json:"load,omitempty"`
}

// Simulated is what is not real in every simulation.
var Simulated = []string{
	"the clusters: they take what their agents apply as the scenario says, and run nothing",
	"the hub's API server: works are in the memory of the hub's process",
	"the machines: hub and all agents are in one process, the broker is another one beside it",
}

// A Result is what one step came to.
type Result struct {
	Step Step `json:"step"`
	// Works were made by the step, Arrived is how many the source then held the
	// status of.
	Works   int `json:"works"`
	Arrived int `json:"arrived"`
	// Seconds is until the last of them arrived, or, where none was made, until
	// the step was over. Rate is works per second.
	Seconds float64 `json:"seconds"`
	Rate    float64 `json:"rate"`
	// Latency is that of works, from the change at the source until it held the
	// status.
	Latency Latency `json:"latency"`
	Proof   Proof   `json:"proof"`

	ToClusters Traffic `json:"toClusters"`
	ToHub      Traffic `json:"toHub"`
	// Simulation is the process of hub and agents.
	Simulation Process `json:"simulation"`
	Broker     Process `json:"brokerProcess"`
	// Allocations are those of hub and agents together, per work that arrived.
	Allocations float64 `json:"allocationsPerWork"`
	Heap        uint64  `json:"heapBytes"`

	histogram *hdrhistogram.Histogram
}

// Latency is in seconds.
type Latency struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (f *Fleet) result(s Step, works int, before, after usage) Result {
	arrived, took, last := f.ledger.reset()
	seconds := after.at.Sub(before.at).Seconds()
	if arrived > 0 {
		seconds = last.Sub(before.at).Seconds()
	}
	r := Result{
		Step: s, Works: works, Arrived: arrived, Seconds: seconds,
		ToClusters: after.toClusters.since(before.toClusters), ToHub: after.toHub.since(before.toHub),
		Simulation: after.self.since(before.self), Broker: after.broker.since(before.broker),
		Heap: after.heap, histogram: took,
	}
	if s.needsBroker() {
		r.Broker.CPU = after.broker.CPU // It is another process now.
	}
	if arrived > 0 {
		quantile := func(q float64) float64 { return float64(took.ValueAtQuantile(q)) / 1e6 }
		r.Rate = float64(arrived) / seconds
		r.Latency = Latency{quantile(50), quantile(90), quantile(99), float64(took.Max()) / 1e6}
		r.Allocations = float64(after.mallocs-before.mallocs) / float64(arrived)
	}
	return r
}

// Lost is how many works are not where they should be after the last step.
func (r *Report) Lost() int {
	if len(r.Steps) == 0 {
		return 0
	}
	last := r.Steps[len(r.Steps)-1]
	return max(last.Proof.Lost, last.Works-last.Arrived)
}

// Summary is the one line that says it all: works whose status the source
// holds, the seconds that they took, their rate, and what is lost.
func (r *Report) Summary() string {
	works, seconds := 0, 0.0
	for _, s := range r.Steps {
		works += s.Arrived
		if s.Works > 0 {
			seconds += s.Seconds
		}
	}
	rate := 0.0
	if seconds > 0 {
		rate = float64(works) / seconds
	}
	return fmt.Sprintf("works=%d seconds=%.1f rate=%.0f lost=%d", works, seconds, rate, r.Lost())
}

// Write writes the report for people.
func (r *Report) Write(w io.Writer) error {
	b := &strings.Builder{}
	fmt.Fprintf(b, "%d clusters with %d works each of about %d bytes, over %s, seed %d\n", r.Clusters, r.WorksPerCluster, r.Size, r.Broker, r.Seed)
	fmt.Fprintf(b, "on %d processors, %s, %s, load %s\n", r.Machine.CPUs, r.Machine.OS, r.Machine.Go, r.Machine.Load)
	fmt.Fprintf(b, "all agents listened after %.1f s\n\nSimulated are\n", r.Join)
	for _, s := range r.Simulated {
		fmt.Fprintf(b, "  - %s\n", s)
	}
	for i := range r.Steps {
		r.Steps[i].write(b, i+1)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Result) write(b *strings.Builder, number int) {
	fmt.Fprintf(b, "\nStep %d, %s\n", number, r.Step)
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	defer func() { _ = t.Flush() }() // A strings.Builder takes everything.
	if r.Works > 0 {
		fmt.Fprintf(t, "  works\t%d of %d with their status at the hub, after %.1f s: %.0f/s\n", r.Arrived, r.Works, r.Seconds, r.Rate)
		fmt.Fprintf(t, "  from change to status\tp50 %.3f s, p90 %.3f s, p99 %.3f s, at most %.3f s\n", r.Latency.P50, r.Latency.P90, r.Latency.P99, r.Latency.Max)
	} else {
		fmt.Fprintf(t, "  over after\t%.1f s\n", r.Seconds)
	}
	fmt.Fprintf(t, "  both ends\t%d clusters run what the hub holds for them, %d do not; of %d works %d are lost\n",
		r.Proof.Equal, r.Proof.Different, r.Proof.Works, r.Proof.Lost)
	for _, e := range r.Proof.Examples {
		fmt.Fprintf(t, "  \t%s\n", e)
	}
	fmt.Fprintf(t, "  events to clusters\t%d, %s\n", r.ToClusters.Events, size(r.ToClusters.Bytes))
	fmt.Fprintf(t, "  events to the hub\t%d, %s\n", r.ToHub.Events, size(r.ToHub.Bytes))
	fmt.Fprintf(t, "  hub and agents\t%.1f s of processor time, %s of memory, %s at most\n", r.Simulation.CPU, size(r.Simulation.Resident), size(r.Simulation.Peak))
	if r.Broker.Resident > 0 {
		fmt.Fprintf(t, "  broker\t%.1f s of processor time, %s of memory, %s at most\n", r.Broker.CPU, size(r.Broker.Resident), size(r.Broker.Peak))
	}
	if r.Arrived > 0 {
		fmt.Fprintf(t, "  per work\t%.0f allocations, %.0f us of processor time (hub, agents, broker)\n",
			r.Allocations, (r.Simulation.CPU+r.Broker.CPU)*1e6/float64(r.Arrived))
		_ = t.Flush()
		r.draw(b)
	}
}

// draw draws how long works took: a line for each doubling.
func (r *Result) draw(b *strings.Builder) {
	if r.histogram == nil || r.histogram.TotalCount() == 0 {
		return
	}
	type line struct {
		below time.Duration
		n     int64
	}
	var lines []line
	most := int64(0)
	for _, bar := range r.histogram.Distribution() {
		if bar.Count == 0 {
			continue
		}
		below := time.Millisecond
		for below.Microseconds() < bar.To {
			below *= 2
		}
		if len(lines) == 0 || lines[len(lines)-1].below != below {
			lines = append(lines, line{below: below})
		}
		lines[len(lines)-1].n += bar.Count
		most = max(most, lines[len(lines)-1].n)
	}
	const width = 40
	for _, l := range lines {
		fmt.Fprintf(b, "  %12s  %-*s %d\n", "up to "+l.below.String(), width, strings.Repeat("#", int((l.n*width+most-1)/most)), l.n)
	}
}

// String names the step for people.
func (s Step) String() string {
	text := string(s.Do)
	if s.Share > 0 {
		text += fmt.Sprintf(" of %g %%", 100*s.Share)
	}
	if s.Waves > 0 {
		text += fmt.Sprintf(" in %d waves", s.Waves)
	}
	if s.For.Duration > 0 {
		text += " for " + s.For.Duration.String()
	}
	return text
}

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 10<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
