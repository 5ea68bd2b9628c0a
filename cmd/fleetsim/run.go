package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetcast-io/fleetcast/pkg/fleet"
	"github.com/fleetcast-io/fleetcast/pkg/fleet/process"
)

type runFlags struct {
	clusters, works, size, joining int

	broker, scenario, json, stateDir string

	seed    uint64
	timeout time.Duration
	verbose bool
}

func newRun() *cobra.Command {
	var flags runFlags
	cmd := &cobra.Command{
		Use:   "run --clusters N --works M --broker nats|mqtt|URL",
		Short: "Run a scenario and report on it",
		Long: `Run a scenario and report on it.

With nats or mqtt a broker is started for the simulation, as a process of its own
that is gone afterwards: nats-server with JetStream on files, or mosquitto if that
is installed. A URL is that of a broker of yours, on which the fleet leaves its
streams or sessions; use one that nobody else uses.

The report is written to stdout, what happens meanwhile to stderr. The last line
on stdout is works=W seconds=S rate=R lost=L: how many works the hub got the status
of, in which time, and how many are not on their cluster in the end, as sums over
both ends tell. It fails if any is lost.`,
		Example: `  fleetsim run --clusters 100 --works 10 --broker nats
  fleetsim run --clusters 1000 --works 100 --broker mqtt --scenario broker-restart --json result.json
  fleetsim run --clusters 50 --works 2 --broker nats://127.0.0.1:4222 --scenario my.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runScenario(cmd, flags) },
	}
	f := cmd.Flags()
	f.IntVar(&flags.clusters, "clusters", 100, "how many clusters there are")
	f.IntVar(&flags.works, "works", 10, "how many works each cluster has")
	f.IntVar(&flags.size, "size", 1500, "about how many bytes the payload of a work has")
	f.StringVar(&flags.broker, "broker", "nats", "nats or mqtt to start one, or the URL of one")
	f.StringVar(&flags.scenario, "scenario", "load", "name of a scenario (see fleetsim scenarios), or a file")
	f.StringVar(&flags.json, "json", "", "file for the report as JSON, too")
	f.StringVar(&flags.stateDir, "state-dir", "", "directory in which agents keep their state on disk (default: in memory)")
	f.Uint64Var(&flags.seed, "seed", 1, "what is drawn at random is drawn from this")
	f.IntVar(&flags.joining, "joining", 64, "how many agents connect at the same time at first")
	f.DurationVar(&flags.timeout, "timeout", 30*time.Minute, "how long everything may take")
	f.BoolVarP(&flags.verbose, "verbose", "v", false, "tell what hub and agents tell")
	return cmd
}

func newScenarios() *cobra.Command {
	return &cobra.Command{
		Use: "scenarios", Short: "List the scenarios that come with fleetsim", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range fleet.Scenarios() {
				s, err := fleet.Named(name)
				if err != nil {
					return err
				}
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%-16s %s\n", name, s.Description); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// readScenario takes a file for what looks like one.
func readScenario(name string) (fleet.Scenario, error) {
	if !strings.ContainsAny(name, "./") {
		return fleet.Named(name)
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		return fleet.Scenario{}, fmt.Errorf("read the scenario: %w", err)
	}
	s, err := fleet.ParseScenario(raw)
	if err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

var errLost = errors.New("works were lost")

func runScenario(cmd *cobra.Command, flags runFlags) (err error) {
	ctx, cancel := context.WithTimeout(cmd.Context(), flags.timeout)
	defer cancel()
	scenario, err := readScenario(flags.scenario)
	if err != nil {
		return err
	}
	level := slog.LevelError
	if flags.verbose {
		level = slog.LevelInfo
	}
	o := fleet.Options{
		Clusters: flags.clusters, Works: flags.works, Size: flags.size, Broker: flags.broker, Behaviour: scenario.Behaviour,
		Seed: flags.seed, Joining: flags.joining, StateDir: flags.stateDir,
		Log: slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level})),
	}
	report := &fleet.Report{
		Simulated: fleet.Simulated, Clusters: o.Clusters, WorksPerCluster: o.Works, Size: o.Size, Broker: flags.broker, Seed: o.Seed,
		Machine: fleet.Machine{CPUs: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(), Load: load()},
	}
	var broker fleet.Broker
	if !strings.Contains(flags.broker, "://") {
		own, remove, err := startBroker(ctx, process.Kind(flags.broker))
		if err != nil {
			return err
		}
		defer remove()
		broker, o.Broker, report.Broker = own, own.URL(), own.Name()
	} else if scenario.NeedsBroker() {
		return fmt.Errorf("scenario %s stops its broker: give --broker nats or mqtt, so that fleetsim starts one", flags.scenario)
	}
	f, err := fleet.New(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	playErr := play(ctx, cmd.ErrOrStderr(), f, scenario, broker, report)
	if err := write(cmd.OutOrStdout(), flags.json, report); err != nil {
		return err
	}
	switch {
	case playErr != nil:
		return playErr
	case report.Lost() > 0:
		return fmt.Errorf("%d %w", report.Lost(), errLost)
	}
	return nil
}

// startBroker starts a broker in a temporary directory. remove ends it and
// deletes that.
func startBroker(ctx context.Context, kind process.Kind) (b *process.Broker, remove func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, fmt.Errorf("find this program: %w", err)
	}
	dir, err := os.MkdirTemp("", "fleetsim-")
	if err != nil {
		return nil, nil, fmt.Errorf("make a directory for the broker: %w", err)
	}
	if b, err = process.New(ctx, kind, dir, self); err == nil {
		err = b.Start(ctx)
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, nil, err
	}
	return b, func() {
		_ = b.Stop()
		_ = os.RemoveAll(dir)
	}, nil
}

// play has the fleet go through the scenario. What it came to so far is in the
// report also beside an error.
func play(ctx context.Context, w io.Writer, f *fleet.Fleet, s fleet.Scenario, broker fleet.Broker, report *fleet.Report) error {
	view := newView(w)
	defer view.close()
	began := time.Now()
	if err := f.Start(ctx, func(n int) { view.showf("agents listening: %d of %d", n, report.Clusters) }); err != nil {
		return err
	}
	report.Join = time.Since(began).Seconds()
	view.donef("all %d agents listen after %.1f s", report.Clusters, report.Join)
	for i, step := range s.Steps {
		stop := view.follow(fmt.Sprintf("step %d, %s", i+1, step), f.Progress)
		result, err := f.Play(ctx, step, i+1, broker)
		stop()
		report.Steps = append(report.Steps, result)
		if err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
		view.donef("step %d, %s: over after %.1f s, %d works", i+1, step, result.Seconds, result.Arrived)
	}
	return nil
}

func write(w io.Writer, file string, report *fleet.Report) error {
	if file != "" {
		raw, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return fmt.Errorf("write the report as JSON: %w", err)
		}
		if err := os.WriteFile(file, append(raw, '\n'), 0o600); err != nil {
			return fmt.Errorf("write the report as JSON: %w", err)
		}
	}
	if err := report.Write(w); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	_, err := fmt.Fprintf(w, "\n%s\n", report.Summary())
	return err
}

// load is the system's load average over the last minute, "" where nobody tells.
func load() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(raw), " ")
	return first
}
