package nats

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetcast-io/fleetcast/brokers"
)

const (
	defaultPrefix       = "fleetcast"
	defaultSourceWindow = 256
	defaultAgentWindow  = 64
	maxWindow           = 4096
)

// settings is a broker URL, read.
type settings struct {
	servers  []string
	user     *url.Userinfo
	secure   bool
	prefix   string
	window   int
	storage  jetstream.StorageType
	replicas int   // 0: as the stream has it, 1 for a new one.
	maxBytes int64 // 0: as the stream has it, unlimited for a new one.
	// 0: the default, and for reports as the stream has it.
	tombstoneAge time.Duration
}

func parseURL(u *url.URL, role brokers.Role) (settings, error) {
	s := settings{prefix: defaultPrefix, window: defaultSourceWindow, storage: jetstream.FileStorage, user: u.User}
	if role == brokers.RoleAgent {
		s.window = defaultAgentWindow
	}
	switch u.Scheme {
	case "nats":
	case "tls":
		s.secure = true
	default:
		return settings{}, fmt.Errorf("scheme %q is neither nats nor tls", u.Scheme)
	}
	if strings.Trim(u.Path, "/") != "" || u.Fragment != "" {
		return settings{}, errors.New("a NATS URL has no path and no fragment")
	}
	for host := range strings.SplitSeq(u.Host, ",") {
		server, err := url.Parse(u.Scheme + "://" + host)
		if err != nil || server.Hostname() == "" {
			return settings{}, fmt.Errorf("host %q: write host:port, and commas between several", host)
		}
		s.servers = append(s.servers, server.String())
	}
	return s, s.parseQuery(u.Query())
}

func (s *settings) parseQuery(query url.Values) error {
	for name, values := range query {
		value := values[0]
		if len(values) > 1 {
			return fmt.Errorf("parameter %s is given twice", name)
		}
		var err error
		switch name {
		case "prefix":
			s.prefix, err = value, checkPrefix(value)
		case "replicas":
			s.replicas, err = number(value, 1, 5)
		case "max-bytes":
			s.maxBytes, err = strconv.ParseInt(value, 10, 64)
			if err != nil || s.maxBytes < 1 {
				err = errors.New("want a number of bytes")
			}
		case "tombstone-age":
			s.tombstoneAge, err = time.ParseDuration(value)
			// The server counts in seconds.
			if err != nil || s.tombstoneAge < time.Second {
				err = errors.New("want a duration like 720h, of a second at least")
			}
		case "window":
			s.window, err = number(value, 1, maxWindow)
		case "storage":
			switch value {
			case "file":
				s.storage = jetstream.FileStorage
			case "memory":
				s.storage = jetstream.MemoryStorage
			default:
				err = errors.New("want file or memory")
			}
		default:
			known := []string{"prefix", "replicas", "max-bytes", "tombstone-age", "window", "storage"}
			return fmt.Errorf("unknown parameter %q: known are %s", name, strings.Join(known, ", "))
		}
		if err != nil {
			return fmt.Errorf("parameter %s=%q: %w", name, value, err)
		}
	}
	return nil
}

func number(value string, least, most int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("want a number from %d to %d", least, most)
	}
	return n, nil
}

// checkPrefix allows what is one token of a subject and, in upper case, the
// beginning of a stream's name.
func checkPrefix(prefix string) error {
	const most = 32
	allowed := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_'
	}
	if prefix == "" || len(prefix) > most || slices.ContainsFunc([]rune(prefix), func(r rune) bool { return !allowed(r) }) {
		return fmt.Errorf("want up to %d lower-case letters, digits, - and _", most)
	}
	return nil
}

// stream names the stream behind a lane, or "" for a broadcast lane.
func (s settings) stream(l brokers.Lane) string {
	switch l {
	case brokers.ToCluster:
		return strings.ToUpper(s.prefix) + "_SPEC"
	case brokers.ToSource:
		return strings.ToUpper(s.prefix) + "_STATUS"
	default:
		return ""
	}
}

// marker is the subject of the message that identifies this life of the
// stream behind a lane. It has fewer tokens than an event's subject, so no
// filter of an agent or a source matches it.
func (s settings) marker(l brokers.Lane) string {
	if l == brokers.ToCluster {
		return join(s.prefix, spec, "stream")
	}
	return join(s.prefix, status, "stream")
}

// assetName is this identity as one token: what its consumers and its inbox are
// called. A server takes 255 bytes; of a longer name the end is hashed.
func assetName(c brokers.Config) string {
	const most = 200
	s := "source-" + token(c.Identity())
	if c.Role == brokers.RoleAgent {
		s = "agent-" + token(c.Identity())
	}
	if len(s) > most {
		sum := sha256.Sum256([]byte(s))
		s = s[:most-32] + hex.EncodeToString(sum[:16])
	}
	return s
}
