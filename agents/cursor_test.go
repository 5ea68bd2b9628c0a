package agents

import "testing"

func TestProgress(t *testing.T) {
	var p progress
	a, b, c := p.arrive("1"), p.arrive("2"), p.arrive("3")
	if p.arrive("2") != b {
		t.Error("an event that comes again has a step of its own")
	}
	if p.arrive("") != nil {
		t.Error("an event without position has a step")
	}
	p.pass(b, nil)
	if got := p.reach(); got != "" {
		t.Errorf("resumes after %q while the first event is not safe", got)
	}
	if got := p.reach(a); got != "2" {
		t.Errorf("once the first is safe, resumes after %q, want 2", got)
	}
	if got := p.reach(c); got != "" {
		t.Errorf("with the first still open, resumes after %q", got)
	}
	p.pass(a)
	p.trim()
	if got := p.reach(c); got != "3" || len(p.steps) != 1 {
		t.Errorf("resumes after %q with %d steps, want 3 with 1", got, len(p.steps))
	}
	p.restart()
	if len(p.steps) != 0 {
		t.Error("steps are left after a restart")
	}
}
