package agent

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/fleetcast-io/fleetcast/agents/observe"
)

// RawFeedbackJSON is OCM's feature gate for feedback values that are no integer,
// string or boolean: they are reported as JSON.
const RawFeedbackJSON = "RawFeedbackJsonString"

// addObserve adds the flags on what works ask of live objects.
func addObserve(fs *pflag.FlagSet, o *observe.Options) {
	fs.IntVar(&o.MaxRawJSON, "max-json-raw-length", observe.MostRawJSON, "longest feedback value as JSON, in bytes; what is longer is an error")
	fs.Func("feature-gates", "features as name=true or name=false, with commas between; known: "+RawFeedbackJSON+" (default false)",
		func(s string) error { return setFeatures(s, map[string]*bool{RawFeedbackJSON: &o.RawJSON}) })
}

// setFeatures sets the features that are named.
func setFeatures(list string, known map[string]*bool) error {
	for item := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(item) == "" {
			continue
		}
		name, value, _ := strings.Cut(strings.TrimSpace(item), "=")
		feature, ok := known[name]
		if !ok {
			return fmt.Errorf("%q is no feature of this agent; known: %s", name, RawFeedbackJSON)
		}
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("feature %s is %q: write %s=true or %s=false", name, value, name, name)
		}
		*feature = on
	}
	return nil
}
