package kube_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	corev1 "k8s.io/api/core/v1"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fleetcast-io/fleetcast/brokers/mem"
	"github.com/fleetcast-io/fleetcast/codec"
	"github.com/fleetcast-io/fleetcast/pkg/api"
	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
	"github.com/fleetcast-io/fleetcast/sources"
	"github.com/fleetcast-io/fleetcast/sources/kube"
)

func inCluster(h *hub) client.InNamespace { return client.InNamespace(h.cluster) }

// gauge is the value of the source's one metric.
func gauge(t *testing.T, s *kube.Source) float64 {
	t.Helper()
	values := make(chan prometheus.Metric, 1)
	s.Collectors()[0].Collect(values)
	var m dto.Metric
	if err := (<-values).Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetGauge().GetValue()
}

// TestTermsRise over leads and restarts, and above what agents know.
func TestTermsRise(t *testing.T) {
	namespace := apitest.Shared(t).Namespace(t)
	o := kube.Options{Namespace: namespace}
	begin := func(h *hub, above int64) (string, int64) {
		t.Helper()
		epoch, term, err := h.source.Begin(t.Context(), above)
		if err != nil {
			t.Fatal(err)
		}
		return epoch, term
	}
	h := startHubWith(t, namespace, mem.NewBroker(mem.Options{}), o)
	epoch, first := begin(h, 0)
	if epoch == "" || first <= 0 {
		t.Fatalf("epoch %q, term %d", epoch, first)
	}
	if _, second := begin(h, first+40); second <= first+40 {
		t.Errorf("term %d, want one above %d", second, first+40)
	}
	h = h.restart(o)
	again, third := begin(h, 0)
	if again != epoch || third <= first+41 {
		t.Errorf("after a restart epoch %q and term %d, want %q and more than %d", again, third, epoch, first+41)
	}
	if _, _, err := h.source.Begin(t.Context(), codec.MaxTerm); err == nil {
		t.Error("a lead began above the highest term")
	}

	key := client.ObjectKey{Namespace: namespace, Name: "fleetcast-hub-" + sourceID}
	kept := &corev1.ConfigMap{}
	if err := h.Get(t.Context(), key, kept); err != nil {
		t.Fatal(err)
	}
	kept.Data["note"] = "of an operator"
	if err := h.Update(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	if _, fourth := begin(h, 0); fourth <= third {
		t.Errorf("term %d, want more than %d", fourth, third)
	}
	if err := h.Get(t.Context(), key, kept); err != nil || kept.Data["note"] == "" {
		t.Fatalf("the lead took what others keep there: %v, %v", kept.Data, err)
	}
	kept.Data["term"] = "soon"
	if err := h.Update(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.source.Begin(t.Context(), 0); err == nil || !strings.Contains(err.Error(), key.String()) {
		t.Errorf("of a ConfigMap that holds no term: %v, want an error that names it", err)
	}
	if err := h.Delete(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	if another, term := begin(h, third); another == epoch || term <= third {
		t.Errorf("after a loss epoch %q and term %d, want another than %q and more than %d", another, term, epoch, third)
	}
}

// TestLeadsDoNotShareATerm: of replicas that begin at once each has its own.
func TestLeadsDoNotShareATerm(t *testing.T) {
	namespace := apitest.Shared(t).Namespace(t)
	h := startHubWith(t, namespace, mem.NewBroker(mem.Options{}), kube.Options{Namespace: namespace})
	const leads = 4
	terms, failed := make(chan int64, leads), make(chan error, leads)
	for range leads {
		go func() {
			_, term, err := h.source.Begin(t.Context(), 0)
			terms <- term
			failed <- err
		}()
	}
	seen := map[int64]bool{}
	for range leads {
		term := <-terms
		if err := <-failed; err != nil {
			continue // The conflicts were too many: it is called again.
		}
		if seen[term] {
			t.Errorf("two leads have term %d", term)
		}
		seen[term] = true
	}
	if len(seen) == 0 {
		t.Error("no lead began")
	}
}

// TestHeldHashesNothingTwice: what a status changes costs no digest, and what
// nothing changed costs nothing.
func TestHeldHashesNothingTwice(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	b := a.takeGeneration(h.create("web"))
	held := func() sources.Held { t.Helper(); return h.held()[b.ID] }
	check := func(reason string, w *workv1.ManifestWork) {
		t.Helper()
		now, err := codec.NewBundle(sourceID, w)
		if err != nil {
			t.Fatal(err)
		}
		want, err := now.Digest()
		if err != nil {
			t.Fatal(err)
		}
		h.eventually("the cache has it", func() error {
			if diff := cmp.Diff(want, held().Digest); diff != "" {
				return fmt.Errorf("%s: digest of the bundle differs from what is held:\n%s", reason, diff)
			}
			return nil
		})
	}
	check("a new work", h.mustGet("web"))
	digests, _ := h.source.Computed()
	before := held().StatusHash
	if got := h.report(a.reportOn(b, applied(1))); got != sources.Accepted {
		t.Fatalf("verdict %s", got)
	}
	h.eventually("the status counts", func() error {
		if held().StatusHash == before {
			return errors.New("the hash is the same")
		}
		return nil
	})
	check("a status", h.mustGet("web"))
	// The dispatcher compares on its own: once more, to settle what it asks. The
	// event of the finalizer may come after the first digest was taken.
	_, hashes := h.source.Computed()
	for range 20 {
		held()
	}
	if gotDigests, gotHashes := h.source.Computed(); gotDigests > digests+1 || gotHashes > hashes+1 {
		t.Errorf("%d digests and %d hashes were computed for nothing", gotDigests-digests, gotHashes-hashes)
	}
	check("a label", h.change("web", func(w *workv1.ManifestWork) { w.Labels = map[string]string{"tier": "front"} }))
	check("a spec", h.change("web", func(w *workv1.ManifestWork) { w.Spec.Workload.Manifests = manifests("b") }))
}

// TestDroppedReportsAreNoted on the work that they are of, and on no other.
func TestDroppedReportsAreNoted(t *testing.T) {
	h := startHub(t, mem.Options{})
	a := h.agent()
	w := h.create("web")
	a.takeGeneration(w)
	for _, k := range []sources.Key{
		{Cluster: h.cluster, ID: string(w.UID)},
		{Cluster: "another", ID: string(w.UID)},
		{Cluster: h.cluster, ID: "unknown"},
	} {
		if err := h.source.Dropped(t.Context(), k, "malformed", fmt.Errorf("statushash of cluster %s: not a hash", k.Cluster)); err != nil {
			t.Errorf("%v: %v", k, err)
		}
	}
	h.eventOn(w, api.ReasonReportDropped)
	var events corev1.EventList
	if err := h.List(t.Context(), &events, inCluster(h)); err != nil {
		t.Fatal(err)
	}
	for _, e := range events.Items {
		if strings.Contains(e.Message, "another") {
			t.Errorf("another cluster's report is noted: %s", e.Message)
		}
	}
}
