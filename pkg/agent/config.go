// Package agent assembles the agent of one cluster: broker driver, store on
// disk, applier and the engine between them.
package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"

	"github.com/fleetcast-io/fleetcast/agents/apply"
	"github.com/fleetcast-io/fleetcast/agents/executor"
	"github.com/fleetcast-io/fleetcast/agents/observe"
	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/flags"
)

// A Config is what Run needs.
type Config struct {
	// ClusterName names the cluster as the hub does. Required.
	ClusterName string

	// Kubeconfig is the file for the cluster's API server; empty means the
	// pod's service account. RESTConfig, if set, wins.
	Kubeconfig string
	RESTConfig *rest.Config

	// Broker (URL required) is how to reach the broker.
	Broker flags.Broker

	// SourceIDs are the sources whose works are taken. Required.
	SourceIDs []string

	// DataDir is where the agent keeps what it was told. Required; it must
	// outlive restarts.
	DataDir string

	// AgentID marks the AppliedManifestWorks as this agent's. Default: the hash
	// of the broker's address.
	AgentID string

	// Workers is how many works are applied at the same time.
	Workers int
	// StatusSyncInterval is how often works are looked at when nothing tells
	// that they changed.
	StatusSyncInterval time.Duration

	// EvictionGracePeriod is for how long what a deleted work made must have been on
	// the cluster again, as after a restore of the cluster, before it is removed.
	// 100 years or more: never.
	EvictionGracePeriod time.Duration

	// ManifestLimit is how many bytes the manifests of a work may have together.
	// 0 means codec.MaxPayload, which is also the most: larger works never come.
	ManifestLimit int

	// Executors say whose rights works have on the cluster. Default: each those of
	// the service account that it names, the agent's own if it names none.
	Executors apply.Executors

	// Observe is about what works ask of live objects. Its zero value works.
	Observe observe.Options

	// MetricsBindAddress serves /metrics, /livez and /readyz; "0" or empty does
	// not.
	MetricsBindAddress string

	// Log is where the agent tells what it does. Default: nowhere.
	Log *slog.Logger

	log flags.Log
}

// Flags adds the agent's flags to fs and returns the Config they fill.
func Flags(fs *pflag.FlagSet) *Config {
	c := &Config{}
	fs.StringVar(&c.ClusterName, "cluster-name", "", "name of this cluster on the hub (required)")
	fs.StringVar(&c.Kubeconfig, "kubeconfig", "", "kubeconfig of this cluster (default: the pod's service account)")
	fs.StringSliceVar(&c.SourceIDs, "source-id", []string{"hub1"}, "source whose works are taken; repeat it for several")
	fs.StringVar(&c.DataDir, "data-dir", "", "directory for what must outlive a restart (required)")
	fs.StringVar(&c.AgentID, "agent-id", "", "owner mark on AppliedManifestWorks (default: hash of the broker's address)")
	fs.IntVar(&c.Workers, "workload-agent-workers", 10, "how many works are applied at the same time")
	fs.DurationVar(&c.StatusSyncInterval, "status-sync-interval", time.Minute, "how often works are looked at beside the watches")
	fs.DurationVar(&c.EvictionGracePeriod, "appliedmanifestwork-eviction-grace-period", time.Hour,
		"how long what a deleted work made must have been on the cluster again before it is removed; 100 years (876000h) or more: never")
	fs.IntVar(&c.ManifestLimit, "manifest-limit", codec.MaxPayload,
		"how many bytes the manifests of a work may have together; of a larger work nothing is applied, which its report says")
	addExecutors(fs, &c.Executors)
	addObserve(fs, &c.Observe)
	fs.StringVar(&c.MetricsBindAddress, "metrics-bind-address", "0", "address for /metrics, /livez and /readyz; 0 for none")
	flags.AddBroker(fs, &c.Broker)
	flags.AddLog(fs, &c.log)
	return c
}

