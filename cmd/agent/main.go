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

func main() { os.Exit(run()) }

// run returns the exit code: 2 if the flags are wrong.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fs := pflag.NewFlagSet("fleetcast-agent", pflag.ContinueOnError)
	cfg := agent.Flags(fs)
	err := flags.Parse(fs, os.Args[1:])
	if errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	if err == nil {
		err = errors.Join(cfg.Complete(), cfg.Validate())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleetcast-agent:", err)
		return 2
	}
	if err := agent.Run(ctx, *cfg); err != nil {
		fmt.Fprintln(os.Stderr, "fleetcast-agent:", err)
		return 1
	}
	return 0
}
