package apiserver

import (
	"flag"
	"fmt"
	"io"

	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// ConfigureLogging sets what the process logs on stderr through klog: errors of
// servers that are ready, or everything if verbose. Starting and ending, an API
// server logs errors about itself that are none: parts of it that do not
// wait for each other. Start returns the real ones. It is called once, before
// Start.
func ConfigureLogging(verbose bool) error {
	// The loopback client's warnings are about the server's own requests.
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	if verbose {
		return nil
	}
	klog.InitFlags(logFlags)
	// Without logtostderr klog writes files, unless each severity has an output.
	if err := logFlags.Set("logtostderr", "false"); err != nil {
		return fmt.Errorf("keep the log from stderr: %w", err)
	}
	for _, severity := range []string{"INFO", "WARNING", "ERROR", "FATAL"} {
		klog.SetOutputBySeverity(severity, io.Discard)
	}
	return logOnly("FATAL")
}

var logFlags = flag.NewFlagSet("klog", flag.ContinueOnError)

// logOnly sets the least severity that reaches stderr. It has no effect on a
// verbose log.
func logOnly(severity string) error {
	if logFlags.Lookup("stderrthreshold") == nil {
		return nil
	}
	if err := logFlags.Set("stderrthreshold", severity); err != nil {
		return fmt.Errorf("set the severity of the log: %w", err)
	}
	return nil
}
