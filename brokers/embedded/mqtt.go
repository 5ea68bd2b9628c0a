package embedded

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"sync"

	mqtt "github.com/mochi-mqtt/server/v2"
)

// MQTTOptions are all optional.
type MQTTOptions struct {
	// Listen is host and port. Default: a free port of 127.0.0.1.
	Listen string

	// TLS, if set, is required of clients. Ask for client certificates with it
	// to have MQTTClient.CommonName.
	TLS *tls.Config

	// DataDir is a folder where sessions, with the events queued for them, and
	// retained messages are kept over restarts. It is written a moment after
	// publishers have their confirmation, so a crash can lose the last of them.
	// Default: they are kept in memory only.
	DataDir string

	// MaxPacket is the largest packet taken from a client, in bytes. It is
	// announced to clients. Default: 1 MiB.
	MaxPacket int

	// Authenticate says whether a client may connect. Default: all may.
	Authenticate func(c MQTTClient, password []byte) bool

	// Authorize says whether a client may publish to a topic (write), or
	// subscribe to a filter and receive from a topic. Default: all may do
	// everything.
	Authorize func(c MQTTClient, topic string, write bool) bool

	// Log is where the broker tells what it does. Default: nowhere.
	Log *slog.Logger
}

// An MQTTClient is who connected.
type MQTTClient struct {
	// ID is the client ID and Username what the client sent with it. Either may
	// be whatever the client likes, unless Authenticate looks at it.
	ID, Username string

	// CommonName is that of the client certificate, if MQTTOptions.TLS asked
	// for one and verified it.
	CommonName string
}

// MQTT is a running MQTT 5 broker.
type MQTT struct {
	server   *mqtt.Server
	hook     *mqttHook
	listener *mqttListener
	tls      bool
	close    sync.Once
	closeErr error
}

const (
	defaultMaxPacket = 1 << 20

	// maxQueued is how many events a client may have queued or unacknowledged,
	// which is also the range of packet numbers. What comes on top is dropped,
	// and logged.
	maxQueued = 1<<16 - 1

	// sysInterval is how often statistics are published under $SYS, in seconds.
	// Collecting them stops the process for a moment.
	sysInterval = 60
)

// StartMQTT starts a broker, which listens when StartMQTT returns.
func StartMQTT(o MQTTOptions) (*MQTT, error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.MaxPacket == 0 {
		o.MaxPacket = defaultMaxPacket
	}
	if o.MaxPacket < 0 || o.MaxPacket > 256<<20 {
		return nil, fmt.Errorf("start MQTT broker: maximum packet size of %d bytes is not between 1 and 256 MiB", o.MaxPacket)
	}
	log := slog.New(slog.DiscardHandler)
	if o.Log != nil {
		log = slog.New(mqttLog{o.Log.Handler()})
	}

	capabilities := mqtt.NewDefaultServerCapabilities()
	capabilities.MaximumPacketSize = uint32(o.MaxPacket)
	capabilities.MaximumInflight = maxQueued
	// 0 lets messages live as long as their publisher says. It also frees
	// Packet.Created, see mqttHook.OnPublish.
	capabilities.MaximumMessageExpiryInterval = 0
	// Else every PUBACK would repeat all user properties of the event.
	capabilities.Compatibilities.NoInheritedPropertiesOnAck = true
	server := mqtt.New(&mqtt.Options{
		Capabilities:             capabilities,
		ClientNetReadBufferSize:  4 << 10,
		ClientNetWriteBufferSize: 16 << 10,
		Logger:                   log,
		SysTopicResendInterval:   sysInterval,
	})

	hook := &mqttHook{server: server, options: o, log: log}
	if o.DataDir != "" {
		store, err := openMQTTStore(o.DataDir, log)
		if err != nil {
			return nil, fmt.Errorf("start MQTT broker: %w", err)
		}
		hook.store = store
	}
	fail := func(err error) (*MQTT, error) {
		return nil, errors.Join(fmt.Errorf("start MQTT broker: %w", err), hook.Stop())
	}
	if err := server.AddHook(hook, nil); err != nil {
		return fail(err)
	}
	l, err := listenMQTT(o.Listen, o.TLS, hook.ended)
	if err != nil {
		return fail(err)
	}
	if err := server.AddListener(l); err != nil {
		_ = l.Listener.Close()
		return fail(err)
	}
	if err := server.Serve(); err != nil {
		_ = l.Listener.Close()
		return fail(err)
	}
	return &MQTT{server: server, hook: hook, listener: l, tls: o.TLS != nil}, nil
}

// Addr is where the broker listens.
func (m *MQTT) Addr() net.Addr { return m.listener.Addr() }

// URL is the broker's address for clients on this machine, without parameters.
func (m *MQTT) URL() *url.URL {
	scheme := "mqtt"
	if m.tls {
		scheme = "mqtts"
	}
	return &url.URL{Scheme: scheme, Host: m.listener.Addr().String()}
}

// Stats are the traffic with clients since the broker was started.
func (m *MQTT) Stats() Stats {
	info := m.server.Info.Clone()
	return Stats{
		BytesIn: m.listener.traffic.in.Load(), BytesOut: m.listener.traffic.out.Load(),
		MessagesIn: info.MessagesReceived, MessagesOut: info.MessagesSent,
	}
}

// Close disconnects all clients, without publishing their wills, and writes
// everything to disk. It may be called several times.
func (m *MQTT) Close() error {
	m.close.Do(func() {
		m.hook.wills.close()
		m.closeErr = errors.Join(m.server.Close(), m.hook.stopErr)
	})
	return m.closeErr
}
