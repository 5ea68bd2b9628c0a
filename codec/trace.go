package codec

import (
	"log/slog"
	"slices"
	"strings"

	"github.com/fleetcast-io/fleetcast/pkg/api"
)

const (
	// maxTraceFields, maxTraceKey and maxTraceValue bound what of a work's tracing
	// annotations gets into each log line about it, in fields and bytes.
	maxTraceFields = 8
	maxTraceKey    = 64
	maxTraceValue  = 128
)

// TraceValue is what the work's author wants to find in the log lines about the
// work: its annotations with api.TracePrefix, without that, as a group. There are at most eight, by name, cut to 64 and 128 bytes. Without any, or if
// Trace cannot be read, it is an empty group, which handlers leave out.
func (b Bundle) TraceValue() slog.Value {
	trace, err := parseTrace(b.Trace)
	if err != nil {
		trace = nil
	}
	var keys []string
	for key := range trace {
		if name, ok := strings.CutPrefix(key, api.TracePrefix); ok && name != "" {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	var fields []slog.Attr
	for _, key := range keys[:min(len(keys), maxTraceFields)] {
		name := strings.TrimPrefix(key, api.TracePrefix)
		fields = append(fields, slog.String(cut(name, maxTraceKey), cut(trace[key], maxTraceValue)))
	}
	return slog.GroupValue(fields...)
}

// cut keeps the beginning of a text.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}
