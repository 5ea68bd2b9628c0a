// Package api gathers what the Open Cluster Management APIs fix beside their
// types: the names of finalizers, annotations, conditions and reasons that
// other tools rely on, and the CRDs. The types themselves come from
// open-cluster-management.io/api; what this project adds is in v1alpha1.
package api

// Finalizers of the work API.
const (
	// WorkFinalizer keeps a ManifestWork until its cluster confirmed that its
	// manifests are gone.
	WorkFinalizer = "cluster.open-cluster-management.io/manifest-work-cleanup"
	// AppliedWorkFinalizer keeps an AppliedManifestWork until the objects it
	// owns are gone.
	AppliedWorkFinalizer = "cluster.open-cluster-management.io/applied-manifest-work-cleanup"
)

// Annotations and labels that OCM's CloudEvents clients use.
const (
	// GenerationAnnotation lets a source choose the version of a work that has
	// no metadata.generation.
	GenerationAnnotation = "cloudevents.open-cluster-management.io/resourceversion"
	// SequenceAnnotation holds the last applied status sequence.
	SequenceAnnotation = "cloudevents.open-cluster-management.io/sequenceid"
	// DataTypeAnnotation is on every work rebuilt by an agent.
	DataTypeAnnotation = "cloudevents.open-cluster-management.io/datatype"
	// SourceLabel names the source that owns a work rebuilt by an agent.
	SourceLabel = "cloudevents.open-cluster-management.io/originalsource"
	// TracePrefix begins the annotations that travel in the logtracing
	// attribute.
	TracePrefix = "logging.open-cluster-management.io/"
	// SpecHashAnnotation is the hash of the desired object on a live object
	// whose fields are partly ignored.
	SpecHashAnnotation = "open-cluster-management.io/config-spec-hash"
)

// Reasons of the Applied condition.
const (
	ReasonManifestApplied      = "AppliedManifestComplete"
	ReasonManifestFailed       = "AppliedManifestFailed"
	ReasonWorkApplied          = "AppliedManifestWorkComplete"
	ReasonWorkFailed           = "AppliedManifestWorkFailed"
	ReasonManifestIgnoreFailed = "AppliedManifestSSAIgnoreFieldError"
)

// Reasons of the Available condition, of a manifest and of a work.
const (
	ReasonResourceAvailable     = "ResourceAvailable"
	ReasonResourceNotAvailable  = "ResourceNotAvailable"
	ReasonResourceUnfetched     = "FetchingResourceFailed"
	ReasonResourceUnidentified  = "IncompleteResourceMeta"
	ReasonResourcesAvailable    = "ResourcesAvailable"
	ReasonResourcesNotAvailable = "ResourcesNotAvailable"
	ReasonResourcesUnknown      = "ResourcesStatusUnknown"
)

// ConditionReady is this project's own condition of a manifest: whether its
// object is as it should be, by the rules of kstatus. The reason is the status of
// kstatus: Current, InProgress, Failed, Terminating, NotFound or Unknown.
const ConditionReady = "Ready"

// Deletion, as a cluster reports it.
const (
	// ConditionDeleted confirms that nothing of a deleted work is left.
	ConditionDeleted = "Deleted"
	ReasonDeleted    = "ManifestsDeleted"
	// ConditionDeleting is true while objects of a deleted work remain.
	ConditionDeleting = "Deleting"
	ReasonDeleting    = "WorkDeleting"
)

// ConditionDispatched is this project's own condition on a ManifestWork. The
// hub sets it to false when a work does not get to its cluster, with one of the
// reasons below, and removes it when it does. Agents never report it.
const (
	ConditionDispatched = "Dispatched"
	// ReasonTooLarge and ReasonInvalid are those of a work that cannot be sent
	// until it is changed.
	ReasonTooLarge = "TooLarge"
	ReasonInvalid  = "Invalid"
	// ReasonRefusedByBroker is that of a work that the broker goes on refusing,
	// for want of a permission or over a quota.
	ReasonRefusedByBroker = "RefusedByBroker"
	// ReasonClusterAhead is that of a work of which the cluster holds a later
	// generation than the hub, as after the hub was restored from a backup.
	ReasonClusterAhead = "ClusterAhead"
	// ReasonClusterDeleted is that of a work whose cluster says that it deleted it
	// on this hub's word, which the hub does not remember, as after it was restored
	// from a backup that was older than the deletion.
	ReasonClusterDeleted = "ClusterDeleted"
	// ReasonDeletionWithheld is that of a deleted work whose deletion is not sent
	// before an operator confirms it, because too many of its cluster's works were
	// deleted at once.
	ReasonDeletionWithheld = "DeletionWithheld"
)

// ConfirmDeletionAnnotation on a ManifestWork, with the value "true", confirms
// that its deletion is meant, however many others are deleted with it.
const ConfirmDeletionAnnotation = "work.fleetcast.io/confirm-deletion"

// AgentFinalizer keeps an Agent, and with it the namespace of its cluster, for as
// long as the namespace has works or the Agent has deletions that the cluster did
// not confirm.
const AgentFinalizer = "fleetcast.io/unconfirmed-deletions"

// Conditions of an Agent and their reasons.
const (
	// ConditionOnline is true while the agent is heard. Its last transition is
	// since when.
	ConditionOnline = "Online"
	ReasonConnected = "Connected"
	ReasonSilent    = "Silent"
	// ReasonNotTold is that of what an agent of OCM does not tell.
	ReasonNotTold = "NotTold"
	// ReasonNotCompared is that of what only a comparison tells, before the first.
	ReasonNotCompared = "NotCompared"
	// ConditionInSync is true when the agent was found to hold what the hub holds.
	ConditionInSync      = "InSync"
	ReasonDigestsMatch   = "DigestsMatch"
	ReasonDigestsUnequal = "DigestsUnequal"
	// ConditionUnclaimed is true while the cluster holds works of this hub that
	// the hub does not know.
	ConditionUnclaimed    = "Unclaimed"
	ReasonWorksUnclaimed  = "WorksUnclaimed"
	ReasonAllWorksClaimed = "AllWorksClaimed"
	// ConditionDuplicate is true while two agents answer for one cluster.
	ConditionDuplicate = "Duplicate"
	ReasonTwoAgents    = "TwoAgents"
	ReasonOneAgent     = "OneAgent"
	// ConditionUnconfirmed is there, and true, while deletions of works without an
	// object were not confirmed by the cluster.
	ConditionUnconfirmed       = "Unconfirmed"
	ReasonDeletionsUnconfirmed = "DeletionsUnconfirmed"
)

// Reasons of events on an Agent.
const (
	// ReasonDeletionConfirmed says that unclaimed works are deleted on an
	// operator's word.
	ReasonDeletionConfirmed = "DeletionConfirmed"
	// ReasonNotUnclaimed says that spec.delete named works that the cluster does
	// not hold unclaimed, which it does not delete.
	ReasonNotUnclaimed = "NotUnclaimed"
)

// ReasonStatusNotSaved is that of the event on a ManifestWork whose cluster
// reported a status that the API server does not take.
const ReasonStatusNotSaved = "StatusNotSaved"

// ReasonReportDropped is that of the event on a ManifestWork of whose cluster
// something was dropped that it said of the work.
const ReasonReportDropped = "ReportDropped"

// FieldManager is how the agent signs what it applies, unless a work asks for
// another name.
const FieldManager = "work-agent"
