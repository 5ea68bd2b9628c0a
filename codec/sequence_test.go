package codec_test

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fleetcast-io/fleetcast/codec"
)

func TestSequenceVectors(t *testing.T) {
	for _, tc := range []struct {
		reason string
		now    time.Time
		last   codec.Sequence
		want   codec.Sequence
	}{
		{
			"what OCM's agents make of this millisecond",
			time.UnixMilli(1770091507250), 0, 2018536199680954368,
		},
		{
			"and of this one",
			time.Date(2026, 2, 3, 4, 9, 41, 20e6, time.UTC), 0, 2018537347955560448,
		},
		{
			"a second one in the same millisecond takes the next step",
			time.UnixMilli(1770091507250), 2018536199680954368, 2018536199680954369,
		},
		{
			"the clock stepped back",
			time.UnixMilli(1770091507250 - 60_000), 2018536199680954368, 2018536199680954369,
		},
		{
			"a millisecond without steps left borrows from the next, on the same node",
			time.UnixMilli(1770091507250), 2018536199680954368 | 4095, 2018536199680954368 + 1<<22,
		},
		{
			"a clock from before the epoch still gives a number with a node",
			time.Unix(0, 0), 0, 1 << 12,
		},
		{
			"a clock beyond 41 bits of milliseconds is not believed",
			time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), 2018536199680954368, 2018536199680954369,
		},
	} {
		if got := tc.last.Next(tc.now); got != tc.want {
			t.Errorf("%s: %d.Next = %d, want %d", tc.reason, tc.last, got, tc.want)
		}
	}
}

// TestSequenceGrows steps the clock back and forth: order and node hold.
func TestSequenceGrows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clock := rapid.Int64Range(0, 1<<42)
		step := rapid.Int64Range(-5000, 5000)
		ms := clock.Draw(t, "start")
		var last codec.Sequence
		for range rapid.IntRange(1, 200).Draw(t, "issued") {
			next := last.Next(time.UnixMilli(ms))
			if next <= last {
				t.Fatalf("%d.Next = %d at %d", last, next, ms)
			}
			if node := next >> 12 & 1023; node != 1 {
				t.Fatalf("%d is of node %d", next, node)
			}
			back, err := codec.ParseSequence(next.String())
			if err != nil || back != next {
				t.Fatalf("ParseSequence(%s) = %d, %v", next, back, err)
			}
			last = next
			ms += step.Draw(t, "step")
		}
	})
}

// TestSequenceAbove: what is issued after another told a sequence is greater than
// that one, unless no clock can have made it.
func TestSequenceAbove(t *testing.T) {
	const own, later codec.Sequence = 2018536199680954368, 2018537347955560448
	last, err := codec.ParseSequence("9223372036854775807")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		reason string
		taken  codec.Sequence
		want   codec.Sequence
	}{
		{"nothing was taken", 0, own},
		{"an earlier one was taken", own - 1, own},
		{"the last one was taken", own, own},
		{"a later one was taken", later, later},
		{"a later one with all steps used up was taken", later | 4095, later | 4095},
		{"one of another node was taken: the next millisecond is above it, on the own node", later + 5<<12, later + 1<<22},
		{"one of node 0 was taken", later - 1<<12, later + 1<<22},
		{"the last number there is was told", last, own},
		{"one of the last four years was told", 15 << 59, own},
		{"the highest that is believed was told", 15<<59 - 1<<22 | 1<<12, 15<<59 - 1<<22 | 1<<12},
	} {
		if got := own.Above(tc.taken); got != tc.want {
			t.Errorf("%s: Above(%d) = %d, want %d", tc.reason, tc.taken, got, tc.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		own := codec.Sequence(0).Next(time.UnixMilli(rapid.Int64Range(1.3e12, 3e12).Draw(t, "issued at")))
		taken := codec.Sequence(rapid.Int64Min(0).Draw(t, "taken"))
		now := time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "now"))
		next := own.Above(taken).Next(now)
		if next <= own || taken < 15<<59 && next <= taken {
			t.Fatalf("after %d was taken, %d follows %d", taken, next, own)
		}
		if node := next >> 12 & 1023; node != 1 {
			t.Fatalf("%d is of node %d", next, node)
		}
	})
}

func TestParseSequenceRefuses(t *testing.T) {
	for text, reason := range map[string]string{
		"":                     "nothing",
		"0":                    "zero means none",
		"-1":                   "negative",
		"1.0":                  "sequences are strings of digits, not integers of CloudEvents",
		"9223372036854775808":  "over 63 bits",
		"20185361996809543 68": "a space",
	} {
		if s, err := codec.ParseSequence(text); !errors.Is(err, codec.ErrMalformed) {
			t.Errorf("%s: ParseSequence(%q) = %d, %v", reason, text, s, err)
		}
	}
}
