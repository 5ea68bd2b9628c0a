package charts_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// natsConfig is the configuration file in what the chart broker rendered.
func natsConfig(t *testing.T, r *release) string {
	t.Helper()
	for _, u := range r.objects {
		if u.GetKind() == "ConfigMap" {
			text, _, _ := unstructured.NestedString(u.Object, "data", "nats.conf")
			return text
		}
	}
	t.Fatal("the chart broker has no ConfigMap")
	return ""
}

// parseNATS has the server read a configuration whose files are in other
// folders than in the pod.
func parseNATS(t *testing.T, text string, folders map[string]string) *server.Options {
	t.Helper()
	for from, to := range folders {
		text = strings.ReplaceAll(text, `"`+from, `"`+to)
	}
	dir := t.TempDir()
	path, auth := filepath.Join(dir, "nats.conf"), filepath.Join(dir, "auth")
	if err := errors.Join(
		os.WriteFile(path, []byte(text), 0o600),
		os.Mkdir(auth, 0o700),
		os.WriteFile(filepath.Join(auth, "auth.conf"), []byte(`authorization { token: "a" }`), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	options, err := server.ProcessConfigFile(path)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return options
}

// startBroker runs the chart broker's configuration.
func startBroker(t *testing.T, a *authority, values map[string]any) (url string) {
	t.Helper()
	r := mustRender(t, "broker", "fleetcast", values)
	options := parseNATS(t, natsConfig(t, r), map[string]string{"/etc/nats-tls": a.issue(t, "broker"), "/data": t.TempDir()})
	options.Host, options.Port, options.HTTPPort, options.NoSigs = "127.0.0.1", server.RANDOM_PORT, 0, true
	s, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the broker is not ready")
	}
	return "tls://" + s.Addr().String()
}

func TestBrokerConfig(t *testing.T) {
	folders := map[string]string{"/etc/nats-tls": newAuthority(t).issue(t, "broker")}
	for file, want := range map[string]struct {
		verify, mapped bool // Clients' certificates.
		users          int
		token          string
		payload        int32
		connections    int
	}{
		"minimal":  {verify: true, mapped: true, users: 2, payload: 1 << 20},
		"full":     {verify: true, token: "a", payload: 8 << 20, connections: 20000},
		"insecure": {payload: 1 << 20},
	} {
		text := natsConfig(t, mustRender(t, "broker", "fleetcast", readValues(t, "broker/ci/"+file+"-values.yaml")))
		o := parseNATS(t, text, folders)
		verified := o.TLSConfig != nil && o.TLSConfig.ClientAuth == tls.RequireAndVerifyClientCert
		if !o.SyncAlways || !o.JetStream || o.StoreDir != "/data" {
			t.Errorf("%s: JetStream %t in %s, synced always: %t", file, o.JetStream, o.StoreDir, o.SyncAlways)
		}
		got := fmt.Sprint(verified, o.TLSMap, len(o.Users), o.Authorization, o.MaxPayload, o.MaxConn)
		if want := fmt.Sprint(want.verify, want.mapped, want.users, want.token, want.payload, want.connections); got != want {
			t.Errorf("%s: verified, mapped, users, token, payload and connections are %s, want %s", file, got, want)
		}
	}
}

// TestPermissions holds the chart's permissions against the package comment of
// brokers/nats, which that package's tests hold against the server.
func TestPermissions(t *testing.T) {
	doc, err := os.ReadFile("../brokers/nats/doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "# Permissions")
	var want []string
	for line := range strings.Lines(section) {
		if line, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "//\t  "); ok {
			want = append(want, line)
		}
	}
	r := mustRender(t, "broker", "fleetcast", map[string]any{
		"tls": map[string]any{"existingSecret": "a"}, "sources": []any{"hub"}, "clusters": []any{"c1"},
	})
	users := map[string]*server.Permissions{}
	for _, u := range parseNATS(t, natsConfig(t, r), map[string]string{"/etc/nats-tls": newAuthority(t).issue(t, "broker")}).Users {
		users[u.Username] = u.Permissions
	}
	var got []string
	for _, name := range []string{"CN=c1", "CN=source-hub"} {
		p := users[name]
		if p == nil {
			t.Fatalf("no user %s", name)
		}
		got = append(append(got, p.Publish.Allow...), p.Subscribe.Allow...)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("permissions of agent and source (-documented +chart):\n%s", diff)
	}
}
