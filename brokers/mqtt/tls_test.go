package mqtt_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/embedded"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// An authority issues certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "ca"}, SerialNumber: big.NewInt(1),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	var der []byte
	der, a.key = a.sign(template, template)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) sign(template, parent *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	return der, key
}

// issue writes name.pem and name.key for the common name.
func (a *authority) issue(name, commonName string) {
	a.t.Helper()
	der, key := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: commonName}, SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, a.cert)
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	// First one, then the other: the driver must live with what is between.
	a.write(name+".pem", "CERTIFICATE", der)
	a.write(name+".key", "EC PRIVATE KEY", keyDER)
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) serverConfig(clients tls.ClientAuthType, version uint16) *tls.Config {
	a.t.Helper()
	a.issue("server", "server")
	pair, err := tls.LoadX509KeyPair(a.file("server.pem"), a.file("server.key"))
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: clients, ClientCAs: pool, MaxVersion: version}
}

func TestTLS(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	a.issue("client", "c1")
	for _, test := range []struct {
		name    string
		clients tls.ClientAuthType
		version uint16
		config  brokers.Config
		refused string // Part of what the log says, "" if it works.
	}{
		{name: "encrypted, without a client certificate", clients: tls.NoClientCert, config: brokers.Config{CAFile: a.file("ca.pem")}},
		{name: "TLS 1.2", clients: tls.NoClientCert, version: tls.VersionTLS12, config: brokers.Config{CAFile: a.file("ca.pem")}},
		{name: "TLS 1.1", clients: tls.NoClientCert, version: tls.VersionTLS11, config: brokers.Config{CAFile: a.file("ca.pem")}, refused: "protocol version"},
		{
			name: "client certificate", clients: tls.RequireAndVerifyClientCert,
			config: brokers.Config{CAFile: a.file("ca.pem"), CertFile: a.file("client.pem"), KeyFile: a.file("client.key")},
		},
		{name: "client certificate missing", clients: tls.RequireAndVerifyClientCert, config: brokers.Config{CAFile: a.file("ca.pem")}, refused: "certificate required"},
		{name: "broker of another authority", clients: tls.NoClientCert, config: brokers.Config{CAFile: stranger.file("ca.pem")}, refused: "unknown authority"},
		{name: "broker not of the system's authorities", clients: tls.NoClientCert, refused: "unknown authority"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := a.serverConfig(test.clients, test.version)
			server.MinVersion = tls.VersionTLS10
			b := startBroker(t, embedded.MQTTOptions{TLS: server})
			test.config.Role, test.config.Name = brokers.RoleSource, "s"
			log := newLog(t)
			test.config.Log = log.logger
			tr := openWith(t, b.address(""), test.config)
			if test.refused == "" {
				send(t, tr, someTopic, newEvent())
				return
			}
			log.await(t, test.refused)
			if err := tr.Publish(t.Context(), someTopic, newEvent()); !errors.Is(err, brokers.ErrUnavailable) {
				t.Errorf("publish returned %v, want ErrUnavailable", err)
			}
		})
	}
}

