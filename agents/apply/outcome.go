package apply

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// An action is what applying did to one object.
type action string

const (
	none       action = "" // Not tried.
	created    action = "created"
	configured action = "configured"
	unchanged  action = "unchanged"
	observed   action = "observed" // Read only.
	rejected   action = "refused"  // Trying again will not help.
	failed     action = "failed"
)

// A presence says whether an object exists.
type presence int

const (
	presenceUnknown presence = iota
	present
	absent
)

// An outcome is what became of one manifest.
type outcome struct {
	action action
	// err says why the manifest is not applied; nil if it is. Its text is fit
	// for a status that others read.
	err error
	// presence is what was seen of the object, and lookup why nothing was.
	presence presence
	lookup   error
	// reason is that of the Applied condition if err is not the usual kind of error.
	reason string
	// note completes the message of an applied manifest.
	note string
	// waiting names works that want the object otherwise and have it later.
	waiting []string
	// carried is the Applied condition of an earlier look, if it stands.
	carried *metav1.Condition
}

func (o outcome) applied() bool {
	if o.carried != nil {
		return o.carried.Status == metav1.ConditionTrue
	}
	return o.action != none && o.err == nil
}

// retry says whether another try may cure what is wrong.
func (o outcome) retry() bool { return o.action == failed || o.action == none }

func done(a action) outcome { return outcome{action: a, presence: present} }

func refused(err error) outcome { return outcome{action: rejected, err: err} }

// failure is an outcome that another try may cure.
func failure(gvk schema.GroupVersionKind, err error) outcome {
	return outcome{action: failed, err: describe(gvk, err)}
}

// A description is an error whose text may be shown.
type description struct {
	text  string
	cause error
}

func (d *description) Error() string { return d.text }
func (d *description) Unwrap() error { return d.cause }

// describe makes an error of the API server fit for a status. The server's
// messages quote values, so for a secret only the reason and the names of the
// fields are left.
func describe(gvk schema.GroupVersionKind, err error) error {
	if d, ok := errors.AsType[*description](err); ok {
		return d
	}
	text := err.Error()
	if isSecret(gvk) {
		text = describeSecret(err)
	}
	return &description{text: clip(text), cause: err}
}

func describeSecret(err error) string {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		var network *url.Error
		if errors.As(err, &network) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return err.Error()
		}
		return "the request failed"
	}
	s := status.Status()
	text := fmt.Sprintf("the API server answered %s (%d)", reasonOf(string(s.Reason)), s.Code)
	if s.Details == nil {
		return text
	}
	var fields []string
	for _, cause := range s.Details.Causes {
		if cause.Field != "" && !slices.Contains(fields, cause.Field) {
			fields = append(fields, cause.Field)
		}
	}
	if len(fields) > 0 {
		text += " about " + strings.Join(fields, ", ")
	}
	return text
}

func reasonOf(reason string) string {
	if reason == "" {
		return "an error"
	}
	return reason
}

// typeMissing says whether the server does not serve the type at all, in
// contrast to not having the object or its namespace.
func typeMissing(err error) bool {
	if !apierrors.IsNotFound(err) {
		return false
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	d := status.Status().Details
	return d == nil || d.Name == "" || apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// clip keeps a message at a size that a condition can hold.
func clip(s string) string {
	const most = 1024
	if len(s) <= most {
		return s
	}
	cut := most
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}
