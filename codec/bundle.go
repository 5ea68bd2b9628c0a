package codec

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// DeleteOptionAnnotation is in the metadata of a deletion that leaves objects
// behind and holds the work's spec.deleteOption as JSON. A deletion carries no
// spec, and the agent may have missed the generation that says what is to stay.
// Other agents ignore it. Deletions that take everything are as OCM's, without
// it; there the last option that the agent got counts.
const DeleteOptionAnnotation = "work.fleetcast.io/delete-option"

// NewBundle describes a ManifestWork for the wire. The ID is the work's UID, or
// ResourceID of its name where it has none; the generation is that of
// api.GenerationAnnotation or else metadata.generation. A work with a deletion
// timestamp becomes a deletion, without its manifests. A deletion needs none of
// what people put into metadata: what cannot be sent of it is left out, down to
// what identifies the work and says which objects stay (see
// DeleteOptionAnnotation), and a generation that cannot be read from the
// annotation is that of metadata.generation.
//
// Managed fields and kubectl's last applied configuration are never sent. The
// manifests are not decoded and keep their bytes; w is not changed.
//
// The error wraps ErrMetadataTooLarge, ErrPayloadTooLarge, ErrGenerationRange
// or ErrMalformed; none of them goes away by trying again.
func NewBundle(source string, w *workv1.ManifestWork) (Bundle, error) {
	b, err := newBundle(source, w)
	if err != nil {
		return Bundle{}, fmt.Errorf("bundle work %s/%s: %w", w.Namespace, w.Name, err)
	}
	return b, nil
}

func newBundle(source string, w *workv1.ManifestWork) (Bundle, error) {
	b := Bundle{
		ID:         string(w.UID),
		Source:     source,
		Cluster:    w.Namespace,
		Generation: w.Generation,
	}
	if b.ID == "" {
		if w.Name == "" {
			return Bundle{}, malformed("it has neither UID nor name")
		}
		b.ID = ResourceID(source, w.Namespace, w.Name)
	}
	var err error
	if b.Generation, err = Generation(w); err != nil {
		return Bundle{}, err
	}
	meta := w.ObjectMeta
	meta.UID = types.UID(b.ID)
	deleting := !w.DeletionTimestamp.IsZero()
	if deleting {
		if meta.Annotations, err = withDeleteOption(meta.Annotations, w.Spec.DeleteOption); err != nil {
			return Bundle{}, err
		}
	}
	if b.Metadata, err = formatMetadata(meta); err != nil && deleting {
		what := identity(meta)
		if what.Annotations, err = withDeleteOption(nil, w.Spec.DeleteOption); err != nil {
			return Bundle{}, err
		}
		b.Metadata, err = formatMetadata(what)
	}
	if err != nil {
		return Bundle{}, err
	}
	if b.Trace, err = formatTrace(w.Annotations); err != nil && !deleting {
		return Bundle{}, err
	}
	if deleting {
		b.DeletedAt = w.DeletionTimestamp.UTC()
	} else if b.Payload, err = formatManifests(&w.Spec); err != nil {
		return Bundle{}, err
	}
	return b, b.check()
}

// Generation is the version that NewBundle gives a work: that of
// api.GenerationAnnotation, or else metadata.generation. The error wraps
// ErrMalformed or ErrGenerationRange. A work that is being deleted always has
// one: an annotation that holds none does not count.
func Generation(w *workv1.ManifestWork) (int64, error) {
	text, ok := w.Annotations[api.GenerationAnnotation]
	if !ok {
		return w.Generation, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		err = malformed("annotation %s: %.40q is not an integer", api.GenerationAnnotation, text)
	} else {
		err = checkGeneration(n)
	}
	switch {
	case err == nil:
		return n, nil
	case w.DeletionTimestamp.IsZero():
		return 0, err
	default:
		return w.Generation, nil
	}
}

// identity is what of a work's metadata says which work it is.
func identity(meta metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:              meta.Name,
		Namespace:         meta.Namespace,
		UID:               meta.UID,
		Generation:        meta.Generation,
		DeletionTimestamp: meta.DeletionTimestamp,
	}
}

// ResourceID is the ID that OCM's sources mint for a work: a UUID of version 5.
// The same name always gives the same ID, also after the work was deleted.
func ResourceID(source, cluster, name string) string {
	const resource = "manifestworks.work.open-cluster-management.io"
	seed := strings.Join([]string{source, resource, cluster, name}, "-")
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(seed)).String()
}

// Work rebuilds the ManifestWork as an agent sees it: UID is ID, namespace is
// Cluster, generation is Generation, the name falls back to ID, there is no
// resource version, and api.SourceLabel and api.DataTypeAnnotation are set. A
// deletion has a deletion timestamp, and its spec.deleteOption is that of
// DeleteOptionAnnotation, if there is one.
//
// Unknown fields are ignored, values of the wrong type are errors that wrap
// ErrMalformed. That every manifest is a JSON object is checked, what is in it
// is not.
func (b Bundle) Work() (*workv1.ManifestWork, error) {
	w, err := b.work()
	if err != nil {
		return nil, fmt.Errorf("read work %q of cluster %q: %w", b.ID, b.Cluster, err)
	}
	return w, nil
}

