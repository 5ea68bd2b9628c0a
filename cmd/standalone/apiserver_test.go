package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func TestAPIServer(t *testing.T) {
	for _, apis := range []string{"hub", "full"} {
		t.Run(apis, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			args := []string{"apiserver", "--data-dir", dir, "--apis", apis, "--unsafe-no-fsync"}
			server := start(t, args...)
			config := load(t, filepath.Join(dir, "kubeconfig"))
			client := clientOf(t, config)

			t.Run("serves", func(t *testing.T) { testServedAPIs(t, client, apis) })
			t.Run("custom resources", func(t *testing.T) { testCustomResources(t, config) })
			t.Run("policies", func(t *testing.T) { testAdmissionPolicy(t, client) })
			t.Run("rights", func(t *testing.T) { testRights(t, config) })
			t.Run("garbage", func(t *testing.T) { testGarbage(t, client) })
			t.Run("namespaces", func(t *testing.T) { testNamespaceDeletion(t, client) })
			t.Run("files", func(t *testing.T) { testFilesArePrivate(t, dir) })
			t.Run("second process", func(t *testing.T) {
				code, stderr := run(t, args...)
				if code != exitFailure || !strings.Contains(stderr, "in use by another process") {
					t.Errorf("a second server on the same directory ended with %d:\n%s", code, stderr)
				}
			})

			for name, signal := range map[string]os.Signal{"stopped": syscall.SIGTERM, "killed": syscall.SIGKILL} {
				create(t, client, "default", name)
				code := server.end(t, signal)
				if signal == syscall.SIGTERM && code != 0 {
					t.Errorf("a server told to stop ended with %d", code)
				}
				// What was chosen before needs not be said again.
				server = start(t, "apiserver", "--data-dir", dir, "--unsafe-no-fsync")
				if got := load(t, filepath.Join(dir, "kubeconfig")); !cmp.Equal(got.Host, config.Host) || !cmp.Equal(got.TLSClientConfig, config.TLSClientConfig) {
					t.Errorf("the server that was %s has another address or other credentials", name)
				}
				eventually(t, "read with the old client an object made before the server was "+name, func() error {
					_, err := client.CoreV1().ConfigMaps("default").Get(t.Context(), name, metav1.GetOptions{})
					return err
				})
			}
			testServedAPIs(t, client, apis)
			if log := server.stderr.String(); log != "" {
				t.Errorf("a server without errors logged:\n%s", log)
			}
		})
	}
}

// TestAPIServerInADeepDirectory has a data directory whose name is longer than
// that of a socket may be.
func TestAPIServerInADeepDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep-", 24))
	server := start(t, "apiserver", "--data-dir", dir, "--apis", "hub", "--unsafe-no-fsync")
	create(t, clientOf(t, load(t, filepath.Join(dir, "kubeconfig"))), "default", "object")
	if code := server.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("it ended with %d:\n%s", code, server.stderr)
	}
}

// TestAPIServerToldToEndWhileItStarts signals the server at moments of its start
// that show from outside.
func TestAPIServerToldToEndWhileItStarts(t *testing.T) {
	for _, tc := range []struct {
		moment  string
		reached func(dir, address string) error
	}{
		{"its store runs", func(dir, _ string) error {
			_, err := os.Stat(filepath.Join(dir, "etcd", "client.sock"))
			return err
		}},
		{"it serves without being ready", func(_, address string) error {
			// Whether the certificate is a good one is not the question.
			dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
			conn, err := dialer.DialContext(t.Context(), "tcp", address)
			if err != nil {
				return err
			}
			return conn.Close()
		}},
	} {
		for _, apis := range []string{"hub", "full"} {
			t.Run(tc.moment+"/"+apis, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "data")
				port := freePort(t)
				server, _ := launch(t, "apiserver", "--data-dir", dir, "--apis", apis, "--port", port, "--unsafe-no-fsync")
				eventually(t, tc.moment, func() error { return tc.reached(dir, net.JoinHostPort("127.0.0.1", port)) })
				if code := server.end(t, syscall.SIGTERM); code != 0 {
					t.Errorf("it ended with %d", code)
				}
				if log := server.stderr.String(); log != "" {
					t.Errorf("a server that was told to end logged:\n%s", log)
				}
			})
		}
	}
}

// freePort returns a port that nobody listens on at the time.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err := errors.Join(err, listener.Close()); err != nil {
		t.Fatal(err)
	}
	return port
}

