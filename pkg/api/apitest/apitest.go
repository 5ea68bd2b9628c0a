// Package apitest gives tests real Kubernetes API servers.
//
// Each server is a process of fleetcast-standalone with an etcd of its own; see
// that program for what it serves and which controllers run in it. A test that
// needs a server never skips: where the program is missing it is built, and where
// that fails so does the test.
//
// A package with many tests shares one server:
//
//	func TestMain(m *testing.M) { apitest.Main(m, apitest.Full) }
//
//	func TestApply(t *testing.T) {
//		server := apitest.Shared(t)
//		namespace := server.Namespace(t)
//		...
//	}
//
// A test that stops, kills or fills its server starts its own with [Start].
package apitest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Profile says which APIs a server serves.
type Profile string

const (
	// Hub is the small set: namespaces, secrets, config maps, service accounts,
	// RBAC, certificate signing requests, leases, events, custom resources,
	// admission policies and webhooks.
	Hub Profile = "hub"
	// Full is everything kube-apiserver serves.
	Full Profile = "full"
)

// A Server is an API server of a test. Its methods may be called from several
// goroutines, except Stop, Kill and Restart, of which one runs at a time.
type Server struct {
	profile Profile
	binary  string
	dir     string

	process *process
	config  *rest.Config
}

// Start runs a new API server with no objects but its own, and returns when it
// is ready. It is stopped and its data is removed at the end of the test.
func Start(t testing.TB, profile Profile) *Server {
	t.Helper()
	s, err := newServer(t.TempDir(), profile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("stop the API server: %v", err)
		}
	})
	return s
}

// Config returns a configuration with the rights of a cluster administrator and
// no client-side rate limit. It stays valid when the server is restarted. The
// caller owns it.
func (s *Server) Config() *rest.Config { return rest.CopyConfig(s.config) }

// Kubeconfig returns the path of a kubeconfig file with the rights of Config.
func (s *Server) Kubeconfig() string { return filepath.Join(s.dir, "kubeconfig") }

// Namespace makes a namespace with a name no other test has. It is deleted at
// the end of the test, which does not wait for its content to be gone.
func (s *Server) Namespace(t testing.TB) string {
	t.Helper()
	client, err := kubernetes.NewForConfig(s.config)
	if err != nil {
		t.Fatalf("make a client of the API server: %v", err)
	}
	namespace, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("make a namespace: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		// A test that stopped its server takes the namespace with it.
		_ = client.CoreV1().Namespaces().Delete(ctx, namespace.Name, metav1.DeleteOptions{})
	})
	return namespace.Name
}

// Stop ends the server as an operator would, and returns when its process has
// ended. The objects stay for Restart. Stopping a stopped server does nothing.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if err := s.stop(); err != nil {
		t.Fatalf("stop the API server: %v", err)
	}
}

// Kill ends the server's process without giving it a chance to finish anything,
// and returns when it has ended. The objects stay for Restart.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if s.process != nil {
		s.process.kill()
		s.process = nil
	}
}

// Restart stops the server if it runs, and starts it again with the same
// objects, on the same port and with the same credentials.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Stop(t)
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

func newServer(dir string, profile Profile) (*Server, error) {
	binary, err := Binary()
	if err != nil {
		return nil, err
	}
	s := &Server{profile: profile, binary: binary, dir: dir}
	if err := s.start(); err != nil {
		return nil, err
	}
	if s.config, err = clientcmd.BuildConfigFromFlags("", s.Kubeconfig()); err != nil {
		return nil, errors.Join(fmt.Errorf("read the API server's kubeconfig: %w", err), s.stop())
	}
	s.config.QPS = -1
	return s, nil
}

func (s *Server) start() (err error) {
	s.process, err = startProcess(filepath.Join(s.dir, "log"), s.binary, "apiserver",
		"--data-dir", s.dir, "--apis", string(s.profile), "--unsafe-no-fsync", "--stop-with-stdin")
	return err
}

func (s *Server) stop() error {
	if s.process == nil {
		return nil
	}
	err := s.process.stop()
	s.process = nil
	return err
}

// shared is the server of a test binary whose TestMain calls Main.
var shared struct {
	sync.Mutex
	profile Profile
	dir     string
	server  *Server
	err     error
}

// Main runs the tests of a package that share a server, stops it and ends the
// process: a TestMain calls it last. The server starts when the first test asks
// for it, so that a run of other tests does not wait for it.
func Main(m *testing.M, profile Profile) {
	os.Exit(runShared(m, profile))
}

func runShared(m *testing.M, profile Profile) (code int) {
	dir, err := os.MkdirTemp("", "apitest-")
	if err != nil {
		fmt.Fprintf(os.Stderr, "make the API server's directory: %v\n", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	shared.profile, shared.dir = profile, dir
	code = m.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		if err := shared.server.stop(); err != nil {
			fmt.Fprintf(os.Stderr, "stop the API server: %v\n", err)
			return 1
		}
	}
	return code
}

// Shared returns the server of the package's tests, whose TestMain must call
// Main. Tests must leave it running.
func Shared(t testing.TB) *Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.dir == "" {
		t.Fatal("the package's TestMain does not call apitest.Main")
	}
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = newServer(shared.dir, shared.profile)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}
