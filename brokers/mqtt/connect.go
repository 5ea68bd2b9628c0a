package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
)

func (t *transport) clientConfig() autopaho.ClientConfig {
	return autopaho.ClientConfig{
		// Without user and query: paho writes it into errors.
		ServerUrls:            []*url.URL{{Scheme: "mqtt", Host: t.address}},
		KeepAlive:             uint16(t.keepalive / time.Second),     //nolint:gosec // At most maxKeepalive.
		SessionExpiryInterval: uint32(t.sessionExpiry / time.Second), //nolint:gosec // At most maxSessionExpiry.
		ReconnectBackoff:      func(int) time.Duration { return t.pacer.next(time.Now()) },
		ConnectTimeout:        connectTimeout,
		AttemptConnection: func(ctx context.Context, _ autopaho.ClientConfig, _ *url.URL) (net.Conn, error) {
			return t.dial(ctx)
		},
		ConnectPacketBuilder: t.connectPacket,
		OnConnectionUp:       func(*autopaho.ConnectionManager, *paho.Connack) { t.use() },
		OnConnectionDown:     func() bool { return t.closing.Err() == nil },
		OnConnectError:       t.connectFailed,
		ClientConfig: paho.ClientConfig{
			ClientID:      t.config.Identity(),
			Session:       &t.keeper,
			PacketTimeout: forever,
			PingHandler:   &pinger{},
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){
				func(p paho.PublishReceived) (bool, error) {
					t.receive(p.Packet)
					return true, nil
				},
			},
			OnClientError: func(err error) { t.log.Debug("connection to broker failed", "err", err) },
		},
	}
}

// connectPacket adds to CONNECT what paho has no setting for, and the password,
// which may have changed.
func (t *transport) connectPacket(p *paho.Connect, _ *url.URL) (*paho.Connect, error) {
	username, password, err := t.credentials.login()
	if err != nil {
		return nil, err
	}
	p.Username, p.UsernameFlag = username, username != ""
	p.Password, p.PasswordFlag = password, len(password) > 0
	receiveMaximum, size := uint16(t.receiveMaximum), uint32(t.maxPacket) //nolint:gosec // As options.set allows.
	p.Properties.ReceiveMaximum = &receiveMaximum
	p.Properties.MaximumPacketSize = &size
	p.Properties.RequestProblemInfo = true
	if t.will != nil {
		p.WillMessage, p.WillProperties = t.will.message, t.will.properties
	}
	return p, nil
}

// connectFailed tells why there is no connection, once per reason.
func (t *transport) connectFailed(err error) {
	t.pacer.unreachable()
	args := []any{"err", err}
	var denied *autopaho.ConnackError
	if errors.As(err, &denied) && denied.ReasonCode >= refused {
		err = errors.New("the broker refused the connection: " + describe(denied.ReasonCode, denied.Reason))
		args = []any{"err", err}
		if a := advice(denied.ReasonCode); a != "" {
			args = append(args, "advice", a)
		}
		switch denied.ReasonCode {
		case badCredentials, notAuthorized, banned, badAuthMethod, useAnotherServer, serverMoved:
			t.pacer.atLeast(refusedPause)
		}
	}
	cause := rootCause(err)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unavailable = fmt.Errorf("not connected: %w", cause)
	t.tellLocked("failed "+cause.Error(), slog.LevelWarn, "cannot connect to broker, trying again", args...)
}

// rootCause is the innermost error. Those around it name the local port, which
// is another one at every attempt.
func rootCause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
