package main

import (
	"bytes"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProgress(t *testing.T) {
	for name, tc := range map[string]struct {
		reason   string
		terminal bool
		want     string
	}{
		"file": {
			reason: "a log has a line for each thing that happened and no control characters",
			want:   "one is ready after T s: at 1\na log line\nthree is ready after T s\n",
		},
		"terminal": {
			reason:   "the last line says what is awaited, and gives way to others",
			terminal: true,
			want: clearLine + "starting one ..." +
				clearLine + "starting one, two ..." +
				clearLine + "starting one, two, three ..." +
				clearLine + "starting one, two, three and 1 more ..." +
				clearLine + "one is ready after T s: at 1\nstarting two, three, four ..." +
				clearLine + "a log line\nstarting two, three, four ..." +
				clearLine + "three is ready after T s\nstarting two, four ..." +
				clearLine,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			p := &progress{w: &out, terminal: tc.terminal}
			one := p.begin("one")
			p.begin("two")
			three := p.begin("three")
			p.begin("four")
			one("at 1")
			one("again")
			p.printf("a log %s", "line")
			three("")
			p.end()
			got := regexp.MustCompile(`after [0-9.]+ s`).ReplaceAllString(out.String(), "after T s")
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}
