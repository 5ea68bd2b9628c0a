// Package codec turns works, reports and resync requests into CloudEvents and
// back, exactly as Open Cluster Management's own clients write them. The events
// in which sources and agents compare digests and tell of their presence are
// this project's own; they are said only to whom has shown to know them.
//
// It is pure: no clock other than for the time attribute, no network, no
// Kubernetes client. Bytes stay bytes: a [Bundle] and a [Report] keep their
// JSON as it was on the wire, so that storing, comparing and forwarding one
// costs no parse; [Bundle.Work] and [Report.Status] parse on demand.
//
// # Guarantees
//
// Encode and Decode are inverse: for every message m that encodes,
// Decode(m.Encode(a)) yields a and a value equal to m, where an empty slice
// equals nil, a Trace of {} equals "", and what Hello and Buckets say of
// themselves. Encode does not parse: that Metadata,
// Payload and Trace are JSON objects is up to whoever made them, which is
// NewBundle, NewReport or Decode as a rule. Decode never panics, whatever the
// event holds; it caps sizes and nesting before it parses. Bodies larger than
// [MaxPayload] or nested deeper than [MaxDepth] are malformed.
//
// A body may travel compressed. That is a matter of the event, not of the
// message: see [Compressor]. Decode never decompresses, so that
// receivers can hold an event against its address before.
//
// Values are immutable by convention: nobody changes the byte slices of a
// message after it was made, so they may be shared freely.
package codec