func addExecutors(fs *pflag.FlagSet, e *apply.Executors) {
	fs.BoolFunc("impersonate-executor", "apply works as the service account in their spec.executor; false: with the agent's own rights, after asking whether the service account may do the same (default true)",
		func(s string) error {
			on, err := strconv.ParseBool(s)
			e.CheckOnly = !on
			return err
		})
	fs.BoolVar(&e.Required, "require-executor", false, "refuse works without spec.executor, unless there is a default")
	fs.Func("default-executor", "service account, as namespace/name, for works without spec.executor (default: the agent's own rights)",
		func(s string) (err error) {
			e.Default = executor.Subject{}
			if s != "" {
				e.Default, err = executor.ParseSubject(s)
			}
			return err
		})
}

// Complete sets the logger that the flags ask for.
func (c *Config) Complete() error {
	log, err := c.log.Logger()
	if err != nil {
		return err
	}
	c.Log = log.With("cluster", c.ClusterName)
	return nil
}

// Validate checks what waiting cannot cure.
func (c *Config) Validate() error {
	switch {
	case c.ClusterName == "":
		return errors.New("--cluster-name is required: the name of this cluster on the hub")
	case c.Broker.URL == "":
		return errors.New("--broker is required, for example --broker nats://broker.example.com:4222")
	case c.DataDir == "":
		return errors.New("--data-dir is required: a directory that outlives restarts of the agent")
	case len(c.SourceIDs) == 0:
		return errors.New("--source-id is required: the source whose works are taken")
	case c.ManifestLimit < 0 || c.ManifestLimit > codec.MaxPayload:
		return fmt.Errorf("--manifest-limit %d: must be between 1 and %d bytes", c.ManifestLimit, codec.MaxPayload)
	case c.Workers < 0:
		return fmt.Errorf("--workload-agent-workers %d: must not be negative", c.Workers)
	case c.StatusSyncInterval < 0:
		return fmt.Errorf("--status-sync-interval %s: must not be negative", c.StatusSyncInterval)
	case c.Observe.MaxRawJSON < 0 || c.Observe.MaxRawJSON > observe.MostRawJSON:
		return fmt.Errorf("--max-json-raw-length %d: must be between 1 and %d", c.Observe.MaxRawJSON, observe.MostRawJSON)
	case c.EvictionGracePeriod < 0:
		return fmt.Errorf("--appliedmanifestwork-eviction-grace-period %s: must not be negative", c.EvictionGracePeriod)
	}
	for _, source := range c.SourceIDs {
		f := brokers.Filter{Lane: brokers.ToCluster, Source: source, Cluster: c.ClusterName}
		if err := f.Validate(); err != nil || source == brokers.Any || c.ClusterName == brokers.Any {
			return fmt.Errorf("--source-id %q with --cluster-name %q: not usable as names in broker topics", source, c.ClusterName)
		}
	}
	return nil
}

// hubHash marks what this hub's works left on the cluster, as OCM's MQTT driver
// does: the SHA-256 of the broker's host and port.
func (c *Config) hubHash() (string, error) {
	u, err := url.Parse(c.Broker.URL)
	if err != nil {
		// The parser's message would repeat a password in the URL.
		return "", errors.New("--broker cannot be parsed as a URL: write it like mqtts://broker.example.com:8883")
	}
	if u.Host == "" && u.Scheme != "mem" {
		return "", errors.New("--broker has no host: write it like mqtts://broker.example.com:8883")
	}
	host := u.Host
	if u.Port() == "" {
		if port, ok := map[string]string{"mqtt": "1883", "mqtts": "8883", "nats": "4222", "tls": "4222"}[u.Scheme]; ok {
			host = u.Hostname() + ":" + port
		}
	}
	sum := sha256.Sum256([]byte(host))
	return hex.EncodeToString(sum[:]), nil
}

func (c *Config) restConfig() (*rest.Config, error) {
	if c.RESTConfig != nil {
		return rest.CopyConfig(c.RESTConfig), nil
	}
	return flags.LoadKubeconfig(c.Kubeconfig)
}
