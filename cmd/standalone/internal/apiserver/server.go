package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	cliflag "k8s.io/component-base/cli/flag"
	aggregatorapiserver "k8s.io/kube-aggregator/pkg/apiserver"
	kubeapiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	kubeapiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	controlplaneoptions "k8s.io/kubernetes/pkg/controlplane/apiserver/options"
	generic "k8s.io/kubernetes/pkg/controlplane/apiserver/samples/generic/server"
)

// issuer names the server in the service account tokens it signs. Whoever
// verifies them asks the server that signed them.
const issuer = "https://kubernetes.default.svc"

type serverSettings struct {
	listener    net.Listener
	etcd        string
	credentials *credentials
}

// flags returns the settings as kube-apiserver's own flags, which are a
// contract its option structs are not.
func (s serverSettings) flags() map[string]string {
	return map[string]string{
		"etcd-servers": s.etcd,

		"client-ca-file":                   s.credentials.authorityFile,
		"tls-cert-file":                    s.credentials.serverFile,
		"tls-private-key-file":             s.credentials.serverKeyFile,
		"service-account-issuer":           issuer,
		"service-account-signing-key-file": s.credentials.serviceAccountKeyFile,
		"service-account-key-file":         s.credentials.serviceAccountKeyFile,
		"authorization-mode":               "RBAC",

		// Fair queueing protects a shared server from its tenants. A server for one
		// person starts faster and holds less without it.
		"enable-priority-and-fairness":   "false",
		"max-requests-inflight":          "3000",
		"max-mutating-requests-inflight": "1000",
		"profiling":                      "false",
		"shutdown-delay-duration":        "0s",
		// Watches would otherwise hold up the end until their clients leave.
		"shutdown-watch-termination-grace-period": "2s",
		"etcd-count-metric-poll-period":           "0",
	}
}

// fullFlags are the settings only kube-apiserver itself has.
var fullFlags = map[string]string{
	"service-cluster-ip-range": "10.96.0.0/16",
	// The service "kubernetes" has no endpoints that a pod could use.
	"endpoint-reconciler-type": "none",
	"allow-privileged":         "true",
}

func newServer(ctx context.Context, profile Profile, settings serverSettings) (*aggregatorapiserver.APIAggregator, error) {
	var (
		server *aggregatorapiserver.APIAggregator
		err    error
	)
	switch profile {
	case Hub:
		server, err = newHubServer(ctx, settings)
	case Full:
		server, err = newFullServer(ctx, settings)
	default:
		_, err = ParseProfile(string(profile))
	}
	if err != nil {
		return nil, fmt.Errorf("set up the API server: %w", err)
	}
	return server, nil
}

func newHubServer(ctx context.Context, settings serverSettings) (*aggregatorapiserver.APIAggregator, error) {
	options := generic.NewOptions()
	var flags cliflag.NamedFlagSets
	options.AddFlags(&flags)
	if err := settings.apply(options, flags, settings.flags()); err != nil {
		return nil, err
	}
	completed, err := options.Complete(ctx, nil, nil)
	if err != nil {
		return nil, err
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return nil, utilerrors.NewAggregate(errs)
	}
	config, err := generic.NewConfig(completed)
	if err != nil {
		return nil, err
	}
	completedConfig, err := config.Complete()
	if err != nil {
		return nil, err
	}
	return generic.CreateServerChain(completedConfig)
}

func newFullServer(ctx context.Context, settings serverSettings) (*aggregatorapiserver.APIAggregator, error) {
	options := kubeapiserveroptions.NewServerRunOptions()
	if err := settings.apply(options.Options, options.Flags(), settings.flags(), fullFlags); err != nil {
		return nil, err
	}
	completed, err := options.Complete(ctx)
	if err != nil {
		return nil, err
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return nil, utilerrors.NewAggregate(errs)
	}
	config, err := kubeapiserver.NewConfig(completed)
	if err != nil {
		return nil, err
	}
	completedConfig, err := config.Complete()
	if err != nil {
		return nil, err
	}
	return kubeapiserver.CreateServerChain(completedConfig)
}

func (s serverSettings) apply(options *controlplaneoptions.Options, sets cliflag.NamedFlagSets, values ...map[string]string) error {
	address, ok := s.listener.Addr().(*net.TCPAddr)
	if !ok {
		return errors.New("the listener is not a TCP listener")
	}
	flags := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	for _, set := range sets.FlagSets {
		flags.AddFlagSet(set)
	}
	for _, group := range values {
		for name, value := range group {
			if err := flags.Set(name, value); err != nil {
				return fmt.Errorf("set --%s=%s: %w", name, value, err)
			}
		}
	}
	if err := flags.Set("secure-port", strconv.Itoa(address.Port)); err != nil {
		return fmt.Errorf("set the port: %w", err)
	}
	options.SecureServing.Listener = s.listener
	options.SecureServing.BindAddress = address.IP
	// Without an address to advertise the server looks for one on the network,
	// and does not start on a machine that has none.
	advertised := address.IP
	if advertised.IsUnspecified() {
		advertised = net.IPv4(127, 0, 0, 1)
	}
	options.GenericServerRunOptions.AdvertiseAddress = advertised
	return nil
}
