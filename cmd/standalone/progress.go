package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress tells a person what starts and what is there. On a terminal it shows
// what it waits for in a last line that changes; elsewhere it writes a line for
// each thing that is there. It is safe for concurrent use. As a Writer it takes
// whole lines of a log.
type progress struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	pending  []string
}

// clearLine goes to the start of the line and deletes it.
const clearLine = "\r\x1b[K"

func newProgress(w io.Writer) *progress {
	file, ok := w.(*os.File)
	return &progress{w: w, terminal: ok && term.IsTerminal(int(file.Fd()))}
}

// begin says that what is being started. The returned function says that it is
// there, with details to add; it does nothing after the first call.
func (p *progress) begin(what string) (done func(details string)) {
	started := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending = append(p.pending, what)
	p.show("")
	var once sync.Once
	return func(details string) {
		once.Do(func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.remove(what)
			if details != "" {
				details = ": " + details
			}
			p.show(fmt.Sprintf("%s is ready after %.1f s%s\n", what, time.Since(started).Seconds(), details))
		})
	}
}

// end forgets what was begun and is not there, before the reason is printed.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending = nil
	p.show("")
}

func (p *progress) printf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.show(fmt.Sprintf(format, args...) + "\n")
}

func (p *progress) Write(lines []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.show(string(lines))
	return len(lines), nil
}

func (p *progress) remove(what string) {
	if i := slices.Index(p.pending, what); i >= 0 {
		p.pending = slices.Delete(p.pending, i, i+1)
	}
}

// show writes lines, and below them what is pending.
func (p *progress) show(lines string) {
	if !p.terminal {
		fmt.Fprint(p.w, lines)
		return
	}
	waiting := ""
	if n := len(p.pending); n > 0 {
		// One line that wraps could not be cleared.
		waiting = "starting " + strings.Join(p.pending[:min(n, 3)], ", ")
		if n > 3 {
			waiting += fmt.Sprintf(" and %d more", n-3)
		}
		waiting += " ..."
	}
	fmt.Fprint(p.w, clearLine+lines+waiting)
}
