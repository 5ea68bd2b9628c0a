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
	workv1 "open-cluster-management.io/api/work/v1"
)

// resourceID is the ID that OCM's source client gives a work.
func resourceID(source, cluster, name string) string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(source+"-manifestworks.work.open-cluster-management.io-"+cluster+"-"+name)).String()
}

// A sourceWork is a work in the cache of an ocmSource.
type sourceWork struct {
	name      string
	version   int64  // 0 means unversioned.
	mode      string // What the work's ConfigMap holds.
	deletedAt time.Time

	reported bool // So it has the finalizer.
	sequence int64
	hash     string
	status   workv1.ManifestWorkStatus
}

// An ocmSource behaves as OCM's source client does: its works live in its
// memory.
type ocmSource struct {
	t         *testing.T
	address   string
	name      string // Source ID.
	word      string // Before a cluster's name in topics: clusters, or consumers.
	cluster   string
	namespace string // Of what the works create.

	link *link

	mu        sync.Mutex
	works     map[string]*sourceWork // By ID.
	reports   []report               // All that came, taken or not.
	questions []map[string]int64     // What spec resync requests listed.
	confirmed map[string]int         // How often an ID was said to be deleted.
}

func newSource(w *world) *ocmSource {
	s := &ocmSource{
		t: w.t, address: w.address, name: w.source, word: w.word, cluster: w.cluster, namespace: w.namespace,
		works: map[string]*sourceWork{}, confirmed: map[string]int{},
	}
	s.connect()
	w.t.Cleanup(s.disconnect)
	return s
}

// connect subscribes and asks the agents for what it missed.
func (s *ocmSource) connect() {
	s.t.Helper()
	s.link = dial(s.t, s.address, s.name, []string{"sources/" + s.name + "/" + s.word + "/+/agentevents"}, s.handle)
	if s.word == "clusters" {
		s.askForStatus("sources/"+s.name+"/sourcebroadcast", "", s.hashes(noStatus))
		return
	}
	// Maestro asks each consumer.
	const nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	s.askForStatus(s.topic(), s.cluster, s.hashes(nothing))
}

func (s *ocmSource) disconnect() {
	if s.link != nil {
		s.link.close()
		s.link = nil
	}
}

func (s *ocmSource) topic() string {
	return "sources/" + s.name + "/" + s.word + "/" + s.cluster + "/sourceevents"
}

func (s *ocmSource) id(name string) string { return resourceID(s.name, s.cluster, name) }

func (s *ocmSource) publish(m message) {
	if err := s.link.publish(m); err != nil {
		s.t.Errorf("source %s: %v", s.name, err)
	}
}

// hashes are the statuses it holds; none is that of a work without one.
func (s *ocmSource) hashes(none string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	hashes := map[string]string{}
	for id, w := range s.works {
		hashes[id] = none
		if w.reported {
			hashes[id] = w.hash
		}
	}
	return hashes
}

func (s *ocmSource) askForStatus(topic, cluster string, hashes map[string]string) {
	list := []map[string]string{}
	for _, id := range slices.Sorted(maps.Keys(hashes)) {
		list = append(list, map[string]string{"resourceID": id, "statusHash": hashes[id]})
	}
	body, err := json.Marshal(map[string]any{"statusHashes": list})
	if err != nil {
		s.t.Errorf("source %s: %v", s.name, err)
	}
	s.publish(message{topic: topic, contentType: "application/json", payload: body, properties: map[string]string{
		"ce-specversion":    "1.0",
		"ce-id":             uuid.NewString(),
		"ce-type":           dataType + "status.resync_request",
		"ce-source":         s.name,
		"ce-time":           now(),
		"ce-clustername":    cluster,
		"ce-originalsource": "",
	}})
}

// spec is the event of a work, made of OCM's own.
func (s *ocmSource) spec(kind string, w sourceWork) message {
	file, version := "spec-create.json", "3"
	if !w.deletedAt.IsZero() {
		file, version = "spec-delete.json", "4"
	}
	generation := ""
	if w.version != 0 {
		generation = `,"generation":` + strconv.FormatInt(w.version, 10)
	}
	m := golden(
		s.t, file,
		"d413c17e-d14b-567d-87b3-5cc5ff557269", s.id(w.name),
		`"namespace":"web"`, `"namespace":"`+s.namespace+`"`,
		"web-tier", w.name, `"settings"`, `"`+w.name+`"`, `"blue"`, `"`+w.mode+`"`,
		"edge-007", s.cluster, "hub-alpha", s.name,
		`,"generation":`+version, generation,
		"2026-02-03T04:09:30Z", timestamp(w.deletedAt),
	)
	m.topic = s.topic()
	m.properties["ce-type"] = dataType + kind
	m.properties["ce-resourceversion"] = strconv.FormatInt(w.version, 10)
	return m
}

