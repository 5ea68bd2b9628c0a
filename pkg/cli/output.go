package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
)

const customColumnsPrefix = "custom-columns="

// output is the choice of an output format.
type output struct {
	flags       *genericclioptions.PrintFlags
	noHeaders   bool
	showSecrets bool
}

// newOutput prints operation, such as "created", when no format is chosen. A
// command without an operation prints a table then.
func newOutput(operation string) *output {
	return &output{flags: genericclioptions.NewPrintFlags(operation)}
}

func (o *output) addFlags(cmd *cobra.Command, tables bool) {
	o.flags.AddFlags(cmd)
	formats := o.flags.AllowedFormats()
	if tables {
		formats = append(formats, "wide", "custom-columns")
		cmd.Flags().BoolVar(&o.noHeaders, "no-headers", false, "Leave the column headers out")
	}
	usage := "Output format: " + strings.Join(formats, ", ")
	cmd.Flag("output").Usage = usage
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

func (o *output) addSecretsFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.showSecrets, "show-secrets", false, "Show the data of Secret manifests in -o json, yaml and the like")
}

func (o *output) format() string { return *o.flags.OutputFormat }

// wide and table say which human-readable format was chosen, if any.
func (o *output) wide() bool { return o.format() == "wide" }

func (o *output) table() bool {
	return (o.format() == "" && *o.flags.TemplatePrinterFlags.TemplateArgument == "") || o.wide()
}

// printer returns the printer for all formats other than tables.
func (o *output) printer() (printers.ResourcePrinter, error) {
	if columns, ok := strings.CutPrefix(o.format(), customColumnsPrefix); ok {
		return newCustomColumns(columns, o.noHeaders)
	}
	p, err := o.flags.ToPrinter()
	if err != nil {
		return nil, usagef("--output %s: %w", o.format(), err)
	}
	return p, nil
}

// tables returns the printer for tables. It prints the headers once.
func (o *output) tables() printers.ResourcePrinter {
	return printers.NewTablePrinter(printers.PrintOptions{NoHeaders: o.noHeaders, Wide: o.wide()})
}

// mask hides the data of Secrets in works, unless it was asked for, and says so.
func (o *output) mask(notice io.Writer, works ...*unstructured.Unstructured) {
	if o.showSecrets || o.table() || o.format() == "name" {
		return
	}
	found := false
	for _, w := range works {
		found = mask(w) || found
	}
	if found {
		fmt.Fprintln(notice, "The data of Secrets is masked; --show-secrets shows it.")
	}
}
