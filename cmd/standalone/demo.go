package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetcast-io/fleetcast/cmd/standalone/internal/apiserver"
	"github.com/fleetcast-io/fleetcast/cmd/standalone/internal/demo"
)

type demoFlags struct {
	dataDir string
	broker  string
	cli     string
	verbose bool
}

func newDemoCommand() *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use:   "demo --data-dir DIR",
		Short: "Show a work on its way to two clusters and back",
		Long: `Run a hub, a broker and two clusters, and show a work being distributed, updated,
put back after somebody changed it, and deleted. It uses the fleetcast program,
prints each command with its output, and looks at the clusters to see that it is
so. It exits with 0 if everything was as it should be.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDemo(cmd, f) },
	}
	addDataDirFlag(cmd, &f.dataDir)
	cmd.Flags().StringVar(&f.broker, "broker", "nats", `"nats" or "mqtt"`)
	cmd.Flags().StringVar(&f.cli, "cli", "", "the fleetcast program (default: the one beside this program, else in PATH)")
	addVerboseFlag(cmd, &f.verbose)
	return cmd
}

func runDemo(cmd *cobra.Command, f demoFlags) (err error) {
	if err := requireDataDir(f.dataDir); err != nil {
		return err
	}
	if f.broker != "nats" && f.broker != "mqtt" {
		return usageErrorf(`--broker %q: use "nats" or "mqtt"`, f.broker)
	}
	cli, err := findCLI(f.cli)
	if err != nil {
		return err
	}
	if err := apiserver.ConfigureLogging(f.verbose); err != nil {
		return err
	}
	started := time.Now()
	out, p := cmd.OutOrStdout(), newProgress(cmd.ErrOrStderr())
	fmt.Fprintf(out, "== 0. A hub, a broker (%s) and two clusters start on this machine\n", f.broker)
	two := 2
	fleet, err := startFleet(cmd.Context(), f.dataDir, fleetOptions{clusters: &two, broker: f.broker, verbose: f.verbose}, p)
	if err != nil {
		p.end()
		return err
	}
	defer func() {
		fleet.cancel()
		err = errors.Join(err, fleet.wait())
	}()
	shown := demo.Fleet{
		CLI: cli, Dir: f.dataDir, HubKubeconfig: fleet.hubKubeconfig(),
		Clusters: fleet.clusters(), Kubeconfigs: map[string]string{},
	}
	for _, name := range shown.Clusters {
		shown.Kubeconfigs[name] = filepath.Join(fleet.clusterDir(name), "kubeconfig")
	}
	if err := demo.Run(cmd.Context(), shown, out); err != nil {
		return fmt.Errorf("demo: %w (logs of the clusters are in %s)", err, filepath.Join(f.dataDir, "clusters"))
	}
	fmt.Fprintf(out, "\nEverything was as it should be; it took %.0f s. Run \"make up\" to look around yourself.\n", time.Since(started).Seconds())
	return nil
}

// findCLI returns the path of the fleetcast program.
func findCLI(path string) (string, error) {
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find the fleetcast program: %w", err)
		}
		path = filepath.Join(filepath.Dir(self), "fleetcast")
		if _, err := os.Stat(path); err != nil {
			path = "fleetcast"
		}
	}
	found, err := exec.LookPath(path)
	if err != nil {
		return "", usageErrorf("there is no fleetcast program: run \"make build\", or name it with --cli: %w", err)
	}
	return found, nil
}
