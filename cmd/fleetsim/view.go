package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// A view shows what is going on: on a terminal one line that changes, elsewhere
// a line now and then.
type view struct {
	w        io.Writer
	terminal bool

	mu    sync.Mutex
	shown time.Time
}

// Pauses between two states of what is going on.
const (
	onTerminal = 200 * time.Millisecond
	elsewhere  = 15 * time.Second
)

func newView(w io.Writer) *view {
	file, ok := w.(*os.File)
	return &view{w: w, terminal: ok && term.IsTerminal(int(file.Fd())), shown: time.Now()}
}

// showf shows a state, unless the last one is too fresh.
func (v *view) showf(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	pause := elsewhere
	if v.terminal {
		pause = onTerminal
	}
	if time.Since(v.shown) < pause {
		return
	}
	v.shown = time.Now()
	v.printf(false, format, args...)
}

// donef says what is over, in a line that stays.
func (v *view) donef(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.printf(true, format, args...)
}

// printf is called with the lock held. That nobody reads is no reason to stop.
func (v *view) printf(stays bool, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	switch {
	case !v.terminal:
		_, _ = fmt.Fprintln(v.w, text)
	case stays:
		_, _ = fmt.Fprintf(v.w, "\r\x1b[K%s\n", text)
	default:
		_, _ = fmt.Fprintf(v.w, "\r\x1b[K%s", text)
	}
}

// follow shows how a step goes until the returned function is called.
func (v *view) follow(what string, progress func() (arrived, underWay int)) (stop func()) {
	over, ended := make(chan struct{}), make(chan struct{})
	began := time.Now()
	go func() {
		defer close(ended)
		tick := time.NewTicker(onTerminal)
		defer tick.Stop()
		for {
			select {
			case <-over:
				return
			case <-tick.C:
			}
			arrived, underWay := progress()
			spent := time.Since(began)
			v.showf("%s: %s, %d works arrived (%.0f/s), %d under way",
				what, spent.Round(time.Second), arrived, float64(arrived)/spent.Seconds(), underWay)
		}
	}()
	return func() {
		close(over)
		<-ended
	}
}

// close leaves the terminal with an empty line to go on with.
func (v *view) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.terminal {
		_, _ = fmt.Fprint(v.w, "\r\x1b[K")
	}
}
