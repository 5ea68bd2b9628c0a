package nats

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/fleetcast-io/fleetcast/brokers"
)

const (
	connectTimeout = 20 * time.Second
	// Two pings without an answer end a connection.
	pingInterval = 20 * time.Second

	backoffFirst = 500 * time.Millisecond
	backoffMost  = 30 * time.Second
)

// backoff is how long to wait before attempt n, counted from 1: anything up to
// a bound that doubles, so that a fleet that lost its broker does not come
// back all at once.
func backoff(n int) time.Duration {
	const least = 50 * time.Millisecond
	bound := backoffMost
	if shift := max(n, 1) - 1; shift < 6 {
		bound = min(backoffFirst<<shift, backoffMost)
	}
	return least + rand.N(bound)
}

// checkFiles finds out at once what no waiting cures.
func checkFiles(c brokers.Config) error {
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return fmt.Errorf("read CA certificates: %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(pem) {
			return fmt.Errorf("read CA certificates: no PEM certificate in %s", c.CAFile)
		}
	}
	if c.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile); err != nil {
			return fmt.Errorf("read client certificate %s and key %s: %w", c.CertFile, c.KeyFile, err)
		}
	}
	if c.PasswordFile != "" {
		if _, err := readPassword(c.PasswordFile); err != nil {
			return err
		}
	}
	if c.CredentialsFile != "" {
		if _, err := os.Stat(c.CredentialsFile); err != nil {
			return fmt.Errorf("read NATS credentials: %w", err)
		}
		if c.Username != "" {
			return errors.New("a NATS credentials file and a username exclude each other")
		}
	}
	return nil
}

func readPassword(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), nil
}

// dialer gives up when the transport is closed.
type dialer struct{ ctx context.Context }

func (d dialer) Dial(network, address string) (net.Conn, error) {
	nd := net.Dialer{Timeout: connectTimeout}
	return nd.DialContext(d.ctx, network, address)
}

// options are those of one connection; its handlers are set by the caller.
func (t *transport) options() []natsgo.Option {
	c := t.config
	opts := []natsgo.Option{
		natsgo.Name("fleetcast " + assetName(c)),
		natsgo.CustomInboxPrefix("_INBOX." + assetName(c)),
		natsgo.SetCustomDialer(dialer{t.ctx}),
		natsgo.Timeout(connectTimeout),
		natsgo.PingInterval(pingInterval),
		natsgo.RetryOnFailedConnect(true),
		natsgo.MaxReconnects(-1),
		natsgo.CustomReconnectDelay(backoff),
		// Whoever publishes holds the state and is told that there is no
		// connection; a buffer would send what is outdated by then.
		natsgo.ReconnectBufSize(-1),
		// A password or a certificate that is refused may be rotated.
		natsgo.IgnoreAuthErrorAbort(),
		natsgo.PermissionErrOnSubscribe(true),
	}
	if t.settings.secure {
		opts = append(opts, natsgo.Secure(&tls.Config{MinVersion: tls.VersionTLS12}))
	}
	// The client reads these files at every handshake.
	if c.CAFile != "" {
		opts = append(opts, natsgo.RootCAs(c.CAFile))
	}
	if c.CertFile != "" {
		opts = append(opts, natsgo.ClientCert(c.CertFile, c.KeyFile))
	}
	switch {
	case c.CredentialsFile != "":
		opts = append(opts, natsgo.UserCredentials(c.CredentialsFile))
	case c.Username != "":
		opts = append(opts, natsgo.UserInfoHandler(func() (string, string) {
			if c.PasswordFile == "" {
				return c.Username, ""
			}
			password, err := readPassword(c.PasswordFile)
			if err != nil {
				t.log.Warn("cannot authenticate to the broker", "err", err)
			}
			return c.Username, password
		}))
	case t.settings.user != nil:
		name := t.settings.user.Username()
		if password, ok := t.settings.user.Password(); ok {
			opts = append(opts, natsgo.UserInfo(name, password))
		} else {
			opts = append(opts, natsgo.Token(name))
		}
	}
	return opts
}
