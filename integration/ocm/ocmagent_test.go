package ocm_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	workv1 "open-cluster-management.io/api/work/v1"
)

// An agentWork is a work in the store of an ocmAgent.
type agentWork struct {
	name       string
	generation int64
	mode       string // What its ConfigMap holds.
	message    string // Of its Applied condition.
	status     workv1.ManifestWorkStatus
	hash       string
}

// An ocmAgent behaves as OCM's work agent does, on a cluster that does at once
// what it is told. Its store is in its memory.
type ocmAgent struct {
	t       *testing.T
	address string
	source  string
	word    string // Before a cluster's name in topics.
	cluster string

	link      *link
	sequencer sequencer

	mu        sync.Mutex
	works     map[string]*agentWork // By ID.
	specs     []message             // All that came on this connection.
	questions []map[string]string   // The hashes of status resync requests on this connection.
}

func newAgent(w *world) *ocmAgent {
	a := &ocmAgent{
		t: w.t, address: w.address, source: w.source, word: w.word, cluster: w.cluster,
		works: map[string]*agentWork{},
	}
	w.t.Cleanup(a.disconnect)
	return a
}

// connect subscribes and asks for what the agent missed.
func (a *ocmAgent) connect() {
	a.t.Helper()
	a.specs, a.questions = nil, nil
	a.link = dial(a.t, a.address, a.cluster+"-work-agent-client", []string{a.lane("sourceevents")}, a.handle)
	a.mu.Lock()
	list := []map[string]any{}
	for _, id := range slices.Sorted(maps.Keys(a.works)) {
		list = append(list, map[string]any{"resourceID": id, "resourceVersion": a.works[id].generation})
	}
	a.mu.Unlock()
	body, err := json.Marshal(map[string]any{"resourceVersions": list})
	if err != nil {
		a.t.Fatal(err)
	}
	a.publish(message{contentType: "application/json", payload: body, properties: map[string]string{
		"ce-specversion":    "1.0",
		"ce-id":             uuid.NewString(),
		"ce-type":           dataType + "spec.resync_request",
		"ce-source":         a.cluster + "-work-agent",
		"ce-time":           now(),
		"ce-clustername":    a.cluster,
		"ce-originalsource": "",
	}})
}

func (a *ocmAgent) disconnect() {
	if a.link != nil {
		a.link.close()
		a.link = nil
	}
}

func (a *ocmAgent) lane(name string) string {
	return "sources/" + a.source + "/" + a.word + "/" + a.cluster + "/" + name
}

func (a *ocmAgent) publish(m message) {
	m.topic = a.lane("agentevents")
	if err := a.link.publish(m); err != nil {
		a.t.Errorf("agent of %s: %v", a.cluster, err)
	}
}

func (a *ocmAgent) handle(m message) {
	var err error
	switch m.kind() {
	case "spec.create_request", "spec.update_request", "spec.delete_request", "spec.resync_response":
		err = a.take(m)
	case "status.resync_request":
		err = a.answer(m)
	default:
		err = errors.New("no such event is for agents")
	}
	if err == nil && m.topic != a.lane("sourceevents") {
		err = fmt.Errorf("it came on %s", m.topic)
	}
	if err != nil {
		a.t.Errorf("agent of %s: %s: %v\n%v\n%s", a.cluster, m.kind(), err, m.properties, m.payload)
	}
}

// A spec is what an agent reads in a spec event.
type spec struct {
	metadata   metav1.ObjectMeta
	generation int64
	deleted    bool
	mode       string
}

// readSpec checks all that OCM's agents rely on.
func (a *ocmAgent) readSpec(m message) (spec, error) {
	p, s := m.properties, spec{}
	switch {
	case p["ce-source"] != a.source || p["ce-originalsource"] != "" || p["ce-clustername"] != a.cluster:
		return s, fmt.Errorf("it is from %q (%q) for cluster %q", p["ce-source"], p["ce-originalsource"], p["ce-clustername"])
	case m.id() == "":
		return s, errors.New("it has no ce-resourceid")
	case p["ce-logtracing"] != "{}":
		return s, fmt.Errorf("ce-logtracing is %q", p["ce-logtracing"])
	}
	var err error
	if s.generation, err = strconv.ParseInt(p["ce-resourceversion"], 10, 32); err != nil || s.generation == 0 {
		return s, fmt.Errorf("ce-resourceversion %q is not above 0: %w", p["ce-resourceversion"], err)
	}
	const most = 64 << 10
	if len(p["ce-metadata"]) >= most {
		return s, fmt.Errorf("ce-metadata has %d bytes", len(p["ce-metadata"]))
	}
	if err := json.Unmarshal([]byte(p["ce-metadata"]), &s.metadata); err != nil {
		return s, fmt.Errorf("ce-metadata: %w", err)
	}
	if s.metadata.Name == "" || s.metadata.Namespace != a.cluster || string(s.metadata.UID) != m.id() || len(s.metadata.ManagedFields) > 0 {
		return s, errors.New("ce-metadata is not that of the work")
	}
	deletion, deleted := p["ce-deletiontimestamp"]
	if s.deleted = deleted; deleted {
		if _, err := time.Parse(time.RFC3339Nano, deletion); err != nil {
			return s, fmt.Errorf("ce-deletiontimestamp: %w", err)
		}
		if len(m.payload) > 0 {
			return s, errors.New("a deletion has no body")
		}
		return s, nil
	}
	var body struct {
		Manifests []unstructured.Unstructured `json:"manifests"`
	}
	if err := json.Unmarshal(m.payload, &body); err != nil {
		return s, fmt.Errorf("body: %w", err)
	}
	if len(body.Manifests) != 1 || body.Manifests[0].GetName() == "" || body.Manifests[0].GetKind() != "ConfigMap" {
		return s, errors.New("its manifest is not the ConfigMap of the work")
	}
	s.mode, _, err = unstructured.NestedString(body.Manifests[0].Object, "data", "mode")
	return s, err
}

