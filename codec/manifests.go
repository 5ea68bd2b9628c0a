package codec

import (
	"bytes"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	workv1 "open-cluster-management.io/api/work/v1"
)

// manifestOptions is all of a bundle's body but the manifests. The executor is
// spelled executer on OCM's wire.
type manifestOptions struct {
	DeleteOption *workv1.DeleteOption          `json:"deleteOption,omitempty"`
	Configs      []workv1.ManifestConfigOption `json:"manifestConfigs,omitempty"`
	Executor     *workv1.ManifestWorkExecutor  `json:"executer,omitempty"`
}

// formatManifests writes a bundle's body around the bytes of the manifests.
func formatManifests(spec *workv1.ManifestWorkSpec) ([]byte, error) {
	const head, tail = `{"manifests":[`, `]}`
	options, err := json.Marshal(manifestOptions{spec.DeleteOption, spec.ManifestConfigs, spec.Executor})
	if err != nil {
		return nil, fmt.Errorf("write options: %w", err)
	}
	manifests := make([][]byte, len(spec.Workload.Manifests))
	size := len(head) + len(manifests) + len(tail) + len(options)
	for i := range spec.Workload.Manifests {
		manifests[i], err = formatManifest(spec.Workload.Manifests[i].RawExtension)
		if err != nil {
			return nil, fmt.Errorf("manifest %d: %w", i, err)
		}
		size += len(manifests[i])
	}
	if size > MaxPayload {
		return nil, fmt.Errorf("%w: %d bytes of manifests and options, at most %d are allowed",
			ErrPayloadTooLarge, size, MaxPayload)
	}
	body := make([]byte, 0, size)
	body = append(body, head...)
	for i, manifest := range manifests {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, manifest...)
	}
	if len(options) == len("{}") {
		return append(body, tail...), nil
	}
	body = append(body, "],"...)
	return append(body, options[1:]...), nil
}

func formatManifest(m runtime.RawExtension) ([]byte, error) {
	raw := m.Raw
	if raw == nil && m.Object != nil {
		var err error
		if raw, err = json.Marshal(m.Object); err != nil {
			return nil, malformed("it cannot be written: %.200s", err)
		}
	}
	// The body adds two levels around a manifest.
	if err := checkObject("the manifest", raw, MaxDepth-2); err != nil {
		return nil, err
	}
	return raw, nil
}

// parseManifests reads what formatManifests, or a peer, wrote.
func parseManifests(payload []byte, spec *workv1.ManifestWorkSpec) error {
	var body struct {
		Manifests []json.RawMessage `json:"manifests"`
		manifestOptions
	}
	if err := parseBody(payload, &body); err != nil {
		return err
	}
	for i, raw := range body.Manifests {
		if !bytes.HasPrefix(raw, []byte{'{'}) {
			return malformed("manifest %d is not a JSON object", i)
		}
	}
	spec.DeleteOption = body.DeleteOption
	spec.ManifestConfigs = body.Configs
	spec.Executor = body.Executor
	if len(body.Manifests) > 0 {
		spec.Workload.Manifests = make([]workv1.Manifest, len(body.Manifests))
		for i, raw := range body.Manifests {
			spec.Workload.Manifests[i].Raw = raw
		}
	}
	return nil
}
