// Command fleetcast-agent runs the works of one cluster.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/fleetcast-io/fleetcast/pkg/agent"
	"github.com/fleetcast-io/fleetcast/pkg/flags"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fs := pflag.NewFlagSet("fleetcast-agent", pflag.ContinueOnError)
	cfg := agent.Flags(fs)
	err := flags.Parse(fs, os.Args[1:])
	if errors.Is(err, pflag.ErrHelp) {
		return
	}
	if err == nil {
		err = errors.Join(cfg.Complete(), cfg.Validate())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleetcast-agent:", err)
		os.Exit(2)
	}
	if err := agent.Run(ctx, *cfg); err != nil {
		cfg.Log.Error("agent stopped", "err", err)
		os.Exit(1)
	}
}
