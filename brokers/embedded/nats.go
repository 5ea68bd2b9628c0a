package embedded

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// natsReady is how long a server may take to recover its streams.
const natsReady = 2 * time.Minute

// NATSOptions say how a NATS server runs. The zero value works.
type NATSOptions struct {
	// Listen is the address for clients. Default: 127.0.0.1 and a free port.
	Listen string

	// DataDir is where streams are kept. A server that is started again with
	// the same folder has them again. Default: a temporary folder, removed by
	// Close.
	DataDir string

	// MaxPayload, in bytes, bounds a message with its headers. Default: 1 MiB, at
	// most 8 MiB.
	MaxPayload int

	// LazySync lets the server confirm a message before it is synced to disk;
	// it syncs every two minutes. A crash of the machine then loses confirmed
	// messages. For tests and caches.
	LazySync bool

	// TLS, if set, is asked of every client.
	TLS *tls.Config

	// Configure, if set, changes the server's options at last, to add accounts
	// and permissions for example.
	Configure func(*server.Options)

	// Log gets what the server says. Default: nowhere.
	Log *slog.Logger
}

// NATS is a NATS server with JetStream in this process.
type NATS struct {
	server  *server.Server
	address string
	scheme  string
	dataDir string
	remove  bool
	close   sync.Once
}

// StartNATS starts a server and returns when clients can connect.
func StartNATS(o NATSOptions) (*NATS, error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.MaxPayload < 0 || o.MaxPayload > server.MAX_PAYLOAD_MAX_SIZE {
		return nil, fmt.Errorf("start NATS server: a maximum payload of %d bytes is not between 0 and %d", o.MaxPayload, server.MAX_PAYLOAD_MAX_SIZE)
	}
	host, port, err := listenAddress(o.Listen)
	if err != nil {
		return nil, fmt.Errorf("start NATS server: %w", err)
	}
	n := &NATS{scheme: "nats", dataDir: o.DataDir}
	if o.DataDir == "" {
		if n.dataDir, err = os.MkdirTemp("", "fleetcast-nats-"); err != nil {
			return nil, fmt.Errorf("start NATS server: %w", err)
		}
		n.remove = true
	}
	opts := &server.Options{
		ServerName:             "fleetcast",
		Host:                   host,
		Port:                   port,
		JetStream:              true,
		StoreDir:               n.dataDir,
		SyncAlways:             !o.LazySync,
		NoSigs:                 true,
		DisableJetStreamBanner: true,
	}
	opts.MaxPayload = int32(o.MaxPayload) // #nosec G115 -- checked above.
	if o.TLS != nil {
		n.scheme = "tls"
		opts.TLS, opts.TLSConfig = true, o.TLS
	}
	if o.Configure != nil {
		o.Configure(opts)
	}
	if err := n.start(opts, o.Log); err != nil {
		return nil, errors.Join(fmt.Errorf("start NATS server on %s: %w", o.Listen, err), n.removeData())
	}
	return n, nil
}

func (n *NATS) start(opts *server.Options, log *slog.Logger) error {
	s, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &natsLog{log: log.With("component", "nats-server")}
	s.SetLoggerV2(l, false, false, false)
	// Start returns when the server listens, or has found that it cannot and
	// said so in its log: it would end the process if it had it to itself.
	s.Start()
	err = l.fatal()
	if err == nil && !s.ReadyForConnections(natsReady) {
		err = fmt.Errorf("not ready after %s", natsReady)
	}
	if err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return err
	}
	n.server, n.address = s, s.Addr().String()
	return nil
}

// Addr is the address that clients connect to.
func (n *NATS) Addr() string { return n.address }

// URL is Addr for clients: the scheme is tls or nats.
func (n *NATS) URL() string { return n.scheme + "://" + n.address }

// DataDir is where the streams are.
func (n *NATS) DataDir() string { return n.dataDir }

// Stats are the traffic with clients since the server was started.
func (n *NATS) Stats() (Stats, error) {
	v, err := n.server.Varz(nil)
	if err != nil {
		return Stats{}, fmt.Errorf("read statistics of NATS server: %w", err)
	}
	return Stats{BytesIn: v.InBytes, BytesOut: v.OutBytes, MessagesIn: v.InMsgs, MessagesOut: v.OutMsgs}, nil
}

// Server is the server itself, for what this package has no word for.
func (n *NATS) Server() *server.Server { return n.server }

// Close disconnects the clients, writes all to disk and returns when the server
// has ended. Further calls do nothing.
func (n *NATS) Close() error {
	var err error
	n.close.Do(func() {
		n.server.Shutdown()
		n.server.WaitForShutdown()
		err = n.removeData()
	})
	return err
}

func (n *NATS) removeData() error {
	if !n.remove {
		return nil
	}
	if err := os.RemoveAll(n.dataDir); err != nil {
		return fmt.Errorf("remove data of NATS server: %w", err)
	}
	return nil
}

// listenAddress splits an address; the server takes -1 for any free port.
func listenAddress(address string) (string, int, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q of address %s is not a number up to 65535", service, address)
	}
	if port == 0 {
		return host, server.RANDOM_PORT, nil
	}
	return host, int(port), nil
}

// natsLog hands what the server logs to slog, and keeps what is fatal.
type natsLog struct {
	log *slog.Logger

	mu    sync.Mutex
	first error
}

func (l *natsLog) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *natsLog) Warnf(format string, v ...any)   { l.log.Warn(fmt.Sprintf(format, v...)) }
func (l *natsLog) Errorf(format string, v ...any)  { l.log.Error(fmt.Sprintf(format, v...)) }
func (l *natsLog) Debugf(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *natsLog) Tracef(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }

// Fatalf does not end the process, which is not the server's own.
func (l *natsLog) Fatalf(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log.Error(fmt.Sprintf(format, v...))
	if l.first == nil {
		l.first = fmt.Errorf(format, v...)
	}
}

func (l *natsLog) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}
