package flags

import (
	"testing"

	"github.com/spf13/pflag"
)

func TestParse(t *testing.T) {
	cases := map[string]struct {
		reason  string
		args    []string
		env     map[string]string
		want    string
		wantErr bool
	}{
		"flag": {
			reason: "a flag is taken",
			args:   []string{"--broker", "nats://a"}, want: "nats://a",
		},
		"environment": {
			reason: "the environment stands in for a flag that is not set",
			env:    map[string]string{"FLEETCAST_BROKER": "nats://b"}, want: "nats://b",
		},
		"both": {
			reason: "the flag wins over the environment",
			args:   []string{"--broker=nats://a"}, env: map[string]string{"FLEETCAST_BROKER": "nats://b"}, want: "nats://a",
		},
		"stray argument":  {reason: "a forgotten -- must not pass silently", args: []string{"broker"}, wantErr: true},
		"unknown flag":    {reason: "a typing error is told", args: []string{"--brooker=x"}, wantErr: true},
		"bad environment": {reason: "a bad value in the environment is told", env: map[string]string{"FLEETCAST_COUNT": "many"}, wantErr: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			var b Broker
			fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
			AddBroker(fs, &b)
			fs.Int("count", 0, "")
			err := Parse(fs, c.args)
			if (err != nil) != c.wantErr {
				t.Fatalf("%s: Parse = %v, want error %v", c.reason, err, c.wantErr)
			}
			if !c.wantErr && b.URL != c.want {
				t.Errorf("%s: broker = %q, want %q", c.reason, b.URL, c.want)
			}
		})
	}
}

func TestLogger(t *testing.T) {
	for _, bad := range []Log{{Level: "loud", Format: "text"}, {Level: "info", Format: "xml"}} {
		if _, err := bad.Logger(); err == nil {
			t.Errorf("Logger of %+v succeeded, want an error", bad)
		}
	}
	if _, err := (Log{Level: "DEBUG", Format: "json"}).Logger(); err != nil {
		t.Error(err)
	}
}
