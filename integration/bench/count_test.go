//go:build bench

package bench

import (
	"maps"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// A counter reads what the API server counted.
type counter struct{ client rest.Interface }

func newCounter(t *testing.T, cfg *rest.Config) counter {
	t.Helper()
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return counter{client.CoreV1().RESTClient()}
}

// read returns the number of requests since the server started, by verb and
// resource, and the CPU seconds that it has used.
func (c counter) read(t *testing.T) (requests map[string]int, cpu float64) {
	t.Helper()
	body, err := c.client.Get().AbsPath("/metrics").Stream(t.Context())
	if err != nil {
		t.Fatalf("read the API server's metrics: %v", err)
	}
	defer body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(body)
	if err != nil {
		t.Fatalf("read the API server's metrics: %v", err)
	}
	requests = map[string]int{}
	for _, m := range families["apiserver_request_total"].GetMetric() {
		requests[kindOf(m)] += int(m.GetCounter().GetValue())
	}
	for _, m := range families["process_cpu_seconds_total"].GetMetric() {
		cpu = m.GetCounter().GetValue()
	}
	return requests, cpu
}

func kindOf(m *dto.Metric) string {
	label := map[string]string{}
	for _, l := range m.GetLabel() {
		label[l.GetName()] = l.GetValue()
	}
	what := label["resource"]
	if label["subresource"] != "" {
		what += "/" + label["subresource"]
	}
	return label["verb"] + " " + what
}

// writes are the kinds of requests that change what works are made of here.
func writes(requests map[string]int) map[string]int {
	out := maps.Clone(requests)
	maps.DeleteFunc(out, func(kind string, _ int) bool {
		verb, what, _ := strings.Cut(kind, " ")
		return !slices.Contains([]string{"POST", "PUT", "PATCH", "APPLY", "DELETE"}, verb) ||
			!strings.Contains(what, "configmaps") && !strings.Contains(what, "appliedmanifestworks")
	})
	return out
}
