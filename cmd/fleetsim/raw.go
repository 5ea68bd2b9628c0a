package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fleetcast-io/fleetcast/pkg/fleet/process"
	"github.com/fleetcast-io/fleetcast/pkg/fleet/raw"
)

func newRaw() *cobra.Command {
	var kind string
	var events, size, topics int
	cmd := &cobra.Command{
		Use:   "raw --broker nats|mqtt",
		Short: "Measure how fast the bare broker is on this machine",
		Long: `Start a broker and send events through it with as little as a client can be: one
publisher and one subscriber, pipelined, confirmed by the broker and acknowledged by
the subscriber. A work needs two events, one each way, so half of this rate is what
works could reach at most.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, remove, err := startBroker(cmd.Context(), process.Kind(kind))
			if err != nil {
				return err
			}
			defer remove()
			rate, err := measureRaw(cmd.Context(), process.Kind(kind), b.URL(), topics, events, size)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s, %s\n", b.Name(), rate)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&kind, "broker", "nats", "nats or mqtt")
	f.IntVar(&events, "events", 100_000, "how many events are sent")
	f.IntVar(&size, "size", 2048, "how many bytes an event has")
	f.IntVar(&topics, "topics", 100, "to how many topics they go in turn")
	return cmd
}

func measureRaw(ctx context.Context, kind process.Kind, url string, topics, events, size int) (raw.Rate, error) {
	separator, send := "/", func(names []string) (raw.Rate, error) {
		return raw.MQTT(ctx, strings.TrimPrefix(url, "mqtt://"), names, events, size)
	}
	if kind == process.NATS {
		separator, send = ".", func(names []string) (raw.Rate, error) { return raw.NATS(ctx, url, names, events, size) }
	}
	var names []string
	for i := range max(1, topics) {
		names = append(names, fmt.Sprint("raw", separator, i))
	}
	return send(names)
}
