package agents

import (
	"slices"
	"sync"
)

// progress is how far the broker's log was read: the events that arrived and
// that the cursor has not passed, in their order. The cursor passes an event
// when that and all before it are safe, so that whoever resumes from it misses
// nothing. The number of events is bounded by what the driver leaves unsettled.
type progress struct {
	mu    sync.Mutex
	steps []*step
}

// A step is one event of the log.
type step struct {
	position string
	safe     bool
}

// restart forgets all steps: the broker delivers again what is behind the
// cursor.
func (p *progress) restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.steps = nil
}

// arrive notes an event, which may have arrived before. Events without position
// have no step.
func (p *progress) arrive(position string) *step {
	if position == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range slices.Backward(p.steps) {
		if s.position == position {
			return s
		}
	}
	s := &step{position: position}
	p.steps = append(p.steps, s)
	return s
}

// pass notes that the events of the steps are safe, or need not be. Nil steps
// are passed over.
func (p *progress) pass(steps ...*step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range steps {
		if s != nil {
			s.safe = true
		}
	}
}

// trim forgets the events that the cursor has passed.
func (p *progress) trim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.steps) > 0 && p.steps[0].safe {
		p.steps = p.steps[1:]
	}
}

// reach is the position to resume from once the events of the steps are safe,
// or "" if that stays where it is.
func (p *progress) reach(steps ...*step) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	position := ""
	for _, s := range p.steps {
		if !s.safe && !slices.Contains(steps, s) {
			break
		}
		position = s.position
	}
	return position
}
