package fleet_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fleetcast-io/fleetcast/pkg/fleet"
	"github.com/fleetcast-io/fleetcast/pkg/fleet/process"
)

// patience bounds a failing test only.
const patience = 5 * time.Minute

// TestMain lets this program be the broker that tests start.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "broker" {
		if err := process.Serve(context.Background(), process.Kind(os.Args[2]), os.Args[3], os.Args[4], nil); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// kinds are the brokers that are built in.
var kinds = []process.Kind{process.NATS, process.MQTT}

func startBroker(t *testing.T, kind process.Kind) *process.Broker {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := process.New(t.Context(), kind, t.TempDir(), self)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Kill(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func startFleet(t *testing.T, o fleet.Options) *fleet.Fleet {
	t.Helper()
	f, err := fleet.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := f.Start(ctx, nil); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestScenarios plays every scenario that comes along.
func TestScenarios(t *testing.T) {
	t.Setenv("PATH", "") // The built-in brokers are what tests can count on.
	for _, kind := range kinds {
		for _, name := range fleet.Scenarios() {
			t.Run(string(kind)+"/"+name, func(t *testing.T) {
				s, err := fleet.Named(name)
				if err != nil {
					t.Fatal(err)
				}
				s.Behaviour.Drift.Duration /= 50
				for i := range s.Steps {
					s.Steps[i].For.Duration /= 10
				}
				b := startBroker(t, kind)
				f := startFleet(t, fleet.Options{Clusters: 10, Works: 5, Broker: b.URL(), Behaviour: s.Behaviour, Seed: 7})
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				for i, step := range s.Steps {
					r, err := f.Play(ctx, step, i+1, b)
					if err != nil {
						t.Fatalf("step %d: %v", i+1, err)
					}
					if r.Arrived != r.Works || r.Proof.Equal != 10 || r.Proof.Lost != 0 || r.Proof.Works != 50 {
						t.Errorf("step %d, %s: %d of %d works arrived, proof %+v", i+1, step, r.Arrived, r.Works, r.Proof)
					}
				}
			})
		}
	}
}

// TestStateOnDisk has agents keep their state as real ones do, and find it again.
func TestStateOnDisk(t *testing.T) {
	b, dir := startBroker(t, process.NATS), t.TempDir()
	f := startFleet(t, fleet.Options{Clusters: 3, Works: 2, Broker: b.URL(), StateDir: dir})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i, step := range []fleet.Step{{Do: fleet.Load}, {Do: fleet.Away}} {
		if r, err := f.Play(ctx, step, i+1, nil); err != nil || r.Arrived != 6 {
			t.Fatalf("%s: %d works arrived: %v", step, r.Arrived, err)
		}
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*", "*")); err != nil || len(files) != 3 {
		t.Errorf("%d agents have a file (%v), want 3", len(files), err)
	}
}

// TestProofSeesLoss: the proof does not take the word of either end.
func TestProofSeesLoss(t *testing.T) {
	b := startBroker(t, process.NATS)
	f := startFleet(t, fleet.Options{Clusters: 4, Works: 3, Broker: b.URL()})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := f.Play(ctx, fleet.Step{Do: fleet.Load}, 1, nil); err != nil {
		t.Fatal(err)
	}
	// What nobody carries to the clusters is lost.
	if err := f.StopHub(); err != nil {
		t.Fatal(err)
	}
	if n, err := f.Put(ctx, "2", func(cluster, work int) bool { return cluster == 1 && work < 2 }); n != 2 || err != nil {
		t.Fatalf("%d works put, %v", n, err)
	}
	p, err := f.Prove(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if p.Equal != 3 || p.Different != 1 || p.Lost != 2 || len(p.Examples) != 1 {
		t.Errorf("the proof says %+v, want that two works of one cluster are lost", p)
	}
	if arrived, underWay := f.Progress(); underWay != 2 {
		t.Errorf("%d works are under way, %d arrived; want 2 under way", underWay, arrived)
	}
	short, stop := context.WithCancel(ctx)
	stop()
	if err := f.Await(short); err == nil {
		t.Error("works that nobody carries are said to have arrived")
	}
}

func TestParseScenario(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"empty":          {"", "begins with"},
		"no load":        {"steps: [{do: change}]", "begins with"},
		"unknown action": {"steps: [{do: load}, {do: dance}]", "no action"},
		"unknown field":  {"steps: [{do: load, shar: 1}]", "unknown field"},
		"share":          {"steps: [{do: load}, {do: change, share: 2}]", "from 0 to 1"},
		"time":           {"steps: [{do: load}, {do: idle, for: -1s}]", "to a day"},
		"waves":          {"steps: [{do: load}, {do: roll, waves: -1}]", "waves"},
		"loads again":    {"steps: [{do: load}, {do: load}]", "once"},
		"failures":       {"behaviour: {failures: 1}\nsteps: [{do: load}]", "under 1"},
		"delay":          {"behaviour: {delay: -1s}\nsteps: [{do: load}]", "negative"},
	} {
		if _, err := fleet.ParseScenario([]byte(test.text)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an error about %q", name, err, test.want)
		}
	}
	s, err := fleet.ParseScenario([]byte("behaviour: {delay: 5ms}\nsteps: [{do: load}, {do: wipe-broker, for: 2s}]"))
	if err != nil || s.Behaviour.Delay.Duration != 5*time.Millisecond || s.Steps[1].For != (metav1.Duration{Duration: 2 * time.Second}) || !s.NeedsBroker() {
		t.Errorf("the scenario is read as %+v (%v)", s, err)
	}
	if _, err := fleet.Named("nothing"); err == nil {
		t.Error("there is a scenario called nothing")
	}
}

func TestNeedsItsOwnBroker(t *testing.T) {
	b := startBroker(t, process.NATS)
	f := startFleet(t, fleet.Options{Clusters: 1, Works: 1, Broker: b.URL()})
	if _, err := f.Play(t.Context(), fleet.Step{Do: fleet.WipeBroker}, 1, nil); err == nil {
		t.Error("somebody else's broker is wiped")
	}
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]fleet.Options{
		"no clusters": {Broker: "nats://127.0.0.1:1"},
		"no broker":   {Clusters: 1},
		"works":       {Clusters: 1, Works: -1, Broker: "nats://127.0.0.1:1"},
		"size":        {Clusters: 1, Size: -1, Broker: "nats://127.0.0.1:1"},
		"failures":    {Clusters: 1, Broker: "nats://127.0.0.1:1", Behaviour: fleet.Behaviour{Failures: 2}},
	} {
		if _, err := fleet.New(o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestReport(t *testing.T) {
	r := fleet.Report{Clusters: 2, WorksPerCluster: 3, Steps: []fleet.Result{
		{Step: fleet.Step{Do: fleet.Load}, Works: 6, Arrived: 6, Seconds: 2, Proof: fleet.Proof{Equal: 2, Works: 6}},
		{Step: fleet.Step{Do: fleet.RestartHub}, Seconds: 5, Proof: fleet.Proof{Equal: 2, Works: 6}},
	}}
	if got, want := r.Summary(), "works=6 seconds=2.0 rate=3 lost=0"; got != want {
		t.Errorf("the summary is %q, want %q", got, want)
	}
	r.Steps = append(r.Steps, fleet.Result{Step: fleet.Step{Do: fleet.Change}, Works: 6, Arrived: 4, Seconds: 2, Proof: fleet.Proof{Equal: 1, Different: 1, Lost: 1}})
	if r.Lost() != 2 {
		t.Errorf("%d works are lost, want the two that did not arrive", r.Lost())
	}
	text := &strings.Builder{}
	if err := r.Write(text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Step 2, restart-hub", "4 of 6 with their status", "1 do not"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, text)
		}
	}
	if raw, err := json.Marshal(r); err != nil || !strings.Contains(string(raw), `"arrived":4`) {
		t.Errorf("the report as JSON is %s (%v)", raw, err)
	}
}