func testServedAPIs(t *testing.T, client kubernetes.Interface, apis string) {
	_, lists, err := client.Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	for _, list := range lists {
		for _, resource := range list.APIResources {
			served[list.GroupVersion+" "+resource.Name] = true
		}
	}
	want := map[string]bool{
		"v1 namespaces": true, "v1 secrets": true, "v1 configmaps": true, "v1 serviceaccounts": true, "v1 events": true,
		"rbac.authorization.k8s.io/v1 clusterroles": true, "certificates.k8s.io/v1 certificatesigningrequests": true,
		"coordination.k8s.io/v1 leases": true, "apiextensions.k8s.io/v1 customresourcedefinitions": true,
		"v1 pods": apis == "full", "apps/v1 deployments": apis == "full", "batch/v1 jobs": apis == "full",
	}
	for resource, want := range want {
		if served[resource] != want {
			t.Errorf("%s: served %v, want %v", resource, served[resource], want)
		}
	}
}

func testCustomResources(t *testing.T, config *rest.Config) {
	crds, err := apiextensions.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "ships.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "example.com",
			Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "ships", Kind: "Ship"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type:       "object",
					Properties: map[string]apiextensionsv1.JSONSchemaProps{"masts": {Type: "integer"}},
				}},
			}},
		},
	}
	if _, err := crds.ApiextensionsV1().CustomResourceDefinitions().Create(t.Context(), crd, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ships := client.Resource(schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "ships"}).Namespace("default")
	ship := func(name string, masts any) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "example.com/v1", "kind": "Ship", "metadata": map[string]any{"name": name}, "masts": masts,
		}}
	}
	eventually(t, "create an object of the new kind", func() error {
		_, err := ships.Create(t.Context(), ship("one", int64(3)), metav1.CreateOptions{})
		return err
	})
	if _, err := ships.Create(t.Context(), ship("two", "three"), metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("an object against its schema: got %v, want invalid", err)
	}
}

func testAdmissionPolicy(t *testing.T, client kubernetes.Interface) {
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "no-forbidden"},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
				},
			}}},
			Validations: []admissionv1.Validation{{Expression: "!object.metadata.name.startsWith('forbidden-')"}},
		},
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "no-forbidden"},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName:        "no-forbidden",
			ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}
	if _, err := client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Create(t.Context(), policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	attempt := 0
	eventually(t, "wait for the policy to deny", func() error {
		attempt++
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("forbidden-%d", attempt)}}
		_, err := client.CoreV1().ConfigMaps("default").Create(t.Context(), object, metav1.CreateOptions{})
		switch {
		case apierrors.IsInvalid(err):
			return nil
		case err == nil:
			return errors.New("a forbidden object was created")
		default:
			return err
		}
	})
}

func testRights(t *testing.T, config *rest.Config) {
	admin := clientOf(t, config)
	eventually(t, "find the default service account", func() error {
		_, err := admin.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	token, err := admin.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	with := func(token string) *kubernetes.Clientset {
		anonymous := rest.AnonymousClientConfig(config)
		anonymous.BearerToken = token
		return clientOf(t, anonymous)
	}
	account := with(token.Status.Token)
	review, err := account.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil || review.Status.UserInfo.Username != "system:serviceaccount:default:default" {
		t.Errorf("the token's user: got %q (%v)", review.Status.UserInfo.Username, err)
	}
	if _, err := account.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("list secrets without the right to: got %v, want forbidden", err)
	}
	if _, err := with("").CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("list secrets as nobody: got %v, want forbidden", err)
	}
	if _, err := with("made up").CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("list secrets with a false token: got %v, want unauthorized", err)
	}
}

func testGarbage(t *testing.T, client kubernetes.Interface) {
	owner := create(t, client, "default", "owner")
	dependent := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Name: "dependent",
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID,
		}},
	}}
	if _, err := client.CoreV1().ConfigMaps("default").Create(t.Context(), dependent, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client.CoreV1().ConfigMaps("default").Delete(t.Context(), owner.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "wait for the dependent to go", func() error {
		_, err := client.CoreV1().ConfigMaps("default").Get(t.Context(), dependent.Name, metav1.GetOptions{})
		return wantNotFound(err)
	})
}

func testNamespaceDeletion(t *testing.T, client kubernetes.Interface) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "short-lived"}}
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	create(t, client, namespace.Name, "content")
	if err := client.CoreV1().Namespaces().Delete(t.Context(), namespace.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "wait for the namespace to go", func() error {
		_, err := client.CoreV1().Namespaces().Get(t.Context(), namespace.Name, metav1.GetOptions{})
		return wantNotFound(err)
	})
}

func testFilesArePrivate(t *testing.T, dir string) {
	if err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		// Directories of mode 0700 protect what etcd puts into its own.
		if err == nil && (entry.IsDir() || filepath.Dir(path) == dir) && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v lets others in", path, info.Mode())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, client kubernetes.Interface, namespace, name string) *corev1.ConfigMap {
	t.Helper()
	object, err := client.CoreV1().ConfigMaps(namespace).Create(t.Context(),
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// wantNotFound returns nil if err says that an object is gone.
func wantNotFound(err error) error {
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err == nil:
		return errors.New("it is still there")
	default:
		return err
	}
}
