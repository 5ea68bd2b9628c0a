package nats_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/embedded"
	"github.com/fleetcast-io/fleetcast/brokers/nats"
)

// An authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	a := authority{key: newKey(t)}
	template := certificate(name)
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func certificate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
}

// issue returns a certificate and its key as PEM.
func (a authority) issue(t *testing.T, name string) (certPEM, keyPEM []byte) {
	t.Helper()
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, certificate(name), a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func (a authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFilesAreReadAgain replaces the authority, the certificates and the
// password of a server while it is away.
func TestFilesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	password := ""
	var options *embedded.NATSOptions
	rotate := func() {
		a := newAuthority(t, "authority "+rand.Text())
		write(t, file("ca.pem"), a.pem())
		certPEM, keyPEM := a.issue(t, "hub")
		write(t, file("tls.crt"), certPEM)
		write(t, file("tls.key"), keyPEM)
		password = rand.Text()
		write(t, file("password"), []byte(password+"\n"))

		pair, err := tls.X509KeyPair(a.issue(t, "server"))
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AddCert(a.cert)
		options.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	}
	o := embedded.NATSOptions{Configure: func(o *server.Options) {
		o.Users = []*server.User{{Username: "hub", Password: password}}
	}}
	options = &o
	rotate()
	s := startServer(t, o)
	options = &s.options

	hub := openFor(t, s, brokers.Config{
		Role: brokers.RoleSource, Name: "hub", CAFile: file("ca.pem"), CertFile: file("tls.crt"), KeyFile: file("tls.key"),
		Username: "hub", PasswordFile: file("password"),
	})
	l := subscribe(t, hub, nil, brokers.Filter{Lane: brokers.ToSource, Source: "hub", Cluster: brokers.Any})
	report := brokers.Topic{Lane: brokers.ToSource, Source: "hub", Cluster: "c1", Key: "k"}
	publish(t, hub, l, report)
	for range 2 {
		s.stop(t)
		rotate()
		s.start(t)
		if !l.ready(t).Resumed {
			t.Error("the durable consumer of a source is not said to be resumed")
		}
		publish(t, hub, l, report)
	}
}

// TestWrongPassword holds that a password that is refused is tried again once
// it was mended.
func TestWrongPassword(t *testing.T) {
	s := startServer(t, embedded.NATSOptions{Configure: func(o *server.Options) {
		o.Users = []*server.User{{Username: "hub", Password: "right"}}
	}})
	file := filepath.Join(t.TempDir(), "password")
	write(t, file, []byte("wrong"))
	hub := openFor(t, s, brokers.Config{Role: brokers.RoleSource, Name: "hub", Username: "hub", PasswordFile: file})
	until(t, "the error says so", func() bool {
		err := hub.Publish(t.Context(), work("hub", "c1", "k"), newEvent())
		return err != nil && strings.Contains(err.Error(), "Authorization Violation")
	})
	write(t, file, []byte("right"))
	send(t, hub, work("hub", "c1", "k"), newEvent())
}

// TestToken connects with a token in the URL, as users of NATS write it, and
// then with a wrong one, and holds that neither is told to anybody.
func TestToken(t *testing.T) {
	const right, wrong = "right-t0ken", "wrong-t0ken"
	s := startServer(t, embedded.NATSOptions{Configure: func(o *server.Options) { o.Authorization = right }})
	for _, token := range []string{right, wrong} {
		log := &record{}
		u, err := url.Parse(strings.Replace(s.url, "://", "://"+token+"@", 1))
		if err != nil {
			t.Fatal(err)
		}
		hub, err := nats.Open(t.Context(), u, brokers.Config{Role: brokers.RoleSource, Name: "hub", Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		if err != nil {
			t.Fatal(err)
		}
		if token == right {
			send(t, hub, work("hub", "c1", "k"), newEvent())
		} else {
			until(t, "the error says what is wrong", func() bool {
				err = hub.Publish(t.Context(), work("hub", "c1", "k"), newEvent())
				return err != nil && strings.Contains(err.Error(), "Authorization Violation")
			})
			if strings.Contains(err.Error(), token) {
				t.Errorf("the error tells the token: %v", err)
			}
		}
		if err := hub.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := log.String(); !strings.Contains(got, s.running.Addr()) || strings.Contains(got, token) {
			t.Errorf("the log lacks the broker's address or tells the token:\n%s", got)
		}
	}
}

// A record is a log in memory.
type record struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}
