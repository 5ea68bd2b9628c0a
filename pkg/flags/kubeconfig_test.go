package flags

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLoadKubeconfig(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	const text = `{"apiVersion":"v1","kind":"Config","current-context":"c",
		"contexts":[{"name":"c","context":{"cluster":"c"}}],
		"clusters":[{"name":"c","cluster":{"server":"https://a.example:6443"}}]}`
	if err := os.WriteFile(good, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := LoadKubeconfig(good)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Host != "https://a.example:6443" {
		t.Errorf("host %q is not the file's", cfg.Host)
	}
	for _, tc := range []struct{ reason, path, want string }{
		{"outside a pod the flag is what is missing", "", "no --kubeconfig, and not in a pod"},
		{"the flag and the file are named", filepath.Join(dir, "absent"), "read --kubeconfig " + filepath.Join(dir, "absent")},
	} {
		if _, err := LoadKubeconfig(tc.path); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want one with %q", tc.reason, err, tc.want)
		}
	}
}
