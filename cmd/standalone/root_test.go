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
		"no broker URL":    {reason: "no port is chosen unasked", args: []string{"broker", "--data-dir", "d"}, code: exitUsage, want: "--listen is required"},
		"strange broker":   {reason: "the schemes are named", args: []string{"broker", "--data-dir", "d", "--listen", "kafka://127.0.0.1:1"}, code: exitUsage, want: "nats://127.0.0.1:4222"},
		"negative fleet":   {reason: "a typing error is told", args: []string{"up", "--data-dir", "d", "--clusters", "-1"}, code: exitUsage, want: "--clusters -1"},
		"unclear broker":   {reason: "the choices are named", args: []string{"up", "--data-dir", "d", "--broker", "rabbit"}, code: exitUsage, want: `"nats", "mqtt" or a URL`},
		"password in URL":  {reason: "it would show in the list of processes", args: []string{"up", "--data-dir", "d", "--broker", "nats://me:pw@10.0.0.1:4222"}, code: exitUsage, want: "--broker-password-file"},
		"useless flag":     {reason: "a broker in this process has no users", args: []string{"up", "--data-dir", "d", "--broker", "nats", "--broker-username", "me"}, code: exitUsage, want: "--broker-username is for a broker that runs elsewhere"},
		"cluster, no name": {reason: "children are told what is wrong as everybody", args: []string{"cluster", "--data-dir", "d", "--broker", "nats://127.0.0.1:1"}, code: exitUsage, want: "--cluster-name"},
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
