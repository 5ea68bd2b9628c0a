// Package apiserver runs a real Kubernetes API server, its etcd and the few
// controllers without which its objects would never go away, in one process and
// with all state in one directory.
//
// Kubernetes keeps feature gates, metrics and admission registries in package
// variables, so a process runs at most one of these servers.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/fleetcast-io/fleetcast/cmd/standalone/internal/datadir"
)

// Profile says which APIs a server serves.
type Profile string

const (
	// Hub is the generic control plane: namespaces, secrets, config maps, service
	// accounts, RBAC, certificate signing requests, leases, events, custom
	// resources, admission policies and webhooks. It has no workload APIs.
	Hub Profile = "hub"
	// Full is everything kube-apiserver serves.
	Full Profile = "full"
)

// ParseProfile reads the value of the --apis flag.
func ParseProfile(s string) (Profile, error) {
	switch p := Profile(s); p {
	case Hub, Full:
		return p, nil
	}
	return "", fmt.Errorf("unknown set of APIs %q: use %q or %q", s, Hub, Full)
}

// Options are the optional settings of a server. What is zero is taken from what
// the data directory remembers of its last run, else from the default named
// at the field.
type Options struct {
	// Profile defaults to Full.
	Profile Profile
	// BindAddress defaults to 127.0.0.1. It is not remembered, so that a server
	// never stays exposed because it once was.
	BindAddress net.IP
	// Port defaults to one the kernel chooses.
	Port int
	// UnsafeNoFsync lets etcd answer before its writes are on disk. A crash of the
	// machine may then lose or corrupt the data; a crash of the process does not.
	UnsafeNoFsync bool
	// Logs receives the log of etcd; nil discards it. The API server logs through
	// klog, which belongs to the process: see ConfigureLogging.
	Logs io.Writer
}

// lastRun is what a data directory keeps from one run to the next beside the
// objects and the keys.
type lastRun struct {
	Port    int     `json:"port,omitempty"`
	Profile Profile `json:"apis,omitempty"`
}

const lastRunName = "apiserver"

