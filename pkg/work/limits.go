package work

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "k8s.io/apimachinery/pkg/util/json"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// DefaultManifestLimit is how many bytes the manifests of a work may have on a hub
// that is not told otherwise, which is OCM's default too.
const DefaultManifestLimit = 500 << 10

// Limits are what a work must keep to be sent.
type Limits struct {
	// Manifests is how many bytes the manifests of a work may have together, as JSON;
	// 0 is no limit.
	Manifests int64
}

// A head is what the rules look at of a manifest.
type head struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Metadata   objectNames `json:"metadata"`
}

type objectNames struct {
	Name         string `json:"name"`
	GenerateName string `json:"generateName"`
	Namespace    string `json:"namespace"`
}

// String names the object with its kind and not its version, as the policies do.
func (h head) String() string {
	group := ""
	if before, _, ok := strings.Cut(h.APIVersion, "/"); ok {
		group = before + "/"
	}
	return group + h.Kind + " " + h.Metadata.Namespace + "/" + h.Metadata.Name
}

// Check says what is wrong with a work and what to do about it. The reason is one
// of the condition api.ConditionDispatched, and empty if nothing is wrong. The
// message quotes no content of a manifest but the names of its object.
func (l Limits) Check(w *workv1.ManifestWork) (reason, message string) {
	manifests := w.Spec.Workload.Manifests
	if len(manifests) == 0 {
		return api.ReasonInvalid, "The work has no manifests. Give at least one, or delete the work."
	}
	var size int64
	seen := make(map[string]int, len(manifests))
	for i := range manifests {
		text, err := content(&manifests[i])
		size += int64(len(text))
		var h head
		if err == nil {
			h, err = parseHead(text)
		}
		if err != nil {
			return api.ReasonInvalid, fmt.Sprintf("Manifest %d %v. Correct it.", i, err)
		}
		if first, ok := seen[h.String()]; ok {
			return api.ReasonInvalid, fmt.Sprintf("Manifests %d and %d are the same object, %s. "+
				"A work holds each object once, whatever version of the API it names: leave one of them out.", first, i, h)
		}
		seen[h.String()] = i
	}
	if l.Manifests > 0 && size > l.Manifests {
		return api.ReasonTooLarge, fmt.Sprintf("The manifests have %d bytes, and a work may have %d. "+
			"Split them over several works, or raise the hub's --manifest-limit.", size, l.Manifests)
	}
	if o := w.Spec.DeleteOption; o != nil && o.TTLSecondsAfterFinished != nil && *o.TTLSecondsAfterFinished < 0 {
		return api.ReasonInvalid, fmt.Sprintf("spec.deleteOption.ttlSecondsAfterFinished is %d. "+
			"Give 0 or more seconds, or leave it out to keep a finished work.", *o.TTLSecondsAfterFinished)
	}
	return "", ""
}

// content is the JSON of a manifest, which an API server has compacted.
func content(m *workv1.Manifest) ([]byte, error) {
	if m.Raw != nil || m.Object == nil {
		return m.Raw, nil
	}
	text, err := json.Marshal(m.Object)
	if err != nil {
		return nil, errors.New("cannot be written as JSON")
	}
	return text, nil
}

// parseHead says what keeps a manifest from being an object. What encoding/json
// says may quote the manifest and is left out.
func parseHead(text []byte) (head, error) {
	var h head
	if err := kjson.Unmarshal(text, &h); err != nil {
		return h, errors.New("is no object with texts for apiVersion, kind and metadata.name")
	}
	switch _, err := schema.ParseGroupVersion(h.APIVersion); {
	case h.APIVersion == "" || h.Kind == "":
		return h, errors.New("has no apiVersion or no kind")
	case err != nil:
		return h, errors.New("has an apiVersion that is not group/version")
	case h.Metadata.GenerateName != "" && h.Metadata.Name != "":
		return h, fmt.Errorf("(%s) has metadata.generateName, which would make another object each time: give metadata.name only", h)
	case h.Metadata.Name == "":
		return h, fmt.Errorf("(%s) has no metadata.name: a work applies its manifests again and again, so each needs a name", h.Kind)
	}
	return h, nil
}
