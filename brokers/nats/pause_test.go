package nats

import (
	"testing"
	"time"
)

func TestTakenOverPause(t *testing.T) {
	for n, least := range map[int]time.Duration{1: time.Minute, 2: 2 * time.Minute, 5: 16 * time.Minute, 6: 30 * time.Minute, 1000: 30 * time.Minute} {
		for range 100 {
			if got := takenOverPause(n); got < least || got >= 2*least {
				t.Fatalf("after %d takeovers the pause is %s, want from %s to twice that", n, got, least)
			}
		}
	}
}
