package agent_test

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/fleetcast-io/fleetcast/agents/observe"
	"github.com/fleetcast-io/fleetcast/pkg/agent"
)

func TestFeedbackFlags(t *testing.T) {
	for _, c := range []struct {
		reason string
		args   []string
		want   observe.Options
		fails  string
	}{
		{"by default", nil, observe.Options{MaxRawJSON: 1024}, ""},
		{"on", []string{"--feature-gates=RawFeedbackJsonString=true", "--max-json-raw-length=100"}, observe.Options{RawJSON: true, MaxRawJSON: 100}, ""},
		{"the last word counts", []string{"--feature-gates=RawFeedbackJsonString=true, RawFeedbackJsonString=false"}, observe.Options{MaxRawJSON: 1024}, ""},
		{"an empty list", []string{"--feature-gates="}, observe.Options{MaxRawJSON: 1024}, ""},
		{"an unknown name", []string{"--feature-gates=Telepathy=true"}, observe.Options{}, `"Telepathy" is no feature of this agent`},
		{"no value", []string{"--feature-gates=RawFeedbackJsonString"}, observe.Options{}, "RawFeedbackJsonString=true"},
		{"more than the API takes", []string{"--max-json-raw-length=4096"}, observe.Options{}, "between 1 and 1024"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
			config := agent.Flags(fs)
			args := append([]string{"--cluster-name=c1", "--data-dir=/tmp/x", "--broker=nats://127.0.0.1:4222"}, c.args...)
			err := fs.Parse(args)
			if err == nil {
				err = config.Validate()
			}
			switch {
			case c.fails == "" && err != nil:
				t.Fatal(err)
			case c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)):
				t.Fatalf("got error %v, want one with %q", err, c.fails)
			case c.fails == "" && config.Observe != c.want:
				t.Errorf("got %+v, want %+v", config.Observe, c.want)
			}
		})
	}
}
