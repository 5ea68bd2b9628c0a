package agent

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/fleetcast-io/fleetcast/agents/apply"
	"github.com/fleetcast-io/fleetcast/agents/executor"
)

func TestExecutorFlags(t *testing.T) {
	for _, tc := range []struct {
		reason, args string
		want         apply.Executors
		err          string
	}{
		{reason: "nothing said: works are applied as their executors"},
		{reason: "said", args: "--impersonate-executor"},
		{reason: "as OCM's agent", args: "--impersonate-executor=false", want: apply.Executors{CheckOnly: true}},
		{reason: "taken back", args: "--impersonate-executor=false --impersonate-executor=true"},
		{reason: "neither", args: "--impersonate-executor=perhaps", err: "perhaps"},
		{reason: "required", args: "--require-executor", want: apply.Executors{Required: true}},
		{
			reason: "a default", args: "--default-executor=team-a/deployer",
			want: apply.Executors{Default: executor.Subject{Namespace: "team-a", Name: "deployer"}},
		},
		{reason: "no default, as a chart may say", args: "--default-executor="},
		{reason: "half a default", args: "--default-executor=deployer", err: "namespace/name"},
		{reason: "not the name of a service account", args: "--default-executor=Team/deployer", err: "service account namespace"},
	} {
		fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
		c := Flags(fs)
		err := fs.Parse(strings.Fields(tc.args))
		if (err != nil) != (tc.err != "") || (err != nil && !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: got error %v, want one with %q", tc.reason, err, tc.err)
			continue
		}
		if diff := cmp.Diff(tc.want, c.Executors); err == nil && diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
		}
	}
}
