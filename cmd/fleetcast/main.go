// Command fleetcast distributes Kubernetes work to a fleet of clusters, and
// shows what became of it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/fleetcast-io/fleetcast/pkg/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	root := cli.New(genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr})
	code := cli.Execute(ctx, root, os.Args[1:])
	stop()
	os.Exit(code)
}