func (b Bundle) work() (*workv1.ManifestWork, error) {
	meta, err := b.meta()
	if err != nil {
		return nil, err
	}
	meta.ResourceVersion = ""
	trace, err := parseTrace(b.Trace)
	if err != nil {
		return nil, err
	}
	if meta.Annotations == nil {
		meta.Annotations = make(map[string]string, len(trace)+1)
	}
	for key, value := range trace {
		if strings.HasPrefix(key, api.TracePrefix) {
			meta.Annotations[key] = value
		}
	}
	meta.Annotations[api.DataTypeAnnotation] = DataType
	option, hasOption := meta.Annotations[DeleteOptionAnnotation]
	if b.Deleting() {
		delete(meta.Annotations, DeleteOptionAnnotation)
	}
	w := &workv1.ManifestWork{ObjectMeta: meta}
	if len(b.Payload) > 0 {
		if err := parseManifests(b.Payload, &w.Spec); err != nil {
			return nil, err
		}
	}
	if b.Deleting() && hasOption {
		w.Spec.DeleteOption = new(workv1.DeleteOption)
		if err := json.Unmarshal([]byte(option), w.Spec.DeleteOption); err != nil {
			return nil, malformed("annotation %s is not a delete option", DeleteOptionAnnotation)
		}
	}
	return w, nil
}

// meta is the work's ObjectMeta with what the bundle itself says put over it.
func (b Bundle) meta() (metav1.ObjectMeta, error) {
	var meta metav1.ObjectMeta
	if len(b.Metadata) > 0 {
		if err := parseObject(attrMetadata, b.Metadata, &meta); err != nil {
			return meta, err
		}
	}
	if meta.Name == "" {
		meta.Name = b.ID
	}
	meta.Namespace = b.Cluster
	meta.UID = types.UID(b.ID)
	meta.Generation = b.Generation
	meta.DeletionTimestamp = nil
	if b.Deleting() {
		meta.DeletionTimestamp = &metav1.Time{Time: b.DeletedAt.Truncate(time.Second)}
	}
	if meta.Labels == nil {
		meta.Labels = make(map[string]string, 1)
	}
	meta.Labels[api.SourceLabel] = b.Source
	return meta, nil
}

func formatMetadata(meta metav1.ObjectMeta) ([]byte, error) {
	meta.ManagedFields = nil
	if _, ok := meta.Annotations[corev1.LastAppliedConfigAnnotation]; ok {
		meta.Annotations = maps.Clone(meta.Annotations)
		delete(meta.Annotations, corev1.LastAppliedConfigAnnotation)
	}
	metadata, err := json.Marshal(meta)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", attrMetadata, err)
	}
	metadata = attributeText(metadata)
	if len(metadata) > MaxMetadata {
		return nil, fmt.Errorf("%w: %d bytes of labels, annotations and the like, at most %d can be sent",
			ErrMetadataTooLarge, len(metadata), MaxMetadata)
	}
	return metadata, nil
}

// withDeleteOption returns the annotations of a deletion. Only spec.deleteOption
// says what stays, not an annotation that somebody wrote.
func withDeleteOption(have map[string]string, option *workv1.DeleteOption) (map[string]string, error) {
	if option != nil && option.PropagationPolicy != workv1.DeletePropagationPolicyTypeOrphan &&
		option.PropagationPolicy != workv1.DeletePropagationPolicyTypeSelectivelyOrphan {
		option = nil
	}
	if _, ok := have[DeleteOptionAnnotation]; !ok && option == nil {
		return have, nil
	}
	out := make(map[string]string, len(have)+1)
	maps.Copy(out, have)
	delete(out, DeleteOptionAnnotation)
	if option != nil {
		text, err := json.Marshal(option)
		if err != nil {
			return nil, fmt.Errorf("write the delete option: %w", err)
		}
		out[DeleteOptionAnnotation] = string(text)
	}
	return out, nil
}

// formatTrace picks the annotations that OCM's clients carry as log fields.
func formatTrace(annotations map[string]string) (string, error) {
	var trace map[string]string
	for key, value := range annotations {
		if strings.HasPrefix(key, api.TracePrefix) {
			if trace == nil {
				trace = make(map[string]string)
			}
			trace[key] = value
		}
	}
	if trace == nil {
		return "", nil
	}
	text, err := json.Marshal(trace)
	if err != nil {
		return "", fmt.Errorf("write %s: %w", attrTrace, err)
	}
	text = attributeText(text)
	if err := checkText(attrTrace, string(text)); err != nil {
		return "", err
	}
	return string(text), nil
}

// attributeText escapes the characters of valid JSON that no attribute may
// hold. Kubernetes takes them in annotations, and they occur in strings only.
func attributeText(text []byte) []byte {
	if event.IsText(string(text)) {
		return text
	}
	out := make([]byte, 0, len(text)+64)
	for _, r := range string(text) {
		switch {
		case event.IsText(string(r)):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}
