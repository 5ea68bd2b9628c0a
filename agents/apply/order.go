package apply

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// kindRanks orders kinds as Open Cluster Management does: what others need
// comes first. A kind counts by its name alone, whatever its group.
var kindRanks = map[string]int{
	"PriorityClass":            0,
	"Namespace":                0,
	"CustomResourceDefinition": 0,
	"StorageClass":             0,
	"PersistentVolume":         0,
	"PodSecurityPolicy":        0,

	"ClusterRole":        1,
	"ClusterRoleBinding": 1,
	"Role":               1,
	"RoleBinding":        1,

	"NetworkPolicy":       2,
	"ResourceQuota":       2,
	"LimitRange":          2,
	"PodDisruptionBudget": 2,
	"ServiceAccount":      2,

	"Secret":                3,
	"ConfigMap":             3,
	"PersistentVolumeClaim": 3,

	"Service": 4,

	"DaemonSet":               5,
	"Pod":                     5,
	"ReplicationController":   5,
	"ReplicaSet":              5,
	"Deployment":              5,
	"HorizontalPodAutoscaler": 5,
	"StatefulSet":             5,
	"Job":                     5,
	"CronJob":                 5,

	"APIService":                       6,
	"MutatingWebhookConfiguration":     6,
	"ValidatingWebhookConfiguration":   6,
	"ValidatingAdmissionPolicy":        6,
	"ValidatingAdmissionPolicyBinding": 6,
}

const (
	rankOther    = 1000 // Kinds that are not in the table, custom resources above all.
	rankUnparsed = 1001 // Manifests that are no Kubernetes object.
)

func kindRank(kind string) int {
	if kind == "" {
		return rankUnparsed
	}
	if rank, ok := kindRanks[kind]; ok {
		return rank
	}
	return rankOther
}

// resourceRanks is kindRanks by resource name, for the inventory, which does
// not hold kinds.
var resourceRanks = func() map[string]int {
	ranks := make(map[string]int, len(kindRanks))
	for kind, rank := range kindRanks {
		plural, _ := meta.UnsafeGuessKindToResource(schema.GroupVersionKind{Kind: kind})
		ranks[strings.ToLower(plural.Resource)] = rank
	}
	return ranks
}()

func resourceRank(resource string) int {
	if rank, ok := resourceRanks[resource]; ok {
		return rank
	}
	return rankOther
}

// sortForApply orders manifests by rank, and by ordinal within a rank.
func sortForApply(manifests []*manifest) {
	slices.SortStableFunc(manifests, func(a, b *manifest) int {
		return cmp.Compare(kindRank(a.meta.Kind), kindRank(b.meta.Kind))
	})
}

// sortForDelete orders an inventory by descending rank.
func sortForDelete(entries []entry) {
	slices.SortStableFunc(entries, func(a, b entry) int {
		return cmp.Compare(resourceRank(b.Resource), resourceRank(a.Resource))
	})
}
