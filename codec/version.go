package codec

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// Families of types, without their version.
const (
	ownFamily = "io.fleetcast."
	ocmFamily = "io.open-cluster-management.works."
	ocmBundle = "manifestbundles"
)

// version is how Kubernetes and OCM spell one: v1, v1alpha1, v2beta3.
var version = regexp.MustCompile(`^v[0-9]{1,9}((alpha|beta)[0-9]{1,9})?$`)

// unknown judges a type that Decode does not know: that of a peer which speaks
// another version of this conversation, or one of somebody else's.
func unknown(typ string) error {
	if rest, ok := strings.CutPrefix(typ, ownFamily); ok {
		if v, _, _ := strings.Cut(rest, "."); v != ownVersion && version.MatchString(v) {
			return fmt.Errorf("%w: %.100q, only %s is spoken", ErrUnsupportedVersion, typ, ownType)
		}
	}
	if rest, ok := strings.CutPrefix(typ, ocmFamily); ok {
		v, rest, _ := strings.Cut(rest, ".")
		if data, _, _ := strings.Cut(rest, "."); data == ocmBundle &&
			ocmFamily+v+"."+ocmBundle != DataType && version.MatchString(v) {
			return fmt.Errorf("%w: %.100q, only %s is spoken", ErrUnsupportedVersion, typ, DataType)
		}
	}
	return fmt.Errorf("%w: %.100q", ErrUnknownType, typ)
}

// Identify reads which version of which work an event is about, from nothing
// but the attributes, so that a receiver can tell the sender of an event that
// Decode refuses as malformed or of an unsupported version. It says false for
// an event that is about no work, and where ID or generation are themselves
// malformed. Whose work it is says the address.
func Identify(e event.Event) (id string, generation int64, ok bool) {
	if !strings.HasPrefix(e.Get(event.Type), ocmFamily) {
		return "", 0, false
	}
	id = e.Get(attrResourceID)
	if err := checkNames(named{attrResourceID, id, MaxID}); err != nil {
		return "", 0, false
	}
	generation, err := generationOf(e)
	if err != nil || checkGeneration(generation) != nil {
		return "", 0, false
	}
	return id, generation, true
}
