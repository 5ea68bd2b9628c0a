package codec_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
)

func TestTraceValue(t *testing.T) {
	many := map[string]string{}
	for i := range 100 {
		many[fmt.Sprintf("%sk%02d", api.TracePrefix, i)] = strings.Repeat("é", 100)
	}
	long, err := json.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		reason, trace, want string
	}{
		"none":      {"there is nothing to say", "", ""},
		"not ours":  {"only what begins with the prefix is for logs", `{"other":"8"}`, ""},
		"no object": {"a bundle that is made by hand", `[`, ""},
		"some": {
			"in the order of their names", `{"logging.open-cluster-management.io/op":"7","logging.open-cluster-management.io/by":"me"}`,
			"trace.by=me trace.op=7",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := logged(codec.Bundle{Trace: tt.trace}); got != tt.want {
				t.Errorf("%s: logged %q, want %q", tt.reason, got, tt.want)
			}
		})
	}
	got := logged(codec.Bundle{Trace: string(long)})
	if strings.Count(got, "trace.") != 8 || strings.Contains(got, "k08") || len(got) > 8*(128+64+8) || strings.Contains(got, "\ufffd") {
		t.Errorf("logged %q, want the first eight, cut", got)
	}
}

func logged(b codec.Bundle) string {
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "trace", b.TraceValue())
	_, attrs, _ := strings.Cut(strings.TrimSpace(out.String()), "msg=m")
	return strings.TrimSpace(attrs)
}