// A Server is a running API server.
type Server struct {
	kubeconfig string
	config     *rest.Config

	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// stopTimeout is how long requests may delay the end of a server. Clients of a
// server on one machine reconnect at once, and nothing is lost with a request
// that was not answered.
const stopTimeout = 10 * time.Second

// Start runs an API server on dataDir and returns when it is ready. The
// directory and what it needs are made where they do not exist. The end of ctx
// ends the start, but not a server that is ready: Stop does that.
//
// It returns an error that matches datadir.ErrInUse if another process runs on dataDir.
func Start(ctx context.Context, dataDir string, opts Options) (_ *Server, err error) {
	dir, err := datadir.Open(dataDir)
	if err != nil {
		return nil, err
	}
	closers := []func(){dir.Close}
	defer func() {
		if err != nil {
			runLast(closers)
		}
	}()

	var last lastRun
	if err := dir.Recall(lastRunName, &last); err != nil {
		return nil, err
	}
	if opts.Profile == "" {
		opts.Profile = last.Profile
	}
	if opts.Profile == "" {
		opts.Profile = Full
	}
	if opts.BindAddress == nil {
		opts.BindAddress = net.IPv4(127, 0, 0, 1)
	}
	listener, err := listen(ctx, opts.BindAddress, opts.Port, last.Port)
	if err != nil {
		return nil, err
	}
	closers = append(closers, func() { _ = listener.Close() })
	bound, err := netip.ParseAddrPort(listener.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("read the API server's own address: %w", err)
	}
	port := int(bound.Port())

	credentials, err := ensureCredentials(dir.Path("pki"), opts.BindAddress)
	if err != nil {
		return nil, err
	}
	store, err := startEtcd(ctx, dir.Path("etcd"), opts)
	if err != nil {
		return nil, err
	}
	closers = append(closers, store.close)

	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	closers = append(closers, cancel)
	aggregator, err := newServer(runCtx, opts.Profile, serverSettings{
		listener:    listener,
		etcd:        store.endpoint,
		credentials: credentials,
	})
	if err != nil {
		return nil, err
	}
	prepared, err := aggregator.PrepareRun()
	if err != nil {
		return nil, fmt.Errorf("prepare the API server: %w", err)
	}

	s := &Server{
		kubeconfig: dir.Path("kubeconfig"),
		config:     credentials.restConfig(clientHost(opts.BindAddress, port)),
		cancel:     cancel,
		done:       make(chan struct{}),
	}
	served := make(chan error, 1)
	go func() { served <- prepared.Run(runCtx) }()
	defer func() {
		if err != nil {
			// The server panics when its listener is closed under it, and etcd must
			// outlive it.
			cancel()
			_ = awaitEnd(served)
		}
	}()

	if err := s.awaitReady(ctx, served); err != nil {
		return nil, err
	}
	controllers, err := startControllers(runCtx, aggregator.GenericAPIServer.LoopbackClientConfig)
	if err != nil {
		return nil, err
	}
	if err := writeKubeconfig(s.kubeconfig, s.config); err != nil {
		return nil, err
	}
	if err := dir.Remember(lastRunName, lastRun{Port: port, Profile: opts.Profile}); err != nil {
		return nil, err
	}

	errorLog.open.Store(true)
	go func() {
		defer close(s.done)
		select {
		case s.err = <-served:
			cancel()
		case <-runCtx.Done():
			s.err = awaitEnd(served)
		}
		controllers.Wait()
		runLast(closers)
	}()
	return s, nil
}

// Kubeconfig returns the path of a kubeconfig with which its reader is
// administrator of the server.
func (s *Server) Kubeconfig() string { return s.kubeconfig }

// RESTConfig returns a configuration with the same rights as Kubeconfig.
func (s *Server) RESTConfig() *rest.Config { return rest.CopyConfig(s.config) }

// Done is closed when the server has ended and its files are closed.
func (s *Server) Done() <-chan struct{} { return s.done }

// Stop ends the server if it has not ended, and returns when its files are
// closed, with the reason if it did not end in order.
func (s *Server) Stop() error {
	errorLog.open.Store(false)
	s.cancel()
	<-s.done
	return s.err
}

// awaitReady returns when the server answers that it is ready and has made the
// namespace that every client expects. When told to end meanwhile it returns an
// error then: a server whose start-up hooks are interrupted takes them for failed
// and ends the whole process. One that is not ready stopTimeout later is not
// waited for.
func (s *Server) awaitReady(told context.Context, served chan error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(told), 2*time.Minute)
	defer cancel()
	defer context.AfterFunc(told, func() { time.AfterFunc(stopTimeout, cancel) })()
	client, err := kubernetes.NewForConfig(s.config)
	if err != nil {
		return fmt.Errorf("make a client of the new API server: %w", err)
	}
	var last error
	err = wait.PollUntilContextCancel(ctx, 25*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		select {
		case err := <-served:
			served <- err
			return false, fmt.Errorf("it ended while starting: %w", err)
		default:
		}
		if last = client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error(); last == nil {
			_, last = client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{})
		}
		return last == nil, nil
	})
	if err != nil && last != nil && ctx.Err() != nil {
		return fmt.Errorf("wait for the API server to be ready: %w (last answer: %w)", err, last)
	}
	if err == nil {
		err = told.Err()
	}
	if err != nil {
		return fmt.Errorf("wait for the API server to be ready: %w", err)
	}
	return nil
}

// awaitEnd waits for the end of a server that was told to end. One that is still
// busy with requests after stopTimeout is left behind: closing etcd ends them.
func awaitEnd(served <-chan error) error {
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case err := <-served:
		return err
	case <-timer.C:
		return nil
	}
}

// listen opens the port that was asked for, else the one the last run had, else
// one of the kernel's choice.
func listen(ctx context.Context, address net.IP, asked, remembered int) (net.Listener, error) {
	port := asked
	if port == 0 {
		port = remembered
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(address.String(), strconv.Itoa(port)))
	switch {
	case err == nil:
		return listener, nil
	case asked == 0 && remembered != 0 && errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("port %d, which this data directory's kubeconfig names, is in use by another program: end that, or choose another with --port: %w", remembered, err)
	default:
		return nil, fmt.Errorf("open the API server's port: %w", err)
	}
}

// clientHost returns the address under which this machine reaches the server.
func clientHost(bind net.IP, port int) string {
	switch {
	case bind.IsUnspecified() && bind.To4() == nil:
		bind = net.IPv6loopback
	case bind.IsUnspecified():
		bind = net.IPv4(127, 0, 0, 1)
	}
	return "https://" + net.JoinHostPort(bind.String(), strconv.Itoa(port))
}

// runLast calls functions as defer does: the last first.
func runLast(functions []func()) {
	for _, f := range slices.Backward(functions) {
		f()
	}
}
