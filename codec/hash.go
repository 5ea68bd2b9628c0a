package codec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"
)

// The types below are the status types of the work API with their fields in
// the order of their JSON names. Marshalling them gives the bytes that OCM
// hashes, which are those of the status as a map: keys sorted, structs present
// even when empty. It takes a fifth of the time of making that map.
type (
	sortedStatus struct {
		Conditions     []sortedCondition `json:"conditions,omitempty"`
		ResourceStatus sortedManifests   `json:"resourceStatus"`
	}
	sortedManifests struct {
		Manifests []sortedManifest `json:"manifests,omitempty"`
	}
	sortedManifest struct {
		Conditions     []sortedCondition  `json:"conditions"`
		ResourceMeta   sortedResourceMeta `json:"resourceMeta"`
		StatusFeedback sortedFeedback     `json:"statusFeedback"`
	}
	sortedCondition struct {
		LastTransitionTime metav1.Time            `json:"lastTransitionTime"`
		Message            string                 `json:"message"`
		ObservedGeneration int64                  `json:"observedGeneration,omitempty"`
		Reason             string                 `json:"reason"`
		Status             metav1.ConditionStatus `json:"status"`
		Type               string                 `json:"type"`
	}
	sortedResourceMeta struct {
		Group     string `json:"group"`
		Kind      string `json:"kind"`
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
		Ordinal   int32  `json:"ordinal"`
		Resource  string `json:"resource"`
		Version   string `json:"version"`
	}
	sortedFeedback struct {
		Values []sortedFeedbackValue `json:"values,omitempty"`
	}
	sortedFeedbackValue struct {
		FieldValue sortedFieldValue `json:"fieldValue"`
		Name       string           `json:"name"`
	}
	sortedFieldValue struct {
		Boolean *bool            `json:"boolean,omitempty"`
		Integer *int64           `json:"integer,omitempty"`
		JSONRaw *string          `json:"jsonRaw,omitempty"`
		String  *string          `json:"string,omitempty"`
		Type    workv1.ValueType `json:"type"`
	}
)

// HashStatus is OCM's status hash: the SHA-256, in lower-case hex, of the JSON
// of the status with sorted keys. It hashes the shape that the work API has,
// not the one that travels.
func HashStatus(status workv1.ManifestWorkStatus) (string, error) {
	text, err := json.Marshal(sortStatus(status))
	if err != nil {
		return "", fmt.Errorf("hash status: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

func sortStatus(status workv1.ManifestWorkStatus) sortedStatus {
	sorted := sortedStatus{Conditions: sortConditions(status.Conditions)}
	if len(status.ResourceStatus.Manifests) == 0 {
		return sorted
	}
	sorted.ResourceStatus.Manifests = make([]sortedManifest, len(status.ResourceStatus.Manifests))
	for i := range status.ResourceStatus.Manifests {
		m := &status.ResourceStatus.Manifests[i]
		sorted.ResourceStatus.Manifests[i] = sortedManifest{
			Conditions: sortConditions(m.Conditions),
			ResourceMeta: sortedResourceMeta{
				Group:     m.ResourceMeta.Group,
				Kind:      m.ResourceMeta.Kind,
				Name:      m.ResourceMeta.Name,
				Namespace: m.ResourceMeta.Namespace,
				Ordinal:   m.ResourceMeta.Ordinal,
				Resource:  m.ResourceMeta.Resource,
				Version:   m.ResourceMeta.Version,
			},
			StatusFeedback: sortedFeedback{Values: sortValues(m.StatusFeedbacks.Values)},
		}
	}
	return sorted
}

// sortConditions keeps nil and empty apart: a manifest's conditions are null
// or [] in the JSON.
func sortConditions(conditions []metav1.Condition) []sortedCondition {
	if conditions == nil {
		return nil
	}
	sorted := make([]sortedCondition, len(conditions))
	for i := range conditions {
		c := &conditions[i]
		sorted[i] = sortedCondition{
			LastTransitionTime: c.LastTransitionTime,
			Message:            c.Message,
			ObservedGeneration: c.ObservedGeneration,
			Reason:             c.Reason,
			Status:             c.Status,
			Type:               c.Type,
		}
	}
	return sorted
}

func sortValues(values []workv1.FeedbackValue) []sortedFeedbackValue {
	sorted := make([]sortedFeedbackValue, len(values))
	for i := range values {
		v := &values[i].Value
		sorted[i] = sortedFeedbackValue{
			FieldValue: sortedFieldValue{
				Boolean: v.Boolean,
				Integer: v.Integer,
				JSONRaw: v.JsonRaw,
				String:  v.String,
				Type:    v.Type,
			},
			Name: values[i].Name,
		}
	}
	return sorted
}
