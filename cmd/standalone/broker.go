package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/fleetcast-io/fleetcast/cmd/standalone/internal/broker"
)

type brokerFlags struct {
	dataDir   string
	listen    string
	verbose   bool
	withStdin bool
}

func newBrokerCommand() *cobra.Command {
	var flags brokerFlags
	cmd := &cobra.Command{
		Use:   "broker --data-dir DIR --listen URL",
		Short: "Run an MQTT 5 or NATS JetStream broker",
		Long: `Run a broker for hubs and agents in this process: NATS with JetStream, or MQTT 5.

It prints "ready" and its URL when it is, and writes the URL to DIR/url. SIGTERM
and SIGINT end it; started again on the same directory it has what it was
keeping for its clients.

It knows neither users nor TLS: whoever reaches its address may read and write
everything. Have it listen on the loopback only, and use a broker of your own
for fleets of more than one machine.`,
		Example: `  fleetcast-standalone broker --data-dir /tmp/broker --listen nats://127.0.0.1:4222
  fleetcast-standalone broker --data-dir /tmp/broker --listen mqtt://127.0.0.1:0`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runBroker(cmd, flags) },
	}
	addDataDirFlag(cmd, &flags.dataDir)
	cmd.Flags().StringVar(&flags.listen, "listen", "", "nats:// or mqtt:// with an IP address and a port; port 0 is that of the last run, else a free one (required)")
	addVerboseFlag(cmd, &flags.verbose)
	addStopWithStdinFlag(cmd, &flags.withStdin)
	return cmd
}

func runBroker(cmd *cobra.Command, flags brokerFlags) error {
	if err := requireDataDir(flags.dataDir); err != nil {
		return err
	}
	if flags.listen == "" {
		return usageErrorf("--listen is required, for example --listen nats://127.0.0.1:0")
	}
	address, err := broker.ParseAddress(flags.listen)
	if err != nil {
		return usageErrorf("--listen: %w", err)
	}
	ctx := cmd.Context()
	if flags.withStdin {
		ctx = untilEOF(ctx, cmd.InOrStdin())
	}
	b, err := broker.Start(flags.dataDir, address, newLogger(cmd.ErrOrStderr(), flags.verbose))
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(cmd.OutOrStdout(), "ready", b.URL()); err != nil {
		_ = b.Close()
		return fmt.Errorf("say that the broker is ready: %w", err)
	}
	<-ctx.Done()
	return b.Close()
}

func newLogger(w io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}
