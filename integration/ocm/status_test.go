package ocm_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	workv1 "open-cluster-management.io/api/work/v1"
)

// noStatus is the hash of the status of a work without reports.
const noStatus = "3a4ba43801251ccdf889a3154674d23a35ab996aacfc00de92e61dbb2f5cf189"

// statusHash is the hash that OCM's agents send: of the status of the
// ManifestWork as a generic map.
func statusHash(status workv1.ManifestWorkStatus) (string, error) {
	work, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&workv1.ManifestWork{Status: status})
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(work["status"])
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// readStatus reads the body of a status event.
func readStatus(body []byte) (workv1.ManifestWorkStatus, error) {
	var flat struct {
		Conditions     []metav1.Condition         `json:"conditions"`
		ResourceStatus []workv1.ManifestCondition `json:"resourceStatus"`
	}
	if err := json.Unmarshal(body, &flat); err != nil {
		return workv1.ManifestWorkStatus{}, err
	}
	return workv1.ManifestWorkStatus{
		Conditions:     flat.Conditions,
		ResourceStatus: workv1.ManifestResourceStatus{Manifests: flat.ResourceStatus},
	}, nil
}

// A report is a status event that a source received.
type report struct {
	id       string
	version  int64
	sequence int64
	hash     string
	metadata metav1.ObjectMeta
	status   workv1.ManifestWorkStatus
}

func (r report) deleted() bool { return meta.IsStatusConditionTrue(r.status.Conditions, "Deleted") }

// readReport checks and reads a status event that came from the agent of
// cluster about a work of source.
func readReport(m message, source, cluster string) (report, error) {
	p := m.properties
	r := report{id: m.id(), hash: p["ce-statushash"]}
	var err error
	switch {
	case p["ce-originalsource"] != source:
		return r, fmt.Errorf("ce-originalsource is %q", p["ce-originalsource"])
	case p["ce-clustername"] != cluster:
		return r, fmt.Errorf("ce-clustername is %q", p["ce-clustername"])
	case p["ce-source"] != cluster+"-work-agent":
		return r, fmt.Errorf("ce-source is %q, not the agent's ID", p["ce-source"])
	case r.id == "":
		return r, errors.New("it has no ce-resourceid")
	}
	if r.version, err = strconv.ParseInt(p["ce-resourceversion"], 10, 32); err != nil {
		return r, fmt.Errorf("ce-resourceversion: %w", err)
	}
	if r.sequence, err = strconv.ParseInt(p["ce-sequenceid"], 10, 64); err != nil {
		return r, fmt.Errorf("ce-sequenceid: %w", err)
	}
	if node := r.sequence >> 12 & (1<<10 - 1); node != 1 {
		return r, fmt.Errorf("ce-sequenceid %d is of node %d", r.sequence, node)
	}
	if err := json.Unmarshal([]byte(p["ce-metadata"]), &r.metadata); err != nil {
		return r, fmt.Errorf("ce-metadata: %w", err)
	}
	if string(r.metadata.UID) != r.id || r.metadata.Namespace != cluster || r.metadata.Name == "" {
		return r, fmt.Errorf("ce-metadata speaks of work %q in %q with UID %q", r.metadata.Name, r.metadata.Namespace, r.metadata.UID)
	}
	var trace map[string]string
	if err := json.Unmarshal([]byte(p["ce-logtracing"]), &trace); err != nil {
		return r, fmt.Errorf("ce-logtracing: %w", err)
	}
	if r.status, err = readStatus(m.payload); err != nil {
		return r, fmt.Errorf("body: %w", err)
	}
	hash, err := statusHash(r.status)
	if err == nil && r.hash != hash {
		err = fmt.Errorf("ce-statushash is %s, that of the status is %s", r.hash, hash)
	}
	return r, err
}

// newerSequence compares as OCM's sources do: time, then step.
func newerSequence(a, than int64) bool {
	const step = 1<<12 - 1
	if a>>22 != than>>22 {
		return a>>22 > than>>22
	}
	return a&step > than&step
}

// A sequencer numbers the reports of an agent as OCM's do.
type sequencer struct {
	mu   sync.Mutex
	last int64
}

func (s *sequencer) next() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	const epoch = 1288834974657
	next := (time.Now().UnixMilli()-epoch)<<22 | 1<<12
	if next>>12 <= s.last>>12 {
		next = s.last + 1
	}
	s.last = next
	return strconv.FormatInt(next, 10)
}

// TestVectors holds the peers against values that OCM's functions gave, since
// the other tests hold this project against the peers.
func TestVectors(t *testing.T) {
	m := golden(t, "status-update.json")
	status, err := readStatus(m.payload)
	if err != nil {
		t.Fatal(err)
	}
	for want, status := range map[string]workv1.ManifestWorkStatus{
		m.properties["ce-statushash"]: status,
		noStatus:                      {},
	} {
		if got, err := statusHash(status); err != nil || got != want {
			t.Errorf("status hash is %s, %v, want %s", got, err, want)
		}
	}
	if got := resourceID("hub-alpha", "edge-007", "web-tier"); got != m.id() {
		t.Errorf("resource ID is %s, want %s", got, m.id())
	}
	var s sequencer
	one, two := s.next(), s.next()
	a, _ := strconv.ParseInt(one, 10, 64)
	b, _ := strconv.ParseInt(two, 10, 64)
	if !newerSequence(b, a) || newerSequence(a, b) || newerSequence(a, a) {
		t.Errorf("sequence %s does not grow to %s", one, two)
	}
	if strings.Contains(string(m.payload), "\n") {
		t.Error("the body is not as it is on the wire")
	}
}