import (
	"errors"
	"time"

	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// DataType is the one data type spoken so far (OCM: manifestbundles).
const DataType = "io.open-cluster-management.works.v1alpha1.manifestbundles"

// Extension attributes of OCM's protocol.
const (
	attrCluster    = "clustername"
	attrSource     = "originalsource"
	attrResourceID = "resourceid"
	attrGeneration = "resourceversion"
	attrSequence   = "sequenceid"
	attrDeletion   = "deletiontimestamp"
	attrMetadata   = "metadata"
	attrHash       = "statushash"
	attrTrace      = "logtracing"
)

// attrCapabilities is this project's own extension attribute of an OCM event.
const attrCapabilities = "fleetcast"

// Limits.
const (
	// MaxMetadata is how many bytes of metadata NewBundle and NewReport make at
	// most. The attribute must fit an MQTT user property of 65,535 bytes, which
	// is what Encode and Decode allow; client libraries cut longer ones off
	// silently.
	MaxMetadata = 60 << 10
	// MaxPayload is how many bytes a body may have.
	MaxPayload = 8 << 20
	// MaxDepth is how deep JSON may be nested.
	MaxDepth = 200
	// MaxID is how many bytes the ID of a work may have, and the name of an
	// agent. Brokers and stores make keys and file names of IDs.
	MaxID = 1 << 10
	// MaxName is how many bytes the names of sources and clusters may have, as
	// those of Kubernetes objects.
	MaxName = 253
	// MaxListed is how many works one resync request may list.
	MaxListed = 200_000
	// MaxEntries is how many works one Entries may list.
	MaxEntries = 50_000
)

var (
	// ErrUnknownType is wrapped by Decode for an event of a type that this
	// package does not know. It may be meant for somebody else on the topic.
	ErrUnknownType = errors.New("unknown event type")

	// ErrMalformed is wrapped by Decode and the parsing methods for an event of
	// a known type that does not hold what the type requires, and by Encode,
	// NewBundle and NewReport for what would become such an event.
	ErrMalformed = errors.New("malformed event")

	// ErrUnsupportedVersion is wrapped by Decode for an event that is meant for
	// a receiver like this one, in a version of its type or of CloudEvents that
	// this package does not speak: the peer is newer, or too old.
	ErrUnsupportedVersion = errors.New("unsupported version")

	// ErrUnknownEncoding is wrapped by Decode for an event whose body is not JSON
	// by its content type: the peer believes this one to read what it does not.
	ErrUnknownEncoding = errors.New("unknown encoding")

	// ErrMetadataTooLarge is wrapped by NewBundle for a work whose metadata
	// exceeds MaxMetadata after what is never sent was removed, and by Encode
	// for metadata that no attribute can hold.
	ErrMetadataTooLarge = errors.New("object metadata too large")

	// ErrPayloadTooLarge is wrapped by NewBundle, NewReport and Encode for a
	// body that exceeds MaxPayload, and for Entries of more than MaxEntries works.
	ErrPayloadTooLarge = errors.New("payload too large")

	// ErrGenerationRange is wrapped by NewBundle and Encode for a generation
	// that is negative or does not fit the 32-bit integer of the CloudEvents
	// type system.
	ErrGenerationRange = errors.New("generation out of range")
)

// An Action is the last segment of an event's type. Receivers of bundles do not
// branch on it: what makes a deletion is DeletedAt.
type Action string

// Actions of OCM's protocol.
const (
	Create         Action = "create_request"
	Update         Action = "update_request"
	Delete         Action = "delete_request"
	ResyncRequest  Action = "resync_request"
	ResyncResponse Action = "resync_response"
)

// Announce is the action of Hello, Digest, Match, Buckets, Entries and
// Presence, whose types say all there is to say.
const Announce Action = "announce"

// Types of events: the data type, the subresource and the action.
const (
	specCreate           = DataType + ".spec." + string(Create)
	specUpdate           = DataType + ".spec." + string(Update)
	specDelete           = DataType + ".spec." + string(Delete)
	specResyncRequest    = DataType + ".spec." + string(ResyncRequest)
	specResyncResponse   = DataType + ".spec." + string(ResyncResponse)
	statusUpdate         = DataType + ".status." + string(Update)
	statusResyncRequest  = DataType + ".status." + string(ResyncRequest)
	statusResyncResponse = DataType + ".status." + string(ResyncResponse)
)

// A Message is a Bundle, a Report, a SpecResync, a StatusResync, a Hello, a
// Digest, a Match, a Buckets, an Entries or a Presence.
type Message interface {
	// Encode writes the message as an event with this action. It fails for an
	// action that does not go with the message, and for a message that lacks
	// what the wire requires.
	Encode(action Action) (event.Event, error)
}

// A Bundle is what one source wants one cluster to run: the manifests of one
// ManifestWork, on their way from source to agent.
type Bundle struct {
	// ID identifies the work for its source and its agent (OCM: resourceid).
	ID string
	// Source owns the work; Cluster shall run it.
	Source, Cluster string
	// Generation orders versions of one ID. 0 means unversioned: such a bundle
	// always replaces what is there.
	Generation int64
	// DeletedAt is when the work was deleted, UTC; zero means it was not.
	DeletedAt time.Time
	// Metadata is the JSON of the work's ObjectMeta. It may be empty on a
	// deletion; the ID then stands in for the name.
	Metadata []byte
	// Payload is the JSON of the manifests and their options. Empty on a
	// deletion.
	Payload []byte
	// Trace is the JSON object of strings of the logtracing attribute; ""
	// stands for {}.
	Trace string
}

// Deleting says whether the bundle asks for deletion.
func (b Bundle) Deleting() bool { return !b.DeletedAt.IsZero() }

// A Report is what an agent says of one work, on its way from agent to source.
type Report struct {
	// ID, Source, Cluster and Generation are those of the bundle reported on.
	ID, Source, Cluster string
	Generation          int64
	// Agent is the identity of the reporter (CloudEvents source).
	Agent string
	// Sequence orders the reports on one ID.
	Sequence Sequence
	// Hash is the OCM status hash of the status: 64 hex digits, or empty if the
	// agent did not say.
	Hash string
	// Metadata is the JSON of the agent's ObjectMeta of the work; may be empty.
	Metadata []byte
	// Payload is the JSON of the conditions and manifest statuses.
	Payload []byte
	// Trace is the JSON object of strings of the logtracing attribute; ""
	// stands for {}.
	Trace string
}

// A SpecResync is an agent's question: this is what I hold, send what I lack.
// It is never split: what it does not list counts as not held.
type SpecResync struct {
	// Agent asks, for Cluster, the Source; an empty Source asks all.
	Agent, Source, Cluster string
	Versions               []Version
	// Capabilities is what the agent can do beyond OCM's protocol, such as
	// CapDigest; without any the question is exactly OCM's.
	Capabilities []string
}

// A Version is the generation of one work that an agent holds.
type Version struct {
	ID         string `json:"resourceID"`
	Generation int64  `json:"resourceVersion"`
}

// A StatusResync is a source's question: these are the statuses I hold, report
// what differs. Without hashes it asks for every status there is. It may be
// split as long as no part is without hashes.
type StatusResync struct {
	// Source asks Cluster; an empty Cluster asks all.
	Source, Cluster string
	Hashes          []StatusHash
}

// A StatusHash is the hash of one work's status as its source holds it.
type StatusHash struct {
	ID   string `json:"resourceID"`
	Hash string `json:"statusHash"`
}
