package codec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	kjson "k8s.io/apimachinery/pkg/util/json"

	"github.com/fleetcast-io/fleetcast/pkg/event"
)

// Bodies of the two questions. A list is written as [] when it is empty, and
// is read as empty when it is null or missing.
type (
	versionList struct {
		Versions []Version `json:"resourceVersions"`
	}
	hashList struct {
		Hashes []StatusHash `json:"statusHashes"`
	}
)

// maxHash is how long a status hash in a question may be. It is only compared,
// so it need not be one that this package makes.
const maxHash = 128

// Encode implements Message; the action is ResyncRequest.
func (q SpecResync) Encode(a Action) (event.Event, error) {
	if a != ResyncRequest {
		return event.Event{}, fmt.Errorf("encode spec resync of cluster %q: action %q does not go with it", q.Cluster, a)
	}
	if err := q.check(); err != nil {
		return event.Event{}, fmt.Errorf("encode spec resync of cluster %q: %w", q.Cluster, err)
	}
	versions := q.Versions
	if versions == nil {
		versions = []Version{}
	}
	e, err := question(specResyncRequest, q.Agent, q.Cluster, q.Source, versionList{versions})
	if err != nil {
		return event.Event{}, fmt.Errorf("encode spec resync of cluster %q: %w", q.Cluster, err)
	}
	if len(q.Capabilities) > 0 {
		e.Set(attrCapabilities, strings.Join(q.Capabilities, ","))
	}
	return e, nil
}

// Encode implements Message; the action is ResyncRequest.
func (q StatusResync) Encode(a Action) (event.Event, error) {
	if a != ResyncRequest {
		return event.Event{}, fmt.Errorf("encode status resync of cluster %q: action %q does not go with it", q.Cluster, a)
	}
	if err := q.check(); err != nil {
		return event.Event{}, fmt.Errorf("encode status resync of cluster %q: %w", q.Cluster, err)
	}
	hashes := q.Hashes
	if hashes == nil {
		hashes = []StatusHash{}
	}
	e, err := question(statusResyncRequest, q.Source, q.Cluster, "", hashList{hashes})
	if err != nil {
		return event.Event{}, fmt.Errorf("encode status resync of cluster %q: %w", q.Cluster, err)
	}
	return e, nil
}

func question(typ, from, cluster, source string, list any) (event.Event, error) {
	body, err := json.Marshal(list)
	if err != nil {
		return event.Event{}, err
	}
	if len(body) > MaxPayload {
		return event.Event{}, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrPayloadTooLarge, len(body), MaxPayload)
	}
	e := event.New(typ, from, time.Now(), 4)
	setBody(&e, body)
	e.Set(attrCluster, cluster)
	e.Set(attrSource, source)
	return e, nil
}

func (q SpecResync) check() error {
	if err := checkNames(named{event.Source, q.Agent, MaxID}, named{attrCluster, q.Cluster, MaxName}); err != nil {
		return err
	}
	if err := checkName(named{attrSource, q.Source, MaxName}); err != nil {
		return err
	}
	if len(q.Versions) > MaxListed {
		return malformed("it lists %d works, at most %d are allowed", len(q.Versions), MaxListed)
	}
	for _, v := range q.Versions {
		if err := checkNames(named{"resourceID", v.ID, MaxID}); err != nil {
			return err
		}
		if v.Generation < 0 {
			return malformed("resourceVersion %d of %.100q is negative", v.Generation, v.ID)
		}
	}
	return checkCapabilities(q.Capabilities)
}

func (q StatusResync) check() error {
	if err := checkNames(named{event.Source, q.Source, MaxName}); err != nil {
		return err
	}
	if err := checkName(named{attrCluster, q.Cluster, MaxName}); err != nil {
		return err
	}
	if len(q.Hashes) > MaxListed {
		return malformed("it lists %d works, at most %d are allowed", len(q.Hashes), MaxListed)
	}
	for _, h := range q.Hashes {
		if err := checkNames(named{"resourceID", h.ID, MaxID}); err != nil {
			return err
		}
		if len(h.Hash) > maxHash || !event.IsText(h.Hash) {
			return malformed("statusHash of %.100q is no hash", h.ID)
		}
	}
	return nil
}

func decodeSpecResync(e event.Event) (Message, error) {
	var list versionList
	if err := parseList(e, &list); err != nil {
		return nil, err
	}
	q := SpecResync{
		Agent:    e.Get(event.Source),
		Source:   e.Get(attrSource),
		Cluster:  e.Get(attrCluster),
		Versions: list.Versions,
	}
	if text := e.Get(attrCapabilities); text != "" {
		if len(text) > MaxCapabilities*(maxCapability+1) {
			return nil, malformed("%s has %d bytes", attrCapabilities, len(text))
		}
		q.Capabilities = strings.Split(text, ",")
	}
	return q, q.check()
}

func decodeStatusResync(e event.Event) (Message, error) {
	var list hashList
	if err := parseList(e, &list); err != nil {
		return nil, err
	}
	q := StatusResync{
		Source:  e.Get(event.Source),
		Cluster: e.Get(attrCluster),
		Hashes:  list.Hashes,
	}
	return q, q.check()
}

func parseList(e event.Event, list any) error {
	body, err := bodyOf(e)
	if err != nil {
		return err
	}
	if body == nil {
		return malformed("it has no list")
	}
	// A list of works of two fields has two commas each, one of the shortest
	// values there are has one. So this bounds what the parser allocates.
	if n := bytes.Count(body, []byte{','}); n > 2*MaxListed {
		return malformed("it lists more than %d works", MaxListed)
	}
	if err := kjson.Unmarshal(body, list); err != nil {
		return malformed("list of works: %.200s", err)
	}
	return nil
}
