package faults

import (
	"errors"
	"fmt"
	"os/exec"
)

// dispatching is what a replica logs when it begins to lead.
const dispatching = "dispatching works"

// replica is one of several processes of the hub, which compete for the lead.
func (h *hub) replica(w *world, index int) *process {
	w.t.Helper()
	metrics, health := freeAddress(w.t), freeAddress(w.t)
	p := h.program(w, fmt.Sprint("hub-", index))
	one := p.command
	p.command = func() *exec.Cmd {
		cmd := one()
		cmd.Args = append(cmd.Args, "--leader-elect=true", "--metrics-bind-address", metrics, "--health-probe-bind-address", health)
		return cmd
	}
	return p
}

// leader is the replica that works: the one that says so.
func (w *world) leader(replicas []*process) *process {
	w.t.Helper()
	for _, p := range replicas {
		if p.running() && p.logged(dispatching) == nil {
			return p
		}
	}
	w.t.Fatal("no replica leads")
	return nil
}

// leads succeeds when a replica other than one leads.
func (w *world) leads(replicas []*process, but *process) error {
	for _, p := range replicas {
		if p != but && p.running() && p.logged(dispatching) == nil {
			return nil
		}
	}
	return errors.New("none leads")
}
