package faults

import (
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// noSpace is what an API server says whose etcd is over its quota.
const noSpace = "etcdserver: mvcc: database space exceeded"

// What may happen to API servers. That of a cluster is behind a gate; that of
// the hub is killed, too.
var apiServerCases = []faultCase{
	{
		id: "33a", title: "the cluster's API server refuses every write, for its etcd is full; the agent is restarted meanwhile", promises: "P1 P3 P11", bound: 2 * time.Minute,
		run: refusedWrites,
	},
	{
		id: "33b", title: "the agent's own disk is full for a while", promises: "P1 P3 P11", bound: 2 * time.Minute,
		run: agentDiskFull,
	},
	{
		id: "43a", title: "the cluster's API server has everybody wait (429, Retry-After of 3 s) for 45 s", promises: "P1 P9 P11", bound: time.Minute,
		run: func(w *world) {
			a := answer{code: http.StatusTooManyRequests, reason: metav1.StatusReasonTooManyRequests, message: "Too Many Requests, please try again later", retryAfter: 3}
			heard := w.troubled(always(a), 45*time.Second, "Too Many Requests", "Too Many Requests")
			if err := impatient(heard); err != nil {
				w.t.Errorf("P9: %v", err)
			}
			w.notHot(heard, 20)
		},
	},
	{
		id: "43b", title: "the cluster's API server answers 500 and 503 for 30 s", promises: "P1 P9 P11", bound: time.Minute,
		run: func(w *world) {
			broken := answer{code: http.StatusInternalServerError, reason: metav1.StatusReasonInternalError, message: "the store is away"}
			away := answer{code: http.StatusServiceUnavailable, reason: metav1.StatusReasonServiceUnavailable, message: "the store is away"}
			n := 0
			heard := w.troubled(func(*http.Request) *answer {
				n++
				return []*answer{&broken, &away}[n%2]
			}, 30*time.Second, "the store is away", "the store is away")
			w.notHot(heard, 20)
		},
	},
	{
		id: "43c", title: "the cluster's API server takes requests for 30 s that it never answers", promises: "P1 P8 P9 P11", bound: time.Minute,
		run: func(w *world) {
			heard := w.troubled(always(answer{}), 30*time.Second, "deadline exceeded", "deadline exceeded")
			w.notHot(heard, 10)
		},
	},
	{
		id: "43d", title: "the cluster's API server says to every write that somebody else was faster (409) for 30 s", promises: "P1 P9 P11", bound: time.Minute,
		run: func(w *world) {
			a := answer{code: http.StatusConflict, reason: metav1.StatusReasonConflict, message: "the object has been modified"}
			heard := w.troubled(writes(a), 30*time.Second, "others keep changing the object", a.message)
			// A conflict is tried again at once, a few times.
			w.notHot(heard, 80)
		},
	},
	{
		id: "54a", title: "the hub's API server is killed in the middle of updates, and killed again", promises: "P1 P2 P3", bound: 90 * time.Second,
		run: func(w *world) {
			all := works("c1", 20)
			w.putAll(all)
			w.converge()
			for range 2 {
				w.putAll(all[:10])
				w.hub.server.Kill(w.t)
				w.lasts(10 * time.Second)
				w.hub.server.Restart(w.t)
			}
			w.putAll(all[5:15])
			w.removeAll(all[15:])
		},
	},
	{
		id: "54b", title: "the hub's watches end and are too old to be taken up again (410), and lists fail, while works change and go", promises: "P1 P2 P3 P4", bound: 90 * time.Second,
		run: brokenWatches,
	},
}

// troubled has works change while the cluster's API server is in trouble for so
// long, and longer if the hub was not told by then, of an update and of a
// deletion, what the texts say. It returns what the agent asked meanwhile.
func (w *world) troubled(s script, d time.Duration, update, deletion string) []request {
	w.t.Helper()
	all, c := works("c1", 20), w.clusters["c1"]
	g := w.gate(c)
	w.putAll(all)
	w.converge()
	agent := c.agent.cmd.Process.Pid
	g.begin(s)
	w.change(all)
	// A kind that the agent has not asked for yet.
	w.putWith(all[0], role(all[0]))
	w.lasts(d)
	await(w.t, "the hub is told what is wrong", func() error { return w.hub.tells(w.t.Context(), all[1], 0, "False", update) })
	await(w.t, "the hub is told what the deletion waits for", func() error { return w.hub.tellsDeleting(w.t.Context(), all[15], deletion) })
	heard := g.end()
	w.stepf("the API server is well again, %d requests came meanwhile", len(heard))
	if len(heard) == 0 {
		w.t.Error("the agent asked nothing of the API server in trouble")
	}
	if !c.agent.running() || c.agent.cmd.Process.Pid != agent {
		w.t.Error("the agent ended over an API server in trouble")
	}
	return heard
}

func (w *world) notHot(heard []request, most int) {
	w.t.Helper()
	if err := hot(heard, most); err != nil {
		w.t.Errorf("P9: %v", err)
	}
}

// role is a part of another kind than all else has.
func role(k key) map[string]any {
	return map[string]any{
		"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
		"metadata": map[string]any{"name": k.name, "namespace": "default"}, "rules": []any{},
	}
}

func refusedWrites(w *world) {
	all, c := works("c1", 20), w.clusters["c1"]
	g := w.gate(c)
	w.putAll(all)
	w.converge()
	g.begin(writes(
		answer{code: http.StatusInternalServerError, reason: metav1.StatusReasonInternalError, message: noSpace},
		answer{code: http.StatusInsufficientStorage, message: noSpace},
	))
	agent := c.agent.cmd.Process.Pid
	w.change(all)
	await(w.t, "the hub is told of the update", func() error { return w.hub.tells(w.t.Context(), all[0], 0, "False", noSpace) })
	await(w.t, "the hub is told of the deletion", func() error { return w.hub.tellsDeleting(w.t.Context(), all[15], noSpace) })
	if !c.agent.running() || c.agent.cmd.Process.Pid != agent {
		w.t.Error("the agent ended because nothing can be written")
	}
	// One that starts meanwhile tells as well.
	w.restart(c.agent)
	w.put(all[11])
	await(w.t, "the hub is told by the restarted agent", func() error { return w.hub.tells(w.t.Context(), all[11], 0, "False", noSpace) })
	w.must(probe(w.t.Context(), c.metrics, "/readyz"))
	w.notHot(g.end(), 60)
}

func agentDiskFull(w *world) {
	all, c := works("c1", 20), w.clusters["c1"]
	w.must(c.agent.stop())
	disk := &node{dir: filepath.Join(c.dir, "small")}
	smallDisk(w.t, disk.dir, 4<<20)
	ample := c.agent.command
	c.agent.command = func() *exec.Cmd {
		cmd := ample()
		cmd.Args = append(cmd.Args, "--data-dir", disk.dir)
		return cmd
	}
	w.run(c.agent)
	w.putAll(all)
	w.converge()
	agent := c.agent.cmd.Process.Pid
	free := disk.fill(w.t)
	for i, k := range all {
		if i < 15 {
			w.putSized(k, 20_000)
		} else {
			w.remove(k)
		}
	}
	await(w.t, "the agent says that it is not ready, and why", func() error {
		err := probe(w.t.Context(), c.metrics, "/readyz")
		if err == nil || !strings.Contains(err.Error(), "no space left on device") {
			return unexpected(err)
		}
		return nil
	})
	w.lasts(15 * time.Second)
	w.must(probe(w.t.Context(), c.metrics, "/livez"))
	if !c.agent.running() || c.agent.cmd.Process.Pid != agent {
		w.t.Error("the agent ended over a full disk")
	}
	free()
	await(w.t, "the agent is ready again", func() error { return probe(w.t.Context(), c.metrics, "/readyz") })
}

func brokenWatches(w *world) {
	all := works("c1", 20)
	g := w.hubGate()
	w.putAll(all)
	w.converge()
	await(w.t, "the hub dispatches", func() error { return w.hub.dispatches(w.t.Context()) })
	tooOld := answer{code: http.StatusGone, reason: metav1.StatusReasonExpired, message: "too old resource version"}
	failing := answer{code: http.StatusInternalServerError, reason: metav1.StatusReasonInternalError, message: "the store is away"}
	g.begin(func(r *http.Request) *answer {
		switch {
		case r.Method == http.MethodGet && r.URL.Query().Has("watch"):
			return &tooOld
		case r.Method == http.MethodGet:
			return &failing
		}
		return nil
	})
	g.endWatches()
	w.change(all)
	w.lasts(20 * time.Second)
	// Lists work again, and what they tell is overtaken before anything is watched.
	g.begin(func(r *http.Request) *answer {
		if r.Method == http.MethodGet && r.URL.Query().Has("watch") {
			return &tooOld
		}
		return nil
	})
	w.putAll(all[:10])
	w.lasts(10 * time.Second)
	if len(g.end()) == 0 {
		w.t.Error("the hub did not try to watch")
	}
}
