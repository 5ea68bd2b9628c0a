// Package hub assembles the hub: CRDs, the source of its works and their
// dispatcher, health and metrics, and the controllers of its features.
package hub

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/pkg/flags"
	"github.com/fleetcast-io/fleetcast/pkg/work"
	"github.com/fleetcast-io/fleetcast/sources/kube"
)

// DefaultSourceID is the source ID of a hub that is not given one.
const DefaultSourceID = "hub1"

// A Config is what Run needs. Make one with Flags or Default.
type Config struct {
	// Kubeconfig is the file for the hub's API server; empty means the pod's
	// service account. RESTConfig, if set, wins.
	Kubeconfig string
	RESTConfig *rest.Config

	// Broker (URL required) is how to reach the broker. The URL mem: is a
	// broker inside this process, on which there is no cluster.
	Broker flags.Broker

	// SourceID names this hub to the agents (required). Two hubs on one broker
	// have different ones.
	SourceID string

	// InstallCRDs has the hub install and update all CRDs of its API. Without it,
	// the hub does so with Fleetcast's own, and waits until somebody installed the
	// others, which are Open Cluster Management's.
	InstallCRDs bool

	// InstallPolicies has the hub install and update the admission policies of works;
	// without it, the hub removes those that an earlier start installed.
	InstallPolicies bool

	// ManifestLimit is how many bytes the manifests of a work may have together; 0
	// leaves it to the broker. Default: work.DefaultManifestLimit.
	ManifestLimit int64

	// NilExecutorValidating has the policies ask who may have works executed as the
	// agent itself, which is how a work without an executor is. See
	// work.PolicySettings.
	NilExecutorValidating bool

	// LeaderElect lets several replicas run, of which one works. The lease is
	// in LeaderElectionNamespace; default: that of the pod, or outside a pod the
	// namespace default.
	LeaderElect             bool
	LeaderElectionNamespace string

	// Breaker says how many of a cluster's works may be deleted at once before the
	// rest waits for a confirmation. Default: kube.DefaultBreaker.
	Breaker *kube.Breaker

	// MetricsBindAddress serves /metrics, HealthProbeBindAddress serves /livez
	// and /readyz; "0" or empty does not.
	MetricsBindAddress     string
	HealthProbeBindAddress string

	// Drivers open brokers by URL scheme. Default: all there are.
	Drivers brokers.Drivers

	// Log is where the hub tells what it does. Default: nowhere.
	Log *slog.Logger

	log flags.Log
}

// Default returns the configuration of the flags' defaults. The caller adds a
// broker.
func Default() Config {
	return *Flags(pflag.NewFlagSet("fleetcast-hub", pflag.ContinueOnError))
}

// Flags adds the hub's flags to fs and returns the Config they fill.
func Flags(fs *pflag.FlagSet) *Config {
	c := &Config{Breaker: &kube.Breaker{}}
	fs.StringVar(&c.Kubeconfig, "kubeconfig", "", "kubeconfig of the hub's API server (default: the pod's service account)")
	fs.StringVar(&c.SourceID, "source-id", DefaultSourceID, "name of this hub to the agents; different for each hub on a broker")
	fs.BoolVar(&c.InstallCRDs, "install-crds", false, "install and update all CRDs of the hub's API, also those of Open Cluster Management; Fleetcast's own in any case")
	fs.BoolVar(&c.InstallPolicies, "install-policies", false, "install and update admission policies that refuse works that cannot run, and remove them without this flag")
	fs.Int64Var(&c.ManifestLimit, "manifest-limit", work.DefaultManifestLimit, "how many bytes the manifests of a work may have together; 0 for what the broker takes")
	fs.BoolVar(&c.NilExecutorValidating, "nil-executor-validating", false,
		"with --install-policies, works without an executor take the right to execute as the agent (system:serviceaccount::klusterlet-work-sa)")
	fs.BoolVar(&c.LeaderElect, "leader-elect", true, "of several replicas let one work and the others wait")
	fs.StringVar(&c.LeaderElectionNamespace, "leader-election-namespace", "", "namespace of the leader's lease (default: the pod's, or outside a pod \"default\")")
	fs.Float64Var(&c.Breaker.Share, "max-deletion-share", kube.DefaultBreaker.Share,
		"share (0 to 1) of a cluster's works that may be deleted within ten minutes; deletions beyond it wait for a confirmation; 1 to withhold none")
	fs.IntVar(&c.Breaker.Works, "max-deletions", kube.DefaultBreaker.Works,
		"how many works of a cluster may be deleted within ten minutes even if that is more than --max-deletion-share of them")
	fs.StringVar(&c.MetricsBindAddress, "metrics-bind-address", "0", "address for /metrics; 0 for none")
	fs.StringVar(&c.HealthProbeBindAddress, "health-probe-bind-address", "0", "address for /livez and /readyz; 0 for none")
	flags.AddBroker(fs, &c.Broker)
	flags.AddLog(fs, &c.log)
	return c
}

// Complete sets the logger that the flags ask for, also for client-go, which has
// one per process. Call it once, from main.
func (c *Config) Complete() error {
	log, err := c.log.Logger()
	if err != nil {
		return err
	}
	c.Log = log
	klog.SetSlogLogger(log)
	return nil
}

// Validate checks what waiting cannot cure.
func (c *Config) Validate() error {
	if c.Broker.URL == "" {
		return errors.New("--broker is required, for example --broker nats://broker.example.com:4222")
	}
	f := brokers.Filter{Lane: brokers.ToSource, Source: c.SourceID, Cluster: brokers.Any}
	if err := f.Validate(); err != nil || c.SourceID == brokers.Any {
		return fmt.Errorf("--source-id %q: not usable as a name in broker topics", c.SourceID)
	}
	if wrong := validation.IsDNS1123Subdomain(leaseName(c.SourceID)); len(wrong) > 0 {
		return fmt.Errorf("--source-id %q: the hub names objects of its API server after it: %s", c.SourceID, strings.Join(wrong, "; "))
	}
	if c.ManifestLimit < 0 {
		return fmt.Errorf("--manifest-limit %d: below 0", c.ManifestLimit)
	}
	if b := c.Breaker; b != nil {
		if math.IsNaN(b.Share) || b.Share < 0 || b.Share > 1 {
			return fmt.Errorf("--max-deletion-share %v: not between 0 and 1", b.Share)
		}
		if b.Works < 0 {
			return fmt.Errorf("--max-deletions %d: below 0", b.Works)
		}
	}
	return nil
}

func (c *Config) restConfig() (*rest.Config, error) {
	cfg, err := c.loadRESTConfig()
	if err != nil {
		return nil, err
	}
	// The API server's priority and fairness protects it better than a limit
	// here, which would hold up one work for another.
	cfg.QPS = -1
	cfg.UserAgent = "fleetcast-hub"
	return cfg, nil
}

func (c *Config) loadRESTConfig() (*rest.Config, error) {
	if c.RESTConfig != nil {
		return rest.CopyConfig(c.RESTConfig), nil
	}
	return flags.LoadKubeconfig(c.Kubeconfig)
}
