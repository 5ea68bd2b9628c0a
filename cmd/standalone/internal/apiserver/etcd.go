package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/logutil"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// maxSocketPath is what every Unix system takes as the path of a socket, less
// room for the file name.
const maxSocketPath = 90

// etcdStore is the etcd of one API server. It listens on a Unix socket in a
// directory only this user may enter, which needs neither a port nor keys.
type etcdStore struct {
	etcd     *embed.Etcd
	endpoint string
	sockets  string
	logLevel zap.AtomicLevel
}

func startEtcd(ctx context.Context, dir string, opts Options) (_ *etcdStore, err error) {
	s := &etcdStore{logLevel: zap.NewAtomicLevelAt(zap.ErrorLevel)}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make etcd's directory: %w", err)
	}
	sockets := dir
	if len(sockets) > maxSocketPath {
		sockets, err = os.MkdirTemp("", "fleetcast-etcd-")
		if err != nil {
			return nil, fmt.Errorf("make a directory for etcd's sockets: %w", err)
		}
		if len(sockets) > maxSocketPath {
			_ = os.Remove(sockets)
			return nil, fmt.Errorf("the paths of the data directory and of the temporary directory %s are both too long for a socket", os.TempDir())
		}
		s.sockets = sockets
	}
	client := url.URL{Scheme: "unix", Path: filepath.Join(sockets, "client.sock")}
	s.endpoint = client.String()

	config := embed.NewConfig()
	config.Dir = dir
	config.ListenClientUrls = []url.URL{client}
	// The addresses to advertise keep their defaults: etcd insists on some, and a
	// lone member has nobody to tell them to and no peers to listen for.
	config.ListenPeerUrls = nil
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.UnsafeNoFsync = opts.UnsafeNoFsync
	config.EnableGRPCGateway = false
	config.QuotaBackendBytes = 8 << 30
	config.MaxRequestBytes = embed.DefaultMaxRequestBytes
	// A lone member waits out an election timeout before it leads.
	config.TickMs, config.ElectionMs = 50, 250
	// The raft log is kept in memory for followers to catch up, and there are none.
	config.SnapshotCount = 2000
	config.SnapshotCatchUpEntries = 100
	// Slow applies are the rule on a laptop whose disk syncs slowly.
	config.WarningApplyDuration = 5 * time.Second
	config.WarningUnaryRequestDuration = 10 * time.Second
	logger := zap.NewNop()
	if opts.Logs != nil {
		logger = zap.New(withoutNoise{zapcore.NewCore(
			zapcore.NewConsoleEncoder(logutil.DefaultZapLoggerConfig.EncoderConfig),
			zapcore.Lock(zapcore.AddSync(opts.Logs)), s.logLevel)})
	}
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger)

	if s.etcd, err = embed.StartEtcd(config); err != nil {
		s.removeSockets()
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	select {
	case <-s.etcd.Server.ReadyNotify():
		return s, nil
	case err = <-s.etcd.Err():
	case <-s.etcd.Server.StopNotify():
		err = errors.New("it stopped")
	case <-time.After(time.Minute):
		err = errors.New("no leader after a minute")
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.close()
	return nil, fmt.Errorf("start etcd: %w", err)
}

// withoutNoise drops what a new member always says about itself: it looks for
// the version of a store that has no entries yet, and tries again.
type withoutNoise struct{ zapcore.Core }

func (c withoutNoise) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if e.Message == "failed to update storage version" {
		return ce
	}
	return c.Core.Check(e, ce)
}

func (s *etcdStore) close() {
	// etcd calls it an error that its listeners are closed.
	s.logLevel.SetLevel(zap.FatalLevel)
	s.etcd.Close()
	s.removeSockets()
}

func (s *etcdStore) removeSockets() {
	if s.sockets != "" {
		_ = os.RemoveAll(s.sockets)
	}
}
