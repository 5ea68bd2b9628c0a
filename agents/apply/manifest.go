package apply

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/observe"
)

// A manifest is one object of a work on its way to the cluster.
type manifest struct {
	// meta identifies the manifest in the status, as far as it is known.
	meta workv1.ManifestResourceMeta
	// object is the normalised manifest; nil if the manifest cannot be read.
	object *unstructured.Unstructured
	// sum is the digest of object.
	sum string
	// resource is where the object is served; the zero value if unknown.
	resource resource
	option   option
	rules    observe.Rules
	outcome  outcome
	// seen is what the object said of itself; nil if it was not read.
	seen *observe.Result
	// finished says that a rule found the object complete.
	finished bool
	// reopened says that it was another rule than that of now.
	reopened bool
}

// resolved says whether it is known which object on the cluster is meant.
func (m *manifest) resolved() bool { return m.resource != resource{} }

func (m *manifest) gvk() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: m.meta.Group, Version: m.meta.Version, Kind: m.meta.Kind}
}

// id is the object's identity on the cluster.
func (m *manifest) id() objectID {
	return objectID{
		Group: m.resource.Group, Resource: m.resource.Resource,
		Namespace: m.object.GetNamespace(), Name: m.object.GetName(),
	}
}

// String names the object for messages.
func (m *manifest) String() string {
	if m.meta.Kind == "" {
		return fmt.Sprintf("manifest %d", m.meta.Ordinal)
	}
	if m.meta.Namespace == "" {
		return m.meta.Kind + " " + m.meta.Name
	}
	return m.meta.Kind + " " + m.meta.Namespace + "/" + m.meta.Name
}

// checkSize says which works are too large as a whole.
func (l Limits) checkSize(raw []workv1.Manifest) error {
	size := 0
	for i := range raw {
		size += len(raw[i].Raw)
	}
	if size > l.WorkBytes {
		return fmt.Errorf("the manifests have %d bytes together, this agent takes %d (--manifest-limit): "+
			"split them over several works, or raise the limit", size, l.WorkBytes)
	}
	return nil
}

// readManifests decodes the manifests of a work, in their order. One that
// cannot be applied comes back with an outcome that says why; its errors never
// quote values, which may be secret.
func readManifests(raw []workv1.Manifest, limits Limits) []*manifest {
	manifests := make([]*manifest, len(raw))
	for i := range raw {
		m := &manifest{meta: workv1.ManifestResourceMeta{Ordinal: int32(i)}}
		manifests[i] = m
		if i >= limits.Manifests {
			m.outcome = refused(fmt.Errorf("the work has %d manifests, at most %d are allowed", len(raw), limits.Manifests))
			continue
		}
		if err := m.read(raw[i].Raw, limits.ManifestBytes); err != nil {
			m.object = nil
			m.outcome = refused(err)
		}
	}
	return manifests
}

func (m *manifest) read(raw []byte, most int) error {
	if len(raw) > most {
		return fmt.Errorf("the manifest has %d bytes, at most %d are allowed", len(raw), most)
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return errors.New("the manifest is empty")
	}
	var fields map[string]any
	if err := utiljson.Unmarshal(raw, &fields); err != nil || fields == nil {
		return errors.New("the manifest is not a JSON object")
	}
	u := &unstructured.Unstructured{Object: fields}
	if err := checkIdentity(u); err != nil {
		return err
	}
	gvk := u.GroupVersionKind()
	m.meta.Group, m.meta.Version, m.meta.Kind = gvk.Group, gvk.Version, gvk.Kind
	m.meta.Name, m.meta.Namespace = u.GetName(), u.GetNamespace()
	if err := checkContent(u); err != nil {
		return err
	}
	if err := normalise(u); err != nil {
		return err
	}
	m.object = u
	canonical, err := json.Marshal(u.Object) // Sorts keys.
	if err != nil {
		return errors.New("the manifest holds a value that JSON cannot")
	}
	sum := sha256.Sum256(canonical)
	m.sum = hex.EncodeToString(sum[:16])
	return nil
}

// checkIdentity makes sure that the fields that say which object is meant are
// strings; the accessors of unstructured objects take anything else for absent.
func checkIdentity(u *unstructured.Unstructured) error {
	for _, field := range [][]string{
		{"apiVersion"}, {"kind"}, {"metadata", "name"}, {"metadata", "namespace"}, {"metadata", "generateName"},
	} {
		if _, _, err := unstructured.NestedString(u.Object, field...); err != nil {
			return fmt.Errorf("%s is not a string", strings.Join(field, "."))
		}
	}
	for _, field := range []string{"labels", "annotations"} {
		value, _, err := unstructured.NestedFieldNoCopy(u.Object, "metadata", field)
		if err != nil || value == nil {
			continue
		}
		if _, _, err := unstructured.NestedStringMap(u.Object, "metadata", field); err != nil {
			return fmt.Errorf("metadata.%s is not a map of strings", field)
		}
	}
	return nil
}

func checkContent(u *unstructured.Unstructured) error {
	if u.GetAPIVersion() == "" {
		return errors.New("apiVersion is missing")
	}
	if _, err := schema.ParseGroupVersion(u.GetAPIVersion()); err != nil {
		return errors.New("apiVersion is not of the form group/version")
	}
	if u.GetKind() == "" {
		return errors.New("kind is missing")
	}
	if u.GetGenerateName() != "" {
		return errors.New("metadata.generateName is set: objects of a work need a fixed name")
	}
	if u.GetName() == "" {
		return errors.New("metadata.name is missing")
	}
	for field, value := range map[string]string{"name": u.GetName(), "namespace": u.GetNamespace()} {
		if problems := content.IsPathSegmentName(value); len(problems) > 0 {
			return fmt.Errorf("metadata.%s is not valid: %s", field, strings.Join(problems, ", "))
		}
	}
	if strings.HasSuffix(u.GetKind(), "List") && u.IsList() {
		return errors.New("a list is not a manifest: add its items one by one")
	}
	if u.GroupVersionKind().Group == workv1.GroupName && u.GetKind() == ownerKind {
		return errors.New("an AppliedManifestWork belongs to the agent and cannot be part of a work")
	}
	return nil
}

// normalise removes what only a live object has, and folds what a server folds.
func normalise(u *unstructured.Unstructured) error {
	delete(u.Object, "status")
	metadata, ok := u.Object["metadata"].(map[string]any)
	if !ok {
		return errors.New("metadata is not an object")
	}
	for _, field := range []string{
		"uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp",
		"deletionGracePeriodSeconds", "managedFields", "ownerReferences", "selfLink", "generateName",
	} {
		delete(metadata, field)
	}
	if isSecret(u.GroupVersionKind()) {
		return foldStringData(u)
	}
	return nil
}

// dropNullTimestamps removes every creationTimestamp of null, which Go writes
// into embedded objects such as pod templates. Sent with server-side apply it
// would count as a change each time.
func dropNullTimestamps(value any) {
	switch v := value.(type) {
	case map[string]any:
		if at, ok := v["creationTimestamp"]; ok && at == nil {
			delete(v, "creationTimestamp")
		}
		for _, child := range v {
			dropNullTimestamps(child)
		}
	case []any:
		for _, child := range v {
			dropNullTimestamps(child)
		}
	}
}