// take does what a spec event says and reports it.
func (a *ocmAgent) take(m message) error {
	s, err := a.readSpec(m)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.specs = append(a.specs, m)
	held := a.works[m.id()]
	a.mu.Unlock()
	if s.deleted {
		a.confirm(m.id(), s)
		return nil
	}
	if held != nil && s.generation < held.generation {
		return nil
	}
	a.publish(a.apply(m.id(), agentWork{
		name: s.metadata.Name, generation: s.generation, mode: s.mode, message: "Apply manifest complete",
	}))
	return nil
}

// apply has the store say that a work is so, and returns the report on it.
func (a *ocmAgent) apply(id string, w agentWork) message {
	r := a.report(id, w.name, w.generation, w.message)
	var err error
	if w.status, err = readStatus(r.payload); err != nil {
		a.t.Errorf("agent of %s: %v", a.cluster, err)
	}
	w.hash = r.properties["ce-statushash"]
	a.mu.Lock()
	defer a.mu.Unlock()
	a.works[id] = &w
	return r
}

// report is the status event of a work, made of OCM's own.
func (a *ocmAgent) report(id, name string, generation int64, message string) message {
	return a.finish(golden(
		a.t, "status-update.json",
		"d413c17e-d14b-567d-87b3-5cc5ff557269", id, "web-tier", name, "edge-007", a.cluster, "hub-alpha", a.source,
		"Apply manifest complete", message,
		`"observedGeneration":3`, `"observedGeneration":`+strconv.FormatInt(generation, 10),
		// OCM's agents send the metadata of their own copy of the work.
		`"generation":3`, `"finalizers":["cluster.open-cluster-management.io/manifest-work-cleanup"],"generation":`+strconv.FormatInt(generation, 10),
	), generation)
}

func (a *ocmAgent) finish(m message, generation int64) message {
	m.properties["ce-resourceversion"] = strconv.FormatInt(generation, 10)
	m.properties["ce-sequenceid"] = a.sequencer.next()
	status, err := readStatus(m.payload)
	if err == nil {
		m.properties["ce-statushash"], err = statusHash(status)
	}
	if err != nil {
		a.t.Errorf("agent of %s: %v", a.cluster, err)
	}
	return m
}

// confirm says that a work is gone, and forgets it.
func (a *ocmAgent) confirm(id string, s spec) {
	a.publish(a.deleted(id, s.metadata.Name, s.generation))
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.works, id)
}

// deleted is the confirmation that a work is gone, made of OCM's own.
func (a *ocmAgent) deleted(id, name string, generation int64) message {
	return a.finish(golden(
		a.t, "status-deleted.json",
		"d413c17e-d14b-567d-87b3-5cc5ff557269", id, "web-tier", name, "edge-007", a.cluster, "hub-alpha", a.source,
		`"generation":4`, `"generation":`+strconv.FormatInt(generation, 10),
	), generation)
}

// answer sends the statuses that the source does not have.
func (a *ocmAgent) answer(m message) error {
	var list struct {
		Hashes []struct {
			ID   string `json:"resourceID"`
			Hash string `json:"statusHash"`
		} `json:"statusHashes"`
	}
	if err := json.Unmarshal(m.payload, &list); err != nil {
		return err
	}
	p := m.properties
	if p["ce-source"] != a.source || p["ce-clustername"] != a.cluster || p["ce-originalsource"] != "" || m.id() != "" {
		return errors.New("it is not the question of the source to this cluster")
	}
	if len(list.Hashes) == 0 {
		return errors.New("an empty list asks for the works of all sources")
	}
	hashes := map[string]string{}
	for _, h := range list.Hashes {
		hashes[h.ID] = h.Hash
	}
	a.mu.Lock()
	a.questions = append(a.questions, hashes)
	differing := map[string]agentWork{}
	for id, w := range a.works {
		if hash, listed := hashes[id]; listed && hash != w.hash {
			differing[id] = *w
		}
	}
	a.mu.Unlock()
	for id, w := range differing {
		r := a.report(id, w.name, w.generation, w.message)
		r.properties["ce-type"] = dataType + "status.resync_response"
		a.publish(r)
	}
	return nil
}

// work is the agent's work of this name.
func (a *ocmAgent) work(name string) (id string, w agentWork, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, w := range a.works {
		if w.name == name {
			return id, *w, true
		}
	}
	return "", agentWork{}, false
}

// received are the spec events of this connection, by ID.
func (a *ocmAgent) received() map[string][]message {
	a.mu.Lock()
	defer a.mu.Unlock()
	byID := map[string][]message{}
	for _, m := range a.specs {
		byID[m.id()] = append(byID[m.id()], m)
	}
	return byID
}

// awaitQuestion waits until the source asks with this hash for the work.
func (a *ocmAgent) awaitQuestion(id, hash string) {
	a.t.Helper()
	until(a.t, "the source asks for statuses by their hashes", func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, hashes := range a.questions {
			if hashes[id] == hash {
				return nil
			}
		}
		return fmt.Errorf("want %s for %s, got %v", hash, id, a.questions)
	})
}