// create publishes a work and then keeps it. The event is returned, so that it
// can be published again.
func (s *ocmSource) create(name string, version int64, mode string) message {
	s.t.Helper()
	w := sourceWork{name: name, version: version, mode: mode}
	m := s.spec("spec.create_request", w)
	s.publish(m)
	s.keep(w)
	return m
}

func (s *ocmSource) keep(w sourceWork) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.works[s.id(w.name)] = &w
}

func (s *ocmSource) update(name string, version int64, mode string) {
	s.t.Helper()
	w := s.change(name, func(w *sourceWork) { w.version, w.mode = version, mode })
	s.publish(s.spec("spec.update_request", w))
}

// change changes a work in the cache only.
func (s *ocmSource) change(name string, change func(*sourceWork)) sourceWork {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := s.works[s.id(name)]
	if !ok {
		s.t.Fatalf("source %s does not have work %s", s.name, name)
	}
	change(w)
	return *w
}

// delete publishes the deletion. A work that was never reported on is forgotten
// at once.
func (s *ocmSource) delete(name string, version int64, at time.Time) {
	s.t.Helper()
	w := s.change(name, func(w *sourceWork) { w.version, w.deletedAt = version, at })
	s.publish(s.spec("spec.delete_request", w))
	if !w.reported {
		s.forget(name)
	}
}

// forget drops a work without a word, as a source does that is restarted
// without its controllers.
func (s *ocmSource) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.works, s.id(name))
}

func (s *ocmSource) handle(m message) {
	if want := "sources/" + s.name + "/" + s.word + "/" + s.cluster + "/agentevents"; m.topic != want {
		s.t.Errorf("source %s: event on %s, want %s", s.name, m.topic, want)
	}
	var err error
	switch m.kind() {
	case "status.update_request", "status.resync_response":
		err = s.takeReport(m)
	case "spec.resync_request":
		err = s.answer(m)
	default:
		err = errors.New("no such event is for sources")
	}
	if err != nil {
		s.t.Errorf("source %s: %s: %v\n%v\n%s", s.name, m.kind(), err, m.properties, m.payload)
	}
}

// takeReport decides as OCM's sources do, in their order.
func (s *ocmSource) takeReport(m message) error {
	r, err := readReport(m, s.name, s.cluster)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports = append(s.reports, r)
	w, ok := s.works[r.id]
	switch {
	case r.deleted():
		s.confirmed[r.id]++
		delete(s.works, r.id) // Whatever its version and sequence.
	case !ok, w.version != 0 && r.version > w.version, !newerSequence(r.sequence, w.sequence):
	default:
		w.reported, w.sequence, w.hash, w.status = true, r.sequence, r.hash, r.status
	}
	return nil
}

// answer sends an agent what it lacks.
func (s *ocmSource) answer(m message) error {
	listed, err := readVersions(m.payload)
	if err != nil {
		return err
	}
	p := m.properties
	if p["ce-clustername"] != s.cluster || p["ce-originalsource"] != "" || p["ce-source"] != s.cluster+"-work-agent" {
		return errors.New("it is not the question of the agent to all sources")
	}
	for _, name := range []string{"ce-resourceid", "ce-resourceversion", "ce-sequenceid", "ce-deletiontimestamp"} {
		if value, ok := p[name]; ok {
			return fmt.Errorf("it has %s=%q", name, value)
		}
	}

	s.mu.Lock()
	s.questions = append(s.questions, listed)
	held := map[string]sourceWork{}
	for id, w := range s.works {
		held[id] = *w
	}
	s.mu.Unlock()
	if len(held) == 0 {
		return nil
	}
	for id, version := range listed {
		if _, ok := held[id]; !ok {
			s.publish(s.deletionOfUnknown(id, version))
		}
	}
	for id, w := range held {
		if !w.deletedAt.IsZero() || w.version == 0 || w.version > listed[id] {
			s.publish(s.spec("spec.resync_response", w))
		}
	}
	return nil
}

