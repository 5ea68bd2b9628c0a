package process

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/fleetcast-io/fleetcast/brokers/embedded"
)

// Serve runs a built-in broker in this process until ctx ends. NATS syncs its
// files every two minutes, as nats-server does unless it is told otherwise.
func Serve(ctx context.Context, kind Kind, address, dir string, log *slog.Logger) error {
	var closer interface{ Close() error }
	var err error
	switch kind {
	case NATS:
		closer, err = embedded.StartNATS(embedded.NATSOptions{Listen: address, DataDir: dir, LazySync: true, Log: log})
	case MQTT:
		closer, err = embedded.StartMQTT(embedded.MQTTOptions{Listen: address, DataDir: dir, Log: log})
	default:
		return fmt.Errorf("there is no broker %q built in", kind)
	}
	if err != nil {
		return fmt.Errorf("run the broker: %w", err)
	}
	<-ctx.Done()
	return closer.Close()
}
