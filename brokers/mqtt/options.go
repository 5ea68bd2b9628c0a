package mqtt

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
)

// options is what the URL says, with defaults filled in.
type options struct {
	// address is host and port, host what the broker's certificate must be for.
	address, host string
	tls           bool

	// username and password are from the URL.
	username, password string

	topics topics

	sessionExpiry  time.Duration
	keepalive      time.Duration
	reload         time.Duration
	receiveMaximum int
	window         int
	maxPacket      int
}

const (
	maxSessionExpiry = 7 * 24 * time.Hour
	minKeepalive     = 5 * time.Second
	maxKeepalive     = math.MaxUint16 * time.Second

	// minPacket leaves room for an event's attributes, maxPacket is the
	// protocol's limit.
	minPacket = 4 << 10
	maxPacket = 256<<20 - 1
)

var (
	topicWords = regexp.MustCompile(`^([a-z]+)/([a-z]+)$`)
	shareGroup = regexp.MustCompile(`^[a-z0-9-]+$`)
)

func parseURL(u *url.URL, role brokers.Role) (options, error) {
	o := options{
		topics:         topics{sources: "sources", clusters: "clusters"},
		sessionExpiry:  24 * time.Hour,
		keepalive:      30 * time.Second,
		reload:         time.Minute,
		receiveMaximum: 64,
		window:         128,
		maxPacket:      1 << 20,
	}
	if role == brokers.RoleSource {
		o.receiveMaximum = 1024
	}
	if err := o.setAddress(u); err != nil {
		return options{}, err
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return options{}, fmt.Errorf("query of the broker URL: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if len(query[name]) != 1 {
			return options{}, fmt.Errorf("parameter %q of the broker URL comes %d times", name, len(query[name]))
		}
		if err := o.set(name, query[name][0], role); err != nil {
			return options{}, fmt.Errorf("parameter %q of the broker URL: %w", name, err)
		}
	}
	return o, nil
}

func (o *options) setAddress(u *url.URL) error {
	port := "1883"
	switch u.Scheme {
	case "mqtt":
	case "mqtts":
		o.tls, port = true, "8883"
	default:
		return fmt.Errorf("scheme %q is neither mqtt nor mqtts", u.Scheme)
	}
	o.host = u.Hostname()
	switch {
	case o.host == "":
		return errors.New("the broker URL has no host: write it like mqtts://broker.example.com:8883")
	case u.Path != "" && u.Path != "/":
		return fmt.Errorf("the broker URL has the path %q: MQTT brokers have none", u.Path)
	case u.Fragment != "":
		return errors.New("the broker URL has a fragment")
	}
	if p := u.Port(); p != "" {
		port = p
	}
	o.address = net.JoinHostPort(o.host, port)
	o.username = u.User.Username()
	o.password, _ = u.User.Password()
	if o.username == "" && o.password != "" {
		return errors.New("the broker URL has a password without a user")
	}
	return nil
}

func (o *options) set(name, value string, role brokers.Role) (err error) {
	switch name {
	case "topics":
		words := topicWords.FindStringSubmatch(value)
		if words == nil {
			return fmt.Errorf("%q is not two words of a-z like sources/clusters", value)
		}
		o.topics.sources, o.topics.clusters = words[1], words[2]
	case "share":
		if role != brokers.RoleSource {
			return errors.New("only a source can share a subscription")
		}
		if !shareGroup.MatchString(value) {
			return fmt.Errorf("%q is not a name of a-z, 0-9 and -", value)
		}
		o.topics.share = value
	case "session-expiry":
		o.sessionExpiry, err = duration(value, time.Second, maxSessionExpiry)
	case "keepalive":
		o.keepalive, err = duration(value, minKeepalive, maxKeepalive)
	case "reload":
		o.reload, err = duration(value, 10*time.Millisecond, 24*time.Hour)
	case "receive-maximum":
		o.receiveMaximum, err = integer(value, 1, math.MaxUint16)
	case "window":
		o.window, err = integer(value, 1, math.MaxUint16)
	case "max-packet":
		o.maxPacket, err = integer(value, minPacket, maxPacket)
	default:
		return errors.New("unknown: there are topics, share, session-expiry, keepalive, reload, receive-maximum, window and max-packet")
	}
	return err
}

func duration(value string, least, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration like 90s or 24h", value)
	}
	if d < least || d > most {
		return 0, fmt.Errorf("%s is not between %s and %s", d, least, most)
	}
	return d, nil
}

func integer(value string, least, most int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil {
		return 0, fmt.Errorf("%q is not a whole number", value)
	}
	if n < least || n > most {
		return 0, fmt.Errorf("%d is not between %d and %d", n, least, most)
	}
	return n, nil
}

// validate holds the configuration against the URL.
func (o *options) validate(c brokers.Config) error {
	switch {
	case !o.tls && (c.CAFile != "" || c.CertFile != ""):
		return errors.New("CA or client certificate given for a connection without TLS: use an mqtts:// URL")
	case c.CredentialsFile != "":
		return errors.New("a credentials file is for NATS: MQTT has username, password and client certificate")
	case o.username != "" && c.Username != "":
		return errors.New("username given both in the broker URL and beside it")
	case len(c.Identity()) > math.MaxUint16:
		return fmt.Errorf("client ID of %d bytes: MQTT allows %d", len(c.Identity()), math.MaxUint16)
	}
	return nil
}
