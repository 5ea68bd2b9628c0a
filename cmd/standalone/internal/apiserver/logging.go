package apiserver

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"sync/atomic"

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
	klogFlags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(klogFlags)
	// Without logtostderr klog writes files, unless each severity has an output.
	for name, value := range map[string]string{"logtostderr": "false", "stderrthreshold": "FATAL"} {
		if err := klogFlags.Set(name, value); err != nil {
			return fmt.Errorf("keep the log from stderr: %w", err)
		}
	}
	for _, severity := range []string{"INFO", "WARNING", "FATAL"} {
		klog.SetOutputBySeverity(severity, io.Discard)
	}
	klog.SetOutputBySeverity("ERROR", &errorLog)
	return nil
}

// errorLog is where klog's errors go, unless the log is verbose.
var errorLog errorLines

// errorLines passes errors on to stderr while it is open, except for those that
// are none: a client that ends its watch.
type errorLines struct{ open atomic.Bool }

func (l *errorLines) Write(line []byte) (int, error) {
	if l.open.Load() && !bytes.Contains(line, []byte("http2: stream closed")) {
		return os.Stderr.Write(line)
	}
	return len(line), nil
}
