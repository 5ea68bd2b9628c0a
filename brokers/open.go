package brokers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// A Role says which end of the conversation a transport is.
type Role int

const (
	// RoleAgent serves one cluster. It needs no administration of the broker.
	RoleAgent Role = iota + 1
	// RoleSource publishes works. Where the broker needs streams, it creates
	// and checks them.
	RoleSource
)

// A Config is what a driver needs beside the URL. Zero values of optional
// fields work.
type Config struct {
	// Role and Name (required) say who connects: the cluster's name for an
	// agent, the source ID for a source.
	Role Role
	Name string

	// ClientID names what the broker keeps for this identity between
	// connections: the MQTT client ID, the NATS consumer. It must be stable
	// over restarts and used by one process at a time. Default: Name for a
	// source, Name with "-client" for an agent, as OCM's peers have it.
	ClientID string

	// CAFile verifies the broker; default: the system's roots. CertFile and
	// KeyFile come together and identify the client. All PEM; certificate and
	// key are read again when they change on disk.
	CAFile, CertFile, KeyFile string

	// Username and PasswordFile authenticate by password. The file is read at
	// every connection attempt; one trailing newline is cut off.
	Username, PasswordFile string

	// CredentialsFile is a NATS credentials file.
	CredentialsFile string

	// Will, if set, is what the broker publishes when this identity's
	// connection ends without Close.
	Will *Will

	// CheckOnly has a driver check the URL and this configuration and return no
	// transport: it connects to nothing. See Drivers.Check.
	CheckOnly bool

	// Log is where connection changes are told. Default: nowhere.
	Log *slog.Logger
}

// A Will is an event that an identity leaves with the broker at each
// connection. The broker publishes it when the connection ends without Close:
// the process died, the network went away, or nothing was heard for longer than
// the protocol allows. A Close that reaches the broker takes it
// back.
//
// It arrives like any event of this identity, from the same address and with
// the same attributes, and is the same at every connection. It is a hint, and
// may be missing or wrong: a broker that dies itself or forbids the topic sends
// none, and one that comes late may stand behind events of the next connection,
// so that its receiver must not believe it over those. Drivers of brokers that
// have no such thing ignore it; their package comments say so.
type Will struct {
	// Topic must be one that this identity may publish to, without wildcards.
	Topic Topic
	// Event is published as it is. It must not change once the transport is
	// open.
	Event event.Event
	// Delay is how long the broker waits for this identity to come back, in
	// which case it publishes nothing. Whole seconds; a fraction counts as one
	// more. Zero publishes at once, at every interruption.
	Delay time.Duration
}

// Identity is the ClientID to use.
func (c Config) Identity() string {
	switch {
	case c.ClientID != "":
		return c.ClientID
	case c.Role == RoleAgent:
		return c.Name + "-client"
	default:
		return c.Name
	}
}

// Logger is Log, or one that says nothing.
func (c Config) Logger() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// Validate checks what does not depend on the driver.
func (c Config) Validate() error {
	switch {
	case c.Role != RoleAgent && c.Role != RoleSource:
		return errors.New("broker configuration: role is neither agent nor source")
	case c.Name == "":
		return errors.New("broker configuration: name is empty")
	case (c.CertFile == "") != (c.KeyFile == ""):
		return errors.New("broker configuration: a client certificate and its key come together")
	case c.PasswordFile != "" && c.Username == "":
		return errors.New("broker configuration: a password needs a username")
	case c.Will != nil && c.Will.Delay < 0:
		return errors.New("broker configuration: the delay of the will is negative")
	}
	if c.Will != nil {
		if err := c.Will.Topic.Validate(); err != nil {
			return fmt.Errorf("broker configuration: will: %w", err)
		}
		if err := c.Will.Event.Validate(); err != nil {
			return fmt.Errorf("broker configuration: will: %w", err)
		}
	}
	return nil
}

// Address is the part of a broker URL that may be shown to anybody: scheme and
// hosts. What stands before the hosts can be a token, and is then no less a
// secret than a password; url.URL.Redacted shows it.
func Address(u *url.URL) string {
	if u.Host == "" {
		return u.Scheme + ":"
	}
	return u.Scheme + "://" + u.Host
}

// ErrUnknownScheme is wrapped by Open for a URL that no driver serves.
var ErrUnknownScheme = errors.New("unknown broker scheme")

// A Driver opens a transport. It must not wait for the broker: it returns an
// error for a wrong URL or configuration, which no waiting cures, and connects
// in the background. Unknown query parameters are errors.
type Driver func(ctx context.Context, u *url.URL, c Config) (Transport, error)

// Drivers maps URL schemes to drivers.
type Drivers map[string]Driver

// Open opens a transport by the scheme of its URL. A broker that cannot be
// reached is no error: the transport goes on trying and says so in the log.
// The context bounds Open only.
func (d Drivers) Open(ctx context.Context, rawURL string, c Config) (Transport, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		// The parser's message would repeat a password in the URL.
		return nil, errors.New("broker URL cannot be parsed: write it like mqtts://broker.example.com:8883 or nats://broker.example.com:4222")
	}
	driver, ok := d[u.Scheme]
	if !ok {
		schemes := slices.Sorted(maps.Keys(d))
		return nil, fmt.Errorf("%w %q in broker URL %s: use one of %s", ErrUnknownScheme, u.Scheme, Address(u), strings.Join(schemes, ", "))
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	t, err := driver(ctx, u, c)
	if err != nil {
		return nil, fmt.Errorf("open broker %s: %w", Address(u), err)
	}
	return t, nil
}

// Check says whether Open would take the URL and the configuration, without
// connecting to anything: a connection may take another process's session.
func (d Drivers) Check(ctx context.Context, rawURL string, c Config) error {
	c.CheckOnly = true
	_, err := d.Open(ctx, rawURL, c)
	return err
}
