// Package broker runs a broker whose address outlives it: started again on the
// same directory, it is where its clients look for it.
package broker

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"

	"github.com/fleetcast-io/fleetcast/brokers/embedded"
	"github.com/fleetcast-io/fleetcast/cmd/standalone/internal/datadir"
)

// Address is what a broker listens on.
type Address struct {
	scheme string
	host   string
	port   int
}

// ParseAddress reads an address like nats://127.0.0.1:4222 or mqtt://127.0.0.1:0.
// Port 0 stands for the port of the last run, or a free one.
func ParseAddress(s string) (Address, error) {
	const like = "write it like nats://127.0.0.1:4222 or mqtt://127.0.0.1:1883"
	u, err := url.Parse(s)
	if err != nil {
		return Address{}, fmt.Errorf("the address cannot be parsed: %s", like)
	}
	if _, ok := servers[u.Scheme]; !ok {
		return Address{}, fmt.Errorf("no broker for the scheme %q: %s", u.Scheme, like)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Path != "" && u.Path != "/") {
		return Address{}, fmt.Errorf("an address is a scheme, a host and a port: %s", like)
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		return Address{}, fmt.Errorf("the address has no valid port: %s", like)
	}
	if net.ParseIP(u.Hostname()) == nil && u.Hostname() != "localhost" {
		return Address{}, fmt.Errorf("%q is not an IP address to listen on: %s", u.Hostname(), like)
	}
	return Address{scheme: u.Scheme, host: u.Hostname(), port: int(port)}, nil
}

func (a Address) hostPort() string { return net.JoinHostPort(a.host, strconv.Itoa(a.port)) }

// A server is a broker of the package embedded.
type server struct {
	url   string
	close func() error
}

// servers starts the broker of each scheme with its data in a directory.
var servers = map[string]func(listen, dataDir string, log *slog.Logger) (server, error){
	"nats": func(listen, dataDir string, log *slog.Logger) (server, error) {
		s, err := embedded.StartNATS(embedded.NATSOptions{Listen: listen, DataDir: dataDir, Log: log})
		if err != nil {
			return server{}, err
		}
		return server{url: s.URL(), close: s.Close}, nil
	},
	"mqtt": func(listen, dataDir string, log *slog.Logger) (server, error) {
		s, err := embedded.StartMQTT(embedded.MQTTOptions{Listen: listen, DataDir: dataDir, Log: log})
		if err != nil {
			return server{}, err
		}
		return server{url: s.URL().String(), close: s.Close}, nil
	},
}

// A Broker is a running broker.
type Broker struct {
	server server
	dir    *datadir.Dir
	url    string
}

// Start runs a broker with its data in dataDir, and writes its URL to the file
// url there. Only clients of this machine can reach it, unless address says
// otherwise: it asks them for no credentials.
func Start(dataDir string, address Address, log *slog.Logger) (_ *Broker, err error) {
	dir, err := datadir.Open(dataDir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			dir.Close()
		}
	}()
	// The port of each scheme: a directory may have held brokers of both.
	ports := map[string]int{}
	if err := dir.Recall("ports", &ports); err != nil {
		return nil, err
	}
	remembered := address.port == 0 && ports[address.scheme] != 0
	if remembered {
		address.port = ports[address.scheme]
	}
	s, err := servers[address.scheme](address.hostPort(), dir.Path(address.scheme), log)
	if err != nil {
		if remembered {
			return nil, fmt.Errorf("run the broker on port %d as in the last run: %w", address.port, err)
		}
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.close()
		}
	}()
	b := &Broker{server: s, dir: dir, url: s.url}
	u, err := url.Parse(b.url)
	if err != nil {
		return nil, fmt.Errorf("read the broker's own address: %w", err)
	}
	if ports[address.scheme], err = strconv.Atoi(u.Port()); err != nil {
		return nil, fmt.Errorf("read the broker's own port: %w", err)
	}
	if err := dir.Remember("ports", ports); err != nil {
		return nil, err
	}
	if err := datadir.WriteFile(dir.Path("url"), []byte(b.url+"\n")); err != nil {
		return nil, err
	}
	return b, nil
}

// URL is where clients find the broker.
func (b *Broker) URL() string { return b.url }

// Close ends the broker. What it holds for its clients stays for the next run.
func (b *Broker) Close() error {
	defer b.dir.Close()
	if err := b.server.close(); err != nil {
		return fmt.Errorf("stop the broker: %w", err)
	}
	return nil
}
