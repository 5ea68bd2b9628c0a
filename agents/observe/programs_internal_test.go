package observe

import (
	"fmt"
	"strings"
	"testing"
)

func TestProgramsAreKeptBySize(t *testing.T) {
	p := newPrograms()
	longest := strings.Repeat(" ", 4000)
	for i := range 60 {
		if _, err := p.compile(fmt.Sprintf("%d == 1%s", i, longest)); err != nil {
			t.Fatal(err)
		}
	}
	if got, most := p.kept.Len(), mostKept/len(longest); got == 0 || got > most {
		t.Errorf("%d long programs are kept, want up to %d", got, most)
	}
	for i := range mostPrograms + 10 {
		if _, err := p.compile(fmt.Sprintf("%d == 2", i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.kept.Len(); got > mostPrograms || got < mostPrograms/2 {
		t.Errorf("%d short programs are kept, want about %d", got, mostPrograms)
	}
	if p.size < 0 || p.size > mostKept {
		t.Errorf("they count as %d bytes, want up to %d", p.size, mostKept)
	}
}
