// Package flags holds the command-line flags that the programs share: how to
// reach a broker, how to log, and that every flag may come from the
// environment.
package flags

import (
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/fleetcast-io/fleetcast/brokers"
)

// EnvPrefix begins the environment variables that stand in for flags.
const EnvPrefix = "FLEETCAST_"

// Broker is how to reach a broker.
type Broker struct {
	// URL selects driver and address.
	URL string
	// Config gets its Role, Name and Log from the program.
	Config brokers.Config
}

// AddBroker adds the broker flags to fs.
func AddBroker(fs *pflag.FlagSet, b *Broker) {
	fs.StringVar(&b.URL, "broker", b.URL, "the broker: mqtt://host:1883, mqtts://host:8883, nats://host:4222 or tls://host:4222")
	fs.StringVar(&b.Config.CAFile, "broker-ca-file", b.Config.CAFile, "PEM file with the CA that signed the broker's certificate (default: the system's)")
	fs.StringVar(&b.Config.CertFile, "broker-cert-file", b.Config.CertFile, "PEM file with the client certificate; read again when it changes")
	fs.StringVar(&b.Config.KeyFile, "broker-key-file", b.Config.KeyFile, "PEM file with the client certificate's key")
	fs.StringVar(&b.Config.Username, "broker-username", b.Config.Username, "user name at the broker")
	fs.StringVar(&b.Config.PasswordFile, "broker-password-file", b.Config.PasswordFile, "file with the password at the broker")
	fs.StringVar(&b.Config.CredentialsFile, "broker-credentials-file", b.Config.CredentialsFile, "NATS credentials file")
	fs.StringVar(&b.Config.ClientID, "broker-client-id", b.Config.ClientID, "what the broker knows this program by; stable over restarts and used once (default: from the cluster's or source's name)")
}

// Log is how a program logs.
type Log struct {
	Level  string
	Format string
}

// AddLog adds the logging flags to fs.
func AddLog(fs *pflag.FlagSet, l *Log) {
	fs.StringVar(&l.Level, "log-level", "info", "debug, info, warn or error")
	fs.StringVar(&l.Format, "log-format", "text", "text or json")
}

// Logger returns a logger to standard error.
func (l Log) Logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: use debug, info, warn or error", l.Level)
	}
	o := &slog.HandlerOptions{Level: level}
	switch l.Format {
	case "text", "":
		return slog.New(slog.NewTextHandler(os.Stderr, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, o)), nil
	}
	return nil, fmt.Errorf("--log-format %q: use text or json", l.Format)
}

// Parse reads the arguments and then, for flags that they do not set, the
// environment: --broker-ca-file may be FLEETCAST_BROKER_CA_FILE. Arguments that
// are not flags are an error. Asking for help gives pflag.ErrHelp.
func Parse(fs *pflag.FlagSet, args []string) error {
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: everything is a flag, see --help", fs.Arg(0))
	}
	return FromEnvironment(fs)
}

// FromEnvironment sets the flags that were not set from the environment.
func FromEnvironment(fs *pflag.FlagSet) error {
	var failed error
	fs.VisitAll(func(f *pflag.Flag) {
		name := EnvPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, ok := os.LookupEnv(name)
		if !ok || f.Changed || failed != nil {
			return
		}
		if err := fs.Set(f.Name, value); err != nil {
			failed = fmt.Errorf("environment variable %s: %w", name, err)
		}
	})
	return failed
}
