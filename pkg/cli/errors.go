package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/clientcmd"
)

// Exit codes, which scripts rely on.
const (
	exitFailure  = 1
	exitUsage    = 2
	exitNotFound = 3
	exitTimeout  = 4
)

// A codedError is an error that says all there is to say, and its exit code.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func coded(code int, err error) error { return &codedError{code: code, err: err} }

func usagef(format string, args ...any) error { return coded(exitUsage, fmt.Errorf(format, args...)) }

func notFoundf(format string, args ...any) error {
	return coded(exitNotFound, fmt.Errorf(format, args...))
}

// explain says in plain words why doing failed at the API server named host, and
// what to do about it. The chain of Go errors is not shown: its reader is a
// person at a terminal. errors.Is still sees it.
func explain(err error, doing, host string) error {
	var done *codedError
	if err == nil || errors.As(err, &done) {
		return err
	}
	say := func(format string, args ...any) error {
		return &plainError{text: fmt.Sprintf("cannot %s: %s", doing, fmt.Sprintf(format, args...)), cause: err}
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		details := status.Status().Details
		why, refused := refusal(status.Status().Message)
		switch {
		case refused:
			return say("the hub refuses it: %s", why)
		case apierrors.IsNotFound(err) && (details == nil || details.Name == ""):
			return say("the API server at %s does not serve this API. Install the hub's CRDs there, or choose the hub with --context or --kubeconfig", host)
		case apierrors.IsForbidden(err):
			return say("not allowed: %s. Ask the hub's administrator for this right, or choose another user with --context", status.Status().Message)
		case apierrors.IsUnauthorized(err):
			return say("the API server at %s does not accept the credentials. Log in again, or choose others with --context or --kubeconfig", host)
		case apierrors.IsRequestEntityTooLargeError(err):
			return say("the work is too large for the API server. Split its manifests over several works")
		case apierrors.IsInternalError(err) || status.Status().Code == http.StatusServiceUnavailable:
			return say("the API server at %s failed: %s. Try again; if it stays, look into its log", host, status.Status().Message)
		default:
			return say("%s", status.Status().Message)
		}
	}
	var transport *url.Error
	switch {
	case errors.Is(err, context.Canceled):
		return say("interrupted")
	case clientcmd.IsEmptyConfig(err):
		return say("no hub is configured. Set KUBECONFIG, or give --kubeconfig")
	case errors.As(err, &transport):
		if transport.Timeout() {
			return say("the API server at %s did not answer in time. Check the network, or allow more with --request-timeout", host)
		}
		return say("the API server at %s cannot be reached: %v. Check that it runs, and that --context or --kubeconfig names the right hub", host, innermost(transport))
	default:
		return say("%v", err)
	}
}

// denied is how an API server begins what an admission policy said.
var denied = regexp.MustCompile(`^.* is forbidden: ValidatingAdmissionPolicy '[^']*' with binding '[^']*' denied request: `)

// refusal is the message of the admission policy that refused a request. It says
// what to do, and its reader need not know that there are policies.
func refusal(message string) (string, bool) {
	at := denied.FindStringIndex(message)
	if at == nil {
		return "", false
	}
	return message[at[1]:], true
}

// A plainError shows text and hides its cause.
type plainError struct {
	text  string
	cause error
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.cause }

func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

func isNotFound(err error) bool {
	c, ok := errors.AsType[*codedError](err)
	return ok && c.code == exitNotFound
}
