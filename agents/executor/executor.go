// Package executor keeps works within the rights of the service account that
// they name as their executor (spec.executor of a ManifestWork).
//
// A [Reviewer] asks the API server, with a SubjectAccessReview, whether a
// service account may do something. [Clients] do something as that service
// account: the request goes over the agent's own connection, under the agent's
// own credentials, and asks to be judged as the service account's (Kubernetes
// calls it impersonation). The two answer different questions. A review says
// beforehand, and for objects that need no write at all, that rights are
// missing; but its answer is of a moment. Impersonation holds at the moment of
// each request, and judges what no review can, such as the rights inside of a
// role that is written.
//
// # Guarantees
//
//   - No answer is no permission: where the API server cannot be asked, there
//     is an error.
//   - A permission is remembered for Options.TTL at most while roles and
//     bindings are watched, and else for Options.ShortTTL. An answer to a
//     question that was asked before a change of rights became known, and came
//     after it, is not remembered. A denial is never remembered for longer
//     than Options.ShortTTL.
//   - What is remembered is bounded in number.
//   - Service accounts need not exist. Kubernetes gives rights to names: those
//     of a deleted service account last as long as its bindings.
//
// # Errors
//
// That rights are missing is a [DeniedError]. Other errors come from the connection
// or say that the agent itself lacks a right; another try may cure them.
//
// All methods may be called concurrently.
package executor

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
)

// A Subject is a service account whose rights count. The zero value is nobody.
type Subject struct{ Namespace, Name string }

// NewSubject returns the service account of that name. The error says which
// part is not a name that a service account can have.
func NewSubject(namespace, name string) (Subject, error) {
	if problems := validation.IsDNS1123Label(namespace); len(problems) > 0 {
		return Subject{}, fmt.Errorf("service account namespace %.64q: %s", namespace, strings.Join(problems, ", "))
	}
	if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
		return Subject{}, fmt.Errorf("service account name %.64q: %s", name, strings.Join(problems, ", "))
	}
	return Subject{namespace, name}, nil
}

// ParseSubject reads what String writes.
func ParseSubject(s string) (Subject, error) {
	namespace, name, ok := strings.Cut(s, "/")
	if !ok {
		return Subject{}, fmt.Errorf("service account %.64q: write it as namespace/name", s)
	}
	return NewSubject(namespace, name)
}

// IsZero says whether it is nobody.
func (s Subject) IsZero() bool { return s == Subject{} }

// String returns "namespace/name", and nothing for nobody.
func (s Subject) String() string {
	if s.IsZero() {
		return ""
	}
	return s.Namespace + "/" + s.Name
}

// User is the name under which Kubernetes knows the service account.
func (s Subject) User() string { return "system:serviceaccount:" + s.Namespace + ":" + s.Name }

// Groups are those that Kubernetes puts each service account into.
func (s Subject) Groups() []string {
	return []string{"system:serviceaccounts", "system:serviceaccounts:" + s.Namespace, "system:authenticated"}
}

// An Object names what something is to be done with. Namespace is empty for
// what is cluster scoped.
type Object struct {
	schema.GroupResource
	Namespace, Name string
}

// String names the object for messages.
func (o Object) String() string {
	if o.Namespace == "" {
		return o.GroupResource.String() + " " + o.Name
	}
	return o.GroupResource.String() + " " + o.Namespace + "/" + o.Name
}

// A DeniedError is the error that says that a subject lacks rights.
type DeniedError struct {
	Subject Subject
	Object  Object
	// Verbs are those that are not allowed. There are none if it is what would
	// be written that is not allowed, such as a role with more rights than the
	// subject has; Reason says then what the API server said.
	Verbs  []string
	Reason string
}

// Error names the resource, as OCM's agent does, and what is missing.
func (d *DeniedError) Error() string {
	text := "not allowed to apply the resource " + d.Object.String() + ": "
	if len(d.Verbs) == 0 {
		return text + d.Reason
	}
	return fmt.Sprintf("%sexecutor %s may not %s it; bind it to a role that allows that", text, d.Subject, strings.Join(d.Verbs, ", "))
}