// While events flow, both sides' certificates are replaced again and again. Every
// event arrives, and the broker gets to see the new certificates.
func TestCertificatesReplacedUnderLoad(t *testing.T) {
	const rotations, publishers = 5, 8
	a := newAuthority(t)
	seen := make(chan string, 1000)
	b := startBroker(t, embedded.MQTTOptions{
		TLS: a.serverConfig(tls.RequireAndVerifyClientCert, 0),
		Authenticate: func(c embedded.MQTTClient, _ []byte) bool {
			seen <- c.CommonName
			return strings.HasPrefix(c.CommonName, c.ID+" ")
		},
	})
	config := func(role brokers.Role, name string) brokers.Config {
		return brokers.Config{
			Role: role, Name: name, ClientID: name,
			CAFile: a.file("ca.pem"), CertFile: a.file(name + ".pem"), KeyFile: a.file(name + ".key"), Log: testLog(t),
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	awaitSeen := func(round int) {
		missing := map[string]bool{fmt.Sprintf("hub %d", round): true, fmt.Sprintf("agent %d", round): true}
		for len(missing) > 0 {
			select {
			case name := <-seen:
				delete(missing, name)
			case <-ctx.Done():
				t.Fatalf("waited for the broker to see the certificates %v", missing)
			}
		}
	}
	rotate := func(round int) {
		for _, name := range []string{"hub", "agent"} {
			a.issue(name, fmt.Sprintf("%s %d", name, round))
		}
	}
	rotate(0)
	hub := openWith(t, b.address("reload=10ms"), config(brokers.RoleSource, "hub"))
	agent := openWith(t, b.address("reload=10ms"), config(brokers.RoleAgent, "agent"))

	var (
		mu   sync.Mutex
		got  = make(map[string]int)
		sent []string
	)
	changed := make(chan struct{}, 1)
	ready := make(chan struct{}, 100)
	var wg sync.WaitGroup
	listening, leave := context.WithCancel(ctx)
	wg.Go(func() {
		if err := agent.Subscribe(listening, brokers.Subscription{
			Filters: []brokers.Filter{{Lane: brokers.ToCluster, Source: brokers.Any, Cluster: "c1"}},
			Ready:   func(brokers.Session) { ready <- struct{}{} },
			Handle: brokers.Sync(func(_ context.Context, _ brokers.Topic, e event.Event) error {
				mu.Lock()
				got[e.Get(event.ID)]++
				mu.Unlock()
				select {
				case changed <- struct{}{}:
				default:
				}
				return nil
			}),
		}); err != nil {
			t.Errorf("subscribe: %v", err)
		}
	})
	awaitSeen(0)
	<-ready
	over, progress := make(chan struct{}), make(chan struct{}, 1<<20)
	var load sync.WaitGroup
	for range publishers {
		load.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				e := newEvent()
				send(t, hub, someTopic, e)
				mu.Lock()
				sent = append(sent, e.Get(event.ID))
				mu.Unlock()
				progress <- struct{}{}
			}
		})
	}
	for round := 1; round <= rotations; round++ {
		for range 200 {
			receive(t, progress)
		}
		rotate(round)
		awaitSeen(round)
	}
	close(over)
	load.Wait()
	for missing := -1; missing != 0; {
		mu.Lock()
		missing = 0
		for _, id := range sent {
			if got[id] == 0 {
				missing++
			}
		}
		mu.Unlock()
		if missing == 0 {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%d of %d events did not arrive", missing, len(sent))
		}
	}
	t.Logf("%d events arrived through %d replacements on both sides", len(sent), rotations)
	leave()
	wg.Wait()
}

// The common name of a client certificate decides what is queued for a client
// that is away, after a restart too, and no client can claim another.
func TestCommonNameAuthorizes(t *testing.T) {
	a := newAuthority(t)
	for _, name := range []string{"s", "c1", "thief"} {
		a.issue(name, name)
	}
	b := startBroker(t, embedded.MQTTOptions{
		DataDir: t.TempDir(),
		TLS:     a.serverConfig(tls.RequireAndVerifyClientCert, 0),
		Authorize: func(c embedded.MQTTClient, topic string, write bool) bool {
			return c.CommonName == "s" || !write && strings.HasPrefix(topic, "sources/") && strings.HasSuffix(topic, "/clusters/"+c.CommonName+"/sourceevents")
		},
	})
	config := func(role brokers.Role, name, certificate string) brokers.Config {
		return brokers.Config{
			Role: role, Name: name, CAFile: a.file("ca.pem"),
			CertFile: a.file(certificate + ".pem"), KeyFile: a.file(certificate + ".key"), Log: testLog(t),
		}
	}
	first := openWith(t, b.address(""), config(brokers.RoleAgent, "c1", "c1"))
	listen(t, first, someWorks)
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.stop(t)
	b.start(t)
	e := newEvent()
	send(t, openWith(t, b.address(""), config(brokers.RoleSource, "s", "s")), someTopic, e)
	again := openWith(t, b.address(""), config(brokers.RoleAgent, "c1", "c1"))
	if got := receive(t, listen(t, again, someWorks)); got != e.Get(event.ID) {
		t.Errorf("event %s came, want %s", got, e.Get(event.ID))
	}

	thief := openWith(t, b.address(""), config(brokers.RoleAgent, "c2", "thief"))
	err := trySend(thief, someTopic, newEvent())
	if !errors.Is(err, brokers.ErrRefused) {
		t.Errorf("publish with another's certificate: %v, want ErrRefused", err)
	}
}
