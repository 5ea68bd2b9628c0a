package containers

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/brokertest"
	"github.com/fleetcast-io/fleetcast/brokers/drivers"
)

// packet is the largest packet that both brokers are set to take.
const packet = 1 << 20

func image(setting, otherwise string) string {
	if name := os.Getenv(setting); name != "" {
		return name
	}
	return otherwise
}

func TestMosquitto(t *testing.T) {
	b := run(t, image("FLEETCAST_MOSQUITTO_IMAGE", "eclipse-mosquitto:2.1.2"), "1883/tcp", testcontainers.ContainerFile{
		ContainerFilePath: "/mosquitto/config/mosquitto.conf",
		FileMode:          0o644,
		Reader: strings.NewReader(fmt.Sprintf(`
user root
listener 1883
allow_anonymous true
persistence true
persistence_location /mosquitto/data/
autosave_interval 1
max_packet_size %d
max_queued_messages 100000
`, packet)),
	}, "-c", "/mosquitto/config/mosquitto.conf")
	h := b.harness("mqtt")
	h.Sessions, h.DurableBroadcast, h.Redelivers = true, true, true
	brokertest.Run(t, h)
}

func TestNATS(t *testing.T) {
	b := run(t, image("FLEETCAST_NATS_IMAGE", "nats:2.15.2-alpine"), "4222/tcp", testcontainers.ContainerFile{
		ContainerFilePath: "/nats.conf",
		FileMode:          0o644,
		Reader: strings.NewReader(fmt.Sprintf(`
port: 4222
max_payload: %d
jetstream: {store_dir: /tmp/jetstream, sync_interval: always}
`, packet)),
	}, "-c", "/nats.conf")
	h := b.harness("nats")
	h.Sessions, h.Redelivers, h.KeepsLast, h.Log = true, true, true, true
	brokertest.Run(t, h)
}

// A broker is a container with a port on this machine that outlives restarts.
type broker struct {
	container testcontainers.Container
	address   string
}

func run(t *testing.T, image, port string, config testcontainers.ContainerFile, command ...string) *broker {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	address := freeAddress(t)
	host := netip.MustParseAddrPort(address)
	c, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{
		ContainerRequest: testcontainers.ContainerRequest{
			Image:        image,
			Cmd:          command,
			ExposedPorts: []string{port},
			Files:        []testcontainers.ContainerFile{config},
			HostConfigModifier: func(hc *container.HostConfig) {
				hc.PortBindings = network.PortMap{network.MustParsePort(port): {
					{HostIP: host.Addr(), HostPort: fmt.Sprint(host.Port())},
				}}
			},
			WaitingFor: wait.ForListeningPort(port).SkipInternalCheck(),
		},
		Started: true,
	})
	if err != nil {
		t.Fatalf("run a container of %s: %v", image, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := c.Terminate(ctx); err != nil {
			t.Errorf("remove the container: %v", err)
		}
	})
	return &broker{container: c, address: address}
}

func (b *broker) harness(scheme string) brokertest.Harness {
	return brokertest.Harness{
		Open: func(t *testing.T, c brokers.Config) brokers.Transport {
			t.Helper()
			transport, err := drivers.All.Open(t.Context(), scheme+"://"+b.address, c)
			if err != nil {
				t.Fatal(err)
			}
			return transport
		},
		Stop: func(t *testing.T) {
			t.Helper()
			patience := 10 * time.Second
			if err := b.container.Stop(t.Context(), &patience); err != nil {
				t.Fatal(err)
			}
		},
		Start: func(t *testing.T) {
			t.Helper()
			if err := b.container.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		MaxSize: packet,
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
