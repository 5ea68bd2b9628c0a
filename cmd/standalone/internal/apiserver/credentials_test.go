package apiserver

import (
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
)

func TestCredentialsAreKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	loopback, other := net.IPv4(127, 0, 0, 1), net.IPv4(192, 0, 2, 7)
	read := func(bind net.IP) map[string]string {
		t.Helper()
		if _, err := ensureCredentials(dir, bind); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		files := map[string]string{}
		for _, entry := range entries {
			content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
			if err != nil {
				t.Fatal(err)
			}
			files[entry.Name()] = string(content)
		}
		return files
	}

	first := read(loopback)
	if diff := cmp.Diff(first, read(loopback)); diff != "" {
		t.Errorf("a restart changed the credentials (-before +after):\n%s", diff)
	}
	exposed := read(other)
	certificate, err := readCertificate(filepath.Join(dir, "server.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := certificate.VerifyHostname(other.String()); err != nil {
		t.Errorf("the certificate of a server on another address: %v", err)
	}
	delete(first, "server.crt")
	changed := exposed["server.crt"]
	delete(exposed, "server.crt")
	if diff := cmp.Diff(first, exposed); diff != "" {
		t.Errorf("another address changed more than the certificate (-before +after):\n%s", diff)
	}
	if again := read(loopback)["server.crt"]; again != changed {
		t.Error("a certificate for more than is needed was replaced")
	}
}

func TestDamagedKeyIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	if _, err := ensureCredentials(dir, net.IPv4(127, 0, 0, 1)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ca.key", "service-account.key"} {
		path := filepath.Join(dir, name)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, whole[:len(whole)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ensureCredentials(dir, net.IPv4(127, 0, 0, 1)); err == nil {
			t.Errorf("half of %s passed for a key, or was replaced", name)
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKubeconfig(t *testing.T) {
	dir := t.TempDir()
	credentials, err := ensureCredentials(filepath.Join(dir, "pki"), net.IPv4(127, 0, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "kubeconfig")
	if err := writeKubeconfig(path, credentials.restConfig("https://127.0.0.1:6443")); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	if config.Host != "https://127.0.0.1:6443" {
		t.Errorf("server: got %s", config.Host)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(config.CAData)
	admin, err := readCertificate(filepath.Join(dir, "pki", "admin.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Errorf("the administrator's certificate: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: got %v (%v), want 0600", info.Mode(), err)
	}
}
