package apply

import (
	"testing"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

func TestMessagesHoldNoValues(t *testing.T) {
	for _, tt := range []struct {
		reason string
		path   fieldpath.Path
		want   string
	}{
		{"fields are named", fieldpath.MakePathOrDie("spec", "replicas"), ".spec.replicas"},
		{"a set has its content in the path", fieldpath.MakePathOrDie("spec", "hosts", value.NewValueInterface("pass]\"word")), ".spec.hosts[]"},
		{"keys may be anything", fieldpath.MakePathOrDie("spec", "env", fieldpath.KeyByFields("name", "a\"]b", "port", 80), "value"), ".spec.env[].value"},
	} {
		if got := (claim{path: tt.path}).shown(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.reason, got, tt.want)
		}
	}
}
