package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	workv1 "open-cluster-management.io/api/work/v1"
)

// Limits of the lists of an Agent, as its schema has them. The hub keeps to
// them: what does not fit is left out and, where there is a count, counted.
const (
	MaxCapabilities = 64
	MaxUnclaimed    = 1000
	MaxTombstones   = 1100
	// MaxID and MaxName bound the names that a cluster gave, in bytes.
	MaxID   = 256
	MaxName = 253
)

// An Agent is the hub's record of the agent of one cluster: whether it is
// heard, whether it holds what the hub holds, and which deletions it was told
// of. It is in the namespace of its cluster and has the name of the hub's source
// ID, so that two hubs of one API server do not share it.
//
// The hub makes it when it hears of the agent first, and writes it when
// something of it changes, not with every sign of life. Whoever may write its
// spec or its status may have works deleted on the cluster.
//
// It has the finalizer fleetcast.io/unconfirmed-deletions while its namespace has
// works, or it has tombstones that the cluster did not confirm. So a namespace
// that is being deleted goes once its cluster confirmed all deletions. Whoever
// takes the finalizer off by hand gives those up: what the cluster still holds of
// them is unclaimed, should it ever return.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=agents,singular=agent,scope=Namespaced,categories=fleetcast
// +kubebuilder:printcolumn:name="Online",type=string,JSONPath=`.status.conditions[?(@.type=="Online")].status`
// +kubebuilder:printcolumn:name="Since",type=date,JSONPath=`.status.conditions[?(@.type=="Online")].lastTransitionTime`
// +kubebuilder:printcolumn:name="In Sync",type=string,JSONPath=`.status.conditions[?(@.type=="InSync")].status`
// +kubebuilder:printcolumn:name="Unclaimed",type=integer,JSONPath=`.status.unclaimedCount`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Agent struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec AgentSpec `json:"spec,omitempty"`
	// +optional
	Status AgentStatus `json:"status,omitempty"`
}

// AgentSpec is what an operator asks of the hub.
type AgentSpec struct {
	// delete lists the IDs of works in status.unclaimed that shall be deleted on
	// the cluster. The hub takes an ID off again once the deletion is in
	// status.tombstones, and one at once that the cluster does not hold unclaimed:
	// an ID that is listed in advance deletes nothing later. Of more than 1000
	// deletions the rest waits here until the cluster confirmed others.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	Delete []string `json:"delete,omitempty"`
}

// AgentStatus is what the hub knows of the agent.
type AgentStatus struct {
	// agent is the name that the agent gave itself last.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Agent string `json:"agent,omitempty"`

	// capabilities are those parts of the protocol, beyond Open Cluster
	// Management's, that the agent said it knows.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=64
	Capabilities []string `json:"capabilities,omitempty"`

	// conditions are Online (the agent is heard; its last transition is since
	// when), InSync (it holds what the hub holds), Unclaimed (it holds works of
	// this hub that the hub does not know), Duplicate (two agents answer for the
	// cluster), and Unconfirmed while there are deletions without an object that
	// the cluster did not confirm.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// lastSeen is when the agent was heard last, as of the last change of this
	// status: it does not follow every sign of life.
	//
	// +optional
	LastSeen *metav1.Time `json:"lastSeen,omitempty"`

	// lastSynced is when the agent was found in sync last, as of the last change
	// of this status.
	//
	// +optional
	LastSynced *metav1.Time `json:"lastSynced,omitempty"`

	// unclaimedCount is how many works the cluster holds of this hub that the hub
	// does not know. The list has the first of them, by ID, as far as they fit.
	//
	// +optional
	UnclaimedCount int32 `json:"unclaimedCount,omitempty"`

	// unclaimed are works that the cluster holds of this hub and the hub does not
	// know, as after the hub lost its data. They stay on the cluster until
	// spec.delete names them.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	Unclaimed []UnclaimedWork `json:"unclaimed,omitempty"`

	// tombstones are deleted works without an object: those whose deletion the
	// cluster has not confirmed yet, and the latest that it has, so that an agent
	// with older data of its own is told again. The hub forgets a confirmed one
	// after 30 days, or earlier of a cluster with more than 100 of them.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1100
	Tombstones []Tombstone `json:"tombstones,omitempty"`
}

// An UnclaimedWork is as its agent described it.
type UnclaimedWork struct {
	// id of the work on the wire: the UID of the ManifestWork that there was.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	ID string `json:"id"`

	// name of the ManifestWork that there was.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// generation that the agent holds.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Generation int64 `json:"generation,omitempty"`

	// deleting says that the agent is deleting it already.
	//
	// +optional
	Deleting bool `json:"deleting,omitempty"`
}

// A Tombstone is the whole identity of a deleted work.
type Tombstone struct {
	// id of the work on the wire.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	ID string `json:"id"`

	// name of the ManifestWork that there was.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// generation of the deletion: above that of every spec that it deletes.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Generation int64 `json:"generation,omitempty"`

	// deletedAt is when the work was deleted.
	//
	// +required
	DeletedAt metav1.Time `json:"deletedAt"`

	// confirmedAt is when the cluster said that nothing of it is left; without
	// it the deletion is sent until the cluster says so.
	//
	// +optional
	ConfirmedAt *metav1.Time `json:"confirmedAt,omitempty"`

	// byOperator says that an operator confirmed the deletion of just this work, or
	// that it was finished and its time to live was over. It does not count among
	// those of which too many at once are withheld.
	//
	// +optional
	ByOperator bool `json:"byOperator,omitempty"`

	// deleteOption says which objects stay on the cluster; without it, what the
	// agent was told of the work last counts.
	//
	// +optional
	DeleteOption *workv1.DeleteOption `json:"deleteOption,omitempty"`
}

// Work returns the ManifestWork of the deletion, in the namespace of its
// cluster: what the hub would hold if the object were still there.
func (t Tombstone) Work(cluster string) *workv1.ManifestWork {
	deleted := t.DeletedAt
	w := &workv1.ManifestWork{ObjectMeta: metav1.ObjectMeta{
		Namespace: cluster, Name: t.Name, UID: types.UID(t.ID), Generation: t.Generation, DeletionTimestamp: &deleted,
	}}
	w.Spec.DeleteOption = t.DeleteOption.DeepCopy()
	return w
}

// AgentList is a list of agents.
//
// +kubebuilder:object:root=true
type AgentList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Agent `json:"items"`
}
