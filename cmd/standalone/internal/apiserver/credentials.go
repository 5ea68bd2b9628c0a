package apiserver

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"

	"github.com/fleetcast-io/fleetcast/cmd/standalone/internal/datadir"
)

// renewBefore is how long before its end a certificate is replaced at a start.
const renewBefore = 30 * 24 * time.Hour

// credentials are the keys and certificates of one server, in PEM files of one
// directory. The authority signs the server's and its clients' certificates.
type credentials struct {
	authorityFile         string
	serverFile            string
	serverKeyFile         string
	serviceAccountKeyFile string

	authority, admin, adminKey []byte
}

// ensureCredentials reads what an earlier run left and makes what is missing,
// has run out or does not cover bind.
func ensureCredentials(dir string, bind net.IP) (*credentials, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the keys: %w", err)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	c := &credentials{
		authorityFile:         file("ca.crt"),
		serverFile:            file("server.crt"),
		serverKeyFile:         file("server.key"),
		serviceAccountKeyFile: file("service-account.key"),
	}
	authority, err := ensureAuthority(c.authorityFile, file("ca.key"))
	if err != nil {
		return nil, err
	}
	names, addresses := serverNames(bind)
	if err := authority.ensure(c.serverFile, c.serverKeyFile, x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		DNSNames:    names,
		IPAddresses: addresses,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}); err != nil {
		return nil, err
	}
	if err := authority.ensure(file("admin.crt"), file("admin.key"), x509.Certificate{
		Subject:     pkix.Name{CommonName: "fleetcast-admin", Organization: []string{user.SystemPrivilegedGroup}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return nil, err
	}
	if _, err := ensureKey(c.serviceAccountKeyFile); err != nil {
		return nil, err
	}
	for into, name := range map[*[]byte]string{&c.authority: "ca.crt", &c.admin: "admin.crt", &c.adminKey: "admin.key"} {
		if *into, err = os.ReadFile(file(name)); err != nil {
			return nil, fmt.Errorf("read the administrator's credentials: %w", err)
		}
	}
	return c, nil
}

// restConfig returns the administrator's configuration.
func (c *credentials) restConfig(host string) *rest.Config {
	return &rest.Config{
		Host:            host,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.authority, CertData: c.admin, KeyData: c.adminKey},
		// Clients of a server on the same machine need no limit of their own.
		QPS: -1,
	}
}

// writeKubeconfig writes config for kubectl and everything else that reads
// kubeconfig files.
func writeKubeconfig(path string, config *rest.Config) error {
	const name = "fleetcast"
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters[name] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	kubeconfig.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: config.CertData, ClientKeyData: config.KeyData}
	kubeconfig.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	kubeconfig.CurrentContext = name
	content, err := clientcmd.Write(*kubeconfig)
	if err != nil {
		return fmt.Errorf("encode the kubeconfig: %w", err)
	}
	return datadir.WriteFile(path, content)
}

// serverNames returns what the server's certificate is good for.
func serverNames(bind net.IP) ([]string, []net.IP) {
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	addresses := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	switch {
	case bind.IsLoopback():
		return names, appendAddress(addresses, bind)
	case bind.IsUnspecified():
		interfaces, _ := net.InterfaceAddrs()
		for _, a := range interfaces {
			if prefix, ok := a.(*net.IPNet); ok {
				addresses = appendAddress(addresses, prefix.IP)
			}
		}
	default:
		addresses = appendAddress(addresses, bind)
	}
	if hostname, err := os.Hostname(); err == nil {
		names = append(names, hostname)
	}
	return names, addresses
}

func appendAddress(addresses []net.IP, address net.IP) []net.IP {
	if slices.ContainsFunc(addresses, address.Equal) {
		return addresses
	}
	return append(addresses, address)
}

type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

func ensureAuthority(certificateFile, keyFile string) (*authority, error) {
	key, err := ensureKey(keyFile)
	if err != nil {
		return nil, err
	}
	if certificate, err := readCertificate(certificateFile); err == nil && usable(certificate, key) {
		return &authority{certificate: certificate, key: key}, nil
	}
	certificate, err := certutil.NewSelfSignedCACert(certutil.Config{CommonName: "fleetcast-standalone"}, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate authority: %w", err)
	}
	content, err := certutil.EncodeCertificates(certificate)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", certificateFile, err)
	}
	if err := datadir.WriteFile(certificateFile, content); err != nil {
		return nil, err
	}
	return &authority{certificate: certificate, key: key}, nil
}

// ensure keeps the certificate that is there if it still serves the purpose of
// template, else writes a new one.
func (a *authority) ensure(certificateFile, keyFile string, template x509.Certificate) error {
	key, err := ensureKey(keyFile)
	if err != nil {
		return err
	}
	if old, err := readCertificate(certificateFile); err == nil && usable(old, key) &&
		old.CheckSignatureFrom(a.certificate) == nil && covers(old, template) {
		return nil
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return fmt.Errorf("choose a serial number: %w", err)
	}
	template.SerialNumber = serial
	template.NotBefore = a.certificate.NotBefore
	template.NotAfter = a.certificate.NotAfter
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, &template, a.certificate, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("sign %s: %w", certificateFile, err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("read back %s: %w", certificateFile, err)
	}
	content, err := certutil.EncodeCertificates(certificate)
	if err != nil {
		return fmt.Errorf("encode %s: %w", certificateFile, err)
	}
	return datadir.WriteFile(certificateFile, content)
}

// ensureKey reads a private key, or makes it if the file does not exist. A file
// that holds something else is an error: replacing it would silently end the
// trust others have in it.
func ensureKey(path string) (crypto.Signer, error) {
	parsed, err := keyutil.PrivateKeyFromFile(path)
	if err == nil {
		key, ok := parsed.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("read the key %s: it cannot sign", path)
		}
		return key, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the key %s: %w", path, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key %s: %w", path, err)
	}
	content, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return nil, fmt.Errorf("encode the key %s: %w", path, err)
	}
	return key, datadir.WriteFile(path, content)
}

func readCertificate(path string) (*x509.Certificate, error) {
	certificates, err := certutil.CertsFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the certificate %s: %w", path, err)
	}
	return certificates[0], nil
}

func usable(certificate *x509.Certificate, key crypto.Signer) bool {
	public, ok := certificate.PublicKey.(interface {
		Equal(other crypto.PublicKey) bool
	})
	return ok && public.Equal(key.Public()) && time.Now().Add(renewBefore).Before(certificate.NotAfter)
}

func covers(certificate *x509.Certificate, template x509.Certificate) bool {
	for _, name := range template.DNSNames {
		if !slices.Contains(certificate.DNSNames, name) {
			return false
		}
	}
	for _, address := range template.IPAddresses {
		if !slices.ContainsFunc(certificate.IPAddresses, address.Equal) {
			return false
		}
	}
	return true
}
