package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A cgroup limits what a program takes of the machine, as a kubelet does. It is
// of the first or the second version, whichever the machine has.
type cgroup struct {
	t           testing.TB
	second      bool
	cpu, memory string // Its folders, which in the second version are one.
}

const cgroups = "/sys/fs/cgroup"

func newCgroup(t testing.TB) *cgroup {
	t.Helper()
	name := fmt.Sprint("fleetcast-faults-", os.Getpid())
	g := &cgroup{t: t}
	if _, err := os.Stat(filepath.Join(cgroups, "cgroup.controllers")); err == nil {
		g.second = true
		g.cpu = filepath.Join(cgroups, name)
		g.memory = g.cpu
	} else {
		g.cpu, g.memory = filepath.Join(cgroups, "cpu", name), filepath.Join(cgroups, "memory", name)
	}
	for _, dir := range []string{g.cpu, g.memory} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatalf("make a cgroup, which needs root: %v", err)
		}
		t.Cleanup(func() {
			// The kernel takes a moment to see that a killed process is gone.
			_ = within(patience, func() error {
				if err := os.Remove(dir); !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				return nil
			})
		})
	}
	return g
}

func (g *cgroup) set(dir, name, value string) {
	g.t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0); err != nil {
		g.t.Fatalf("limit a program: %v", err)
	}
}

// limit gives so many hundredths of a CPU and bytes of memory; 0 is all there
// is. Memory can only be taken from a program that does not run.
func (g *cgroup) limit(percent, bytes int) {
	g.t.Helper()
	const period = 100_000 // In microseconds.
	if g.second {
		quota, most := "max", "max"
		if percent > 0 {
			quota = fmt.Sprintf("%d %d", percent*period/100, period)
		}
		if bytes > 0 {
			most = strconv.Itoa(bytes)
		}
		g.set(g.cpu, "cpu.max", quota)
		g.set(g.memory, "memory.max", most)
		return
	}
	quota, most := "-1", "-1"
	if percent > 0 {
		quota = strconv.Itoa(percent * period / 100)
	}
	if bytes > 0 {
		most = strconv.Itoa(bytes)
	}
	g.set(g.cpu, "cpu.cfs_quota_us", quota)
	g.set(g.memory, "memory.limit_in_bytes", most)
}

// holds has the program run in the cgroup when it is started next.
func (g *cgroup) holds(p *process) {
	g.t.Cleanup(p.kill) // A cgroup goes when it is empty.
	free := p.command
	p.command = func() *exec.Cmd {
		cmd := free()
		enter := `for g in "$1" "$2"; do echo $$ > "$g/cgroup.procs"; done; shift 2; exec "$@"`
		return exec.Command("sh", append([]string{"-c", enter, "sh", g.cpu, g.memory}, cmd.Args...)...)
	}
}

// kills is how often the kernel killed the program for want of memory.
func (g *cgroup) kills() int {
	g.t.Helper()
	name := "memory.oom_control"
	if g.second {
		name = "memory.events"
	}
	text, err := os.ReadFile(filepath.Join(g.memory, name))
	if err != nil {
		g.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if count, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			n, err := strconv.Atoi(count)
			if err != nil {
				g.t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

// throttled floods an agent that has little, and then too little, and is
// restarted whenever it ends, as a kubelet would.
func throttled(w *world) {
	all, c := works("c1", 200), w.clusters["c1"]
	g := newCgroup(w.t)
	c.agent.kill()
	g.holds(c.agent)
	w.run(c.agent)
	w.putAll(all[:10])
	w.converge()

	const room, share = 64 << 20, 5
	c.agent.kill()
	g.limit(share, room)
	w.run(c.agent)
	flood := func() { w.each(all, func(k key) error { return w.write(k, 10_000) }) }
	flood()
	flood()
	w.lasts(10 * time.Second)
	if n := g.kills(); n > 0 || !c.agent.running() {
		w.t.Errorf("P9: the agent needed more than %d MiB, the kernel killed it %d times", room>>20, n)
	}
	g.limit(0, room)
	w.converge()

	for most := 40 << 20; g.kills() == 0; most -= 4 << 20 {
		if most <= 0 {
			w.t.Fatal("the kernel does not kill the agent, however little memory it has")
		}
		w.stepf("%d MiB of memory", most>>20)
		c.agent.kill()
		g.limit(0, most)
		w.run(c.agent)
		flood()
		if w.survives(c, 10*time.Second) {
			continue
		}
		for range 3 {
			if !c.agent.running() {
				w.run(c.agent)
			}
			w.survives(c, 10*time.Second)
		}
	}
	w.stepf("the kernel killed the agent %d times", g.kills())
	c.agent.kill()
	g.limit(0, 0)
	w.removeAll(all[190:])
	w.run(c.agent)
}

// survives says whether the agent still runs after so long.
func (w *world) survives(c *cluster, d time.Duration) bool {
	select {
	case <-c.agent.done:
		return false
	case <-time.After(d):
		return true
	}
}
