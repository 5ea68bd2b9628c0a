package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/fleetcast-io/fleetcast/pkg/version"
)

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the versions of this program and of what it embeds",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			build, _ := debug.ReadBuildInfo()
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "fleetcast-standalone %s\nkubernetes %s\netcd %s\n", version.Get(),
				moduleVersion(build, "k8s.io/kubernetes"), moduleVersion(build, "go.etcd.io/etcd/server/v3"))
			return err
		},
	}
}

// moduleVersion returns the version of a module this program was built with.
func moduleVersion(build *debug.BuildInfo, path string) string {
	if build != nil {
		for _, module := range build.Deps {
			if module.Path == path {
				return module.Version
			}
		}
	}
	return "unknown"
}
