package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestCommandLines(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		args   []string
		code   int
		want   string
	}{
		"no command":       {reason: "whoever tries the program is shown what it can do", want: "apiserver"},
		"version":          {reason: "bug reports name what is embedded", args: []string{"version"}, want: "kubernetes v1."},
		"unknown command":  {reason: "a typing error is told", args: []string{"apisrver"}, code: exitUsage, want: `unknown command "apisrver"`},
		"unknown flag":     {reason: "a typing error is told", args: []string{"apiserver", "--data", "x"}, code: exitUsage, want: "unknown flag: --data"},
		"stray argument":   {reason: "a forgotten flag name must not pass silently", args: []string{"apiserver", "dir"}, code: exitUsage, want: `unexpected argument "dir"`},
		"no data dir":      {reason: "state must not land in the working directory", args: []string{"apiserver"}, code: exitUsage, want: "--data-dir is required"},
		"unknown APIs":     {reason: "the choices are named", args: []string{"apiserver", "--data-dir", "d", "--apis", "some"}, code: exitUsage, want: `use "hub" or "full"`},
		"impossible port":  {reason: "the kernel's message would not name the flag", args: []string{"apiserver", "--data-dir", "d", "--port", "70000"}, code: exitUsage, want: "--port 70000"},
		"no address":       {reason: "a host name may mean several addresses", args: []string{"apiserver", "--data-dir", "d", "--bind-address", "localhost"}, code: exitUsage, want: "not an IP address"},
		"useless data dir": {reason: "what cannot work at run time is not a usage error", args: []string{"apiserver", "--data-dir", "/dev/null/d"}, code: exitFailure, want: "data directory"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := execute(t.Context(), tc.args, &stdout, &stderr)
			if code != tc.code {
				t.Errorf("%s: exit code %d, want %d", tc.reason, code, tc.code)
			}
			out, other := &stdout, &stderr
			if tc.code != 0 {
				out, other = other, out
			}
			if !strings.Contains(out.String(), tc.want) || other.Len() > 0 {
				t.Errorf("%s: stdout %q, stderr %q, want %q", tc.reason, &stdout, &stderr, tc.want)
			}
			if hint := strings.Contains(stderr.String(), "--help"); hint != (tc.code == exitUsage) {
				t.Errorf("%s: hint at the usage: %v", tc.reason, hint)
			}
		})
	}
}
