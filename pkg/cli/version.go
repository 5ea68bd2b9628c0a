package cli

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/fleetcast-io/fleetcast/pkg/version"
)

func newVersion() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			info := version.Get()
			var out []byte
			var err error
			switch format {
			case "":
				out = []byte("fleetcast " + info.String() + "\n")
			case "json":
				out, err = json.MarshalIndent(info, "", "    ")
				out = append(out, '\n')
			case "yaml":
				out, err = yaml.Marshal(info)
			default:
				return usagef("--output %s: use json or yaml", format)
			}
			if err != nil {
				return fmt.Errorf("encode the version: %w", err)
			}
			_, err = cmd.OutOrStdout().Write(out)
			return err
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "", "Output format: json, yaml")
	return cmd
}
