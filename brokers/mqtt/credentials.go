package mqtt

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/fleetcast-io/fleetcast/brokers"
)

// credentials are read from disk whenever they are needed, so that they can be
// replaced there.
type credentials struct {
	caFile, certFile, keyFile string

	username string
	// password is from the URL; passwordFile wins.
	password, passwordFile string

	mu sync.Mutex
	// used is the fingerprint of the client certificate and key of the last
	// handshake.
	used fingerprint
}

type fingerprint [sha256.Size]byte

func newCredentials(o options, c brokers.Config) *credentials {
	username := c.Username
	if username == "" {
		username = o.username
	}
	return &credentials{
		caFile: c.CAFile, certFile: c.CertFile, keyFile: c.KeyFile,
		username: username, password: o.password, passwordFile: c.PasswordFile,
	}
}

// check reads everything once, to tell about mistakes at once.
func (c *credentials) check(useTLS bool) error {
	if _, _, err := c.login(); err != nil {
		return err
	}
	if !useTLS {
		return nil
	}
	if _, err := c.tlsConfig(""); err != nil {
		return err
	}
	_, _, err := c.certificate()
	return err
}

// login returns user and password; the password may be missing.
func (c *credentials) login() (username string, password []byte, err error) {
	if c.passwordFile == "" {
		return c.username, []byte(c.password), nil
	}
	password, err = os.ReadFile(c.passwordFile)
	if err != nil {
		return "", nil, fmt.Errorf("read password file: %w", err)
	}
	text := strings.TrimSuffix(string(password), "\n")
	return c.username, []byte(strings.TrimSuffix(text, "\r")), nil
}

// tlsConfig returns the configuration of one handshake. Without a client
// certificate, the connection is encrypted and the broker verified all the
// same.
func (c *credentials) tlsConfig(host string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if c.caFile != "" {
		pem, err := os.ReadFile(c.caFile)
		if err != nil {
			return nil, fmt.Errorf("read CA file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %s has no PEM certificate", c.caFile)
		}
	}
	if c.certFile != "" {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			certificate, found, err := c.certificate()
			if err != nil {
				return nil, err
			}
			c.mu.Lock()
			c.used = found
			c.mu.Unlock()
			return certificate, nil
		}
	}
	return config, nil
}

// certificate reads the client certificate and its key. Without one it returns
// nil.
func (c *credentials) certificate() (*tls.Certificate, fingerprint, error) {
	if c.certFile == "" {
		return nil, fingerprint{}, nil
	}
	cert, err := os.ReadFile(c.certFile)
	if err != nil {
		return nil, fingerprint{}, fmt.Errorf("read client certificate: %w", err)
	}
	key, err := os.ReadFile(c.keyFile)
	if err != nil {
		return nil, fingerprint{}, fmt.Errorf("read client key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fingerprint{}, fmt.Errorf("client certificate %s and key %s: %w", c.certFile, c.keyFile, err)
	}
	h := sha256.New()
	_, _ = h.Write(cert)
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(key)
	return &pair, fingerprint(h.Sum(nil)), nil
}

// replaced says whether there is another client certificate on disk than was
// used last. While the files do not fit each other, as in the middle of being
// replaced, it returns an error.
func (c *credentials) replaced() (bool, error) {
	_, found, err := c.certificate()
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used != (fingerprint{}) && found != c.used, nil
}
