package nats

import (
	"math"
	"testing"
)

func TestPositionRoundTrip(t *testing.T) {
	for _, p := range []position{{"dk2m/ab12", 1}, {"s", 0}, {"s", math.MaxUint64}} {
		if got, err := parsePosition(p.String()); err != nil || got != p {
			t.Errorf("%+v became %+v, %v", p, got, err)
		}
	}
	if s := (position{sequence: 7}).String(); s != "" {
		t.Errorf("a stream without identity has position %q, want none", s)
	}
}

func TestForeignPositions(t *testing.T) {
	for _, s := range []string{"", "12", ":12", "s:", "s:-1", "s:1:2", "s:99999999999999999999", "s:1 "} {
		if p, err := parsePosition(s); err == nil {
			t.Errorf("%q was read as %+v", s, p)
		}
	}
}