// readVersions reads the body of a spec resync request.
func readVersions(body []byte) (map[string]int64, error) {
	var list struct {
		Versions []struct {
			ID      string `json:"resourceID"`
			Version *int64 `json:"resourceVersion"`
		} `json:"resourceVersions"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, err
	}
	if list.Versions == nil {
		return nil, errors.New("an empty list is written as []")
	}
	versions := map[string]int64{}
	for _, v := range list.Versions {
		if v.ID == "" || v.Version == nil {
			return nil, errors.New("a work is listed without ID or version")
		}
		versions[v.ID] = *v.Version
	}
	return versions, nil
}

// deletionOfUnknown is what OCM's sources send for a work that an agent lists
// and they do not have: without the name.
func (s *ocmSource) deletionOfUnknown(id string, version int64) message {
	return message{topic: s.topic(), properties: map[string]string{
		"ce-specversion":       "1.0",
		"ce-id":                uuid.NewString(),
		"ce-type":              dataType + "spec.resync_response",
		"ce-source":            s.name,
		"ce-time":              now(),
		"ce-clustername":       s.cluster,
		"ce-originalsource":    "",
		"ce-resourceid":        id,
		"ce-resourceversion":   strconv.FormatInt(version, 10),
		"ce-deletiontimestamp": now(),
	}}
}

// asked returns how many spec resync requests came, and what the last one
// listed.
func (s *ocmSource) asked() (int, map[string]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.questions) == 0 {
		return 0, nil
	}
	return len(s.questions), s.questions[len(s.questions)-1]
}

// awaitAsked waits for a spec resync request beyond the first n.
func (s *ocmSource) awaitAsked(n int) map[string]int64 {
	s.t.Helper()
	var last map[string]int64
	until(s.t, "the agent asks what it lacks", func() error {
		var count int
		if count, last = s.asked(); count <= n {
			return fmt.Errorf("it asked %d times", count)
		}
		return nil
	})
	return last
}

// awaitApplied waits until the source knows that this version of the work is
// applied, and returns the work.
func (s *ocmSource) awaitApplied(name string, version int64) sourceWork {
	s.t.Helper()
	var found sourceWork
	until(s.t, fmt.Sprintf("work %s is reported as applied at version %d", name, version), func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		w, ok := s.works[s.id(name)]
		if !ok {
			return errors.New("the source does not have it")
		}
		found = *w
		for _, c := range w.status.Conditions {
			if c.Type == workv1.WorkApplied && c.Status == metav1.ConditionTrue && c.ObservedGeneration == version {
				return nil
			}
		}
		return fmt.Errorf("conditions are %v", w.status.Conditions)
	})
	last := s.reportsOn(name)
	if r := last[len(last)-1]; r.version != version || r.metadata.Name != name {
		s.t.Errorf("report on work %s says version %d and name %q, want %d", name, r.version, r.metadata.Name, version)
	}
	if m := found.status.ResourceStatus.Manifests; len(m) != 1 || m[0].ResourceMeta.Name != name || m[0].ResourceMeta.Namespace != s.namespace {
		s.t.Errorf("work %s: the report is about %v", name, m)
	}
	return found
}

// awaitDeleted waits for the n-th confirmation that the work is gone.
func (s *ocmSource) awaitDeleted(id string, n int) {
	s.t.Helper()
	until(s.t, fmt.Sprintf("deletion %d of %s is confirmed", n, id), func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.confirmed[id] < n {
			return fmt.Errorf("%d confirmations", s.confirmed[id])
		}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range slices.Backward(s.reports) {
		if r.id == id && r.deleted() {
			if c := r.status.Conditions; len(c) != 1 || c[0].Reason != "ManifestsDeleted" || len(r.status.ResourceStatus.Manifests) != 0 {
				s.t.Errorf("confirmation for %s says %v", id, r.status)
			}
			return
		}
	}
}

// reportsOn returns the reports that came about a work, and fails the test if
// their sequences do not grow.
func (s *ocmSource) reportsOn(name string) []report {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []report
	for _, r := range s.reports {
		if r.id != s.id(name) {
			continue
		}
		if n := len(all); n > 0 && !newerSequence(r.sequence, all[n-1].sequence) {
			s.t.Errorf("reports on work %s: sequence %d comes after %d", name, r.sequence, all[n-1].sequence)
		}
		all = append(all, r)
	}
	return all
}
