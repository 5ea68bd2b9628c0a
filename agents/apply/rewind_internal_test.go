package apply

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// rewinding sets up a watch that covers one object, applied in version 500.
func rewinding() (w *watches, e *events, id objectID, told func() []string) {
	var ids []string
	x := newIndex(time.Hour)
	w = &watches{
		register: newRegister(),
		index:    x, log: slog.New(slog.DiscardHandler), targets: make(map[targetKey]*target),
		bell: newBell(0, func(_, id string) { ids = append(ids, id) }),
	}
	id = objectID{Resource: "configmaps", Namespace: "ns", Name: "a"}
	gvr := entry{objectID: id, Version: "v1"}.gvr()
	applyAt(w, id, "500")
	w.attach(id, gvr)
	return w, &events{watches: w, target: w.targets[targetKey{gvr, "ns"}]}, id,
		func() []string { was := ids; ids = nil; return was }
}

var rewindKey = workKey{"source", "web"}

func applyAt(w *watches, id objectID, version string) {
	w.index.begin(id)
	w.bell.ring(w.index.end(id, rewindKey, want{sum: "x"}, done(configured), partial(id, version), digest{})...)
}

func partial(id objectID, version string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: id.Name, Namespace: id.Namespace, ResourceVersion: version}}
}

func TestListBelowWhatWasSeen(t *testing.T) {
	for _, tt := range []struct {
		reason  string
		version string
		list    []any
		tell    bool
	}{
		{"the object is missing in a restored cluster", "310", nil, true},
		{"the object is there in an older version", "310", []any{partial(objectID{Namespace: "ns", Name: "a"}, "200")}, true},
		{"the list is as new as the last event", "500", []any{partial(objectID{Namespace: "ns", Name: "a"}, "500")}, false},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			w, e, id, told := rewinding()
			if err := e.Replace([]any{partial(id, "500")}, "500"); err != nil {
				t.Fatal(err)
			}
			if _, ok := w.index.outcome(id, rewindKey, want{sum: "x"}); !ok {
				t.Fatal("the watch does not vouch for the object")
			}
			if err := e.Replace(tt.list, tt.version); err != nil {
				t.Fatal(err)
			}
			if got := len(told()) > 0; got != tt.tell {
				t.Errorf("told = %v", got)
			}
			if _, ok := w.index.outcome(id, rewindKey, want{sum: "x"}); ok == tt.tell {
				t.Errorf("vouched = %v", ok)
			}
			if !tt.tell {
				return
			}
			applyAt(w, id, "311")
			told()
			if _, ok := w.index.outcome(id, rewindKey, want{sum: "x"}); !ok {
				t.Error("the watch does not vouch for the object that was put back")
			}
			if err := e.Update(partial(id, "312")); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"web"}, told()); diff != "" {
				t.Errorf("told of drift (-want +got):\n%s", diff)
			}
		})
	}
}

// A list that was under way while we wrote is older than what we wrote, and no
// sign of anything.
func TestListFromBeforeOurWrite(t *testing.T) {
	w, e, id, told := rewinding()
	if err := e.Replace(nil, "400"); err != nil {
		t.Fatal(err)
	}
	if got := told(); len(got) > 0 {
		t.Errorf("told %v", got)
	}
	if _, ok := w.index.outcome(id, rewindKey, want{sum: "x"}); !ok {
		t.Error("the watch does not vouch for the object")
	}
}

func TestReadBelowWhatWasKnown(t *testing.T) {
	w, old, id, told := rewinding()
	w.compare(500, partial(id, "500"))
	if got := told(); len(got) > 0 {
		t.Fatalf("told %v of what did not change", got)
	}
	w.compare(500, partial(id, "310"))
	if diff := cmp.Diff([]string{"web"}, told()); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	now := w.targets[targetKey{old.target.gvr, "ns"}]
	if now == old.target {
		t.Fatal("the watch that may be silent goes on")
	}
	if err := (&events{watches: w, target: now}).Replace([]any{partial(id, "310")}, "311"); err != nil {
		t.Fatal(err)
	}
	applyAt(w, id, "310")
	if _, ok := w.index.outcome(id, rewindKey, want{sum: "x"}); !ok {
		t.Error("the new watch does not vouch for the object")
	}
}
