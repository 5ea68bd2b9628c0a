package agents_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcast-io/fleetcast/agents"
	"github.com/fleetcast-io/fleetcast/codec"
)

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) lines(with string) (found []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(b.buf.String()) {
		if strings.Contains(line, with) {
			found = append(found, line)
		}
	}
	return found
}

// TestTracingAnnotationsAreLogged with what happens to their work, and to no
// other.
func TestTracingAnnotationsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var log lockedBuffer
		b.run(agents.Options{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		b.settle(time.Second)
		b.cluster.mu.Lock()
		b.cluster.next = []error{errors.New("the API server is away")}
		b.cluster.mu.Unlock()
		traced, other := work("hub1", "traced", 1, "one"), work("hub1", "other", 1, "one")
		traced.Trace = `{"logging.open-cluster-management.io/op":"op-7"}`
		b.publish(traced, codec.Create)
		b.settle(time.Second)
		b.publish(other, codec.Create)
		b.settle(time.Minute)
		for _, message := range []string{"work accepted", "work is not where it should be"} {
			found := log.lines(message)
			if len(found) == 0 || !strings.Contains(found[0], "work=traced") || !strings.Contains(found[0], "trace.op=op-7") {
				t.Errorf("log lines %q, want the first to be of the traced work, with its operation", found)
			}
		}
		for _, line := range log.lines("work=other") {
			if strings.Contains(line, "trace") {
				t.Errorf("another work is traced: %s", line)
			}
		}
	})
}
