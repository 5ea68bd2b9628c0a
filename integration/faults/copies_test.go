package faults

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/drivers"
	"github.com/fleetcast-io/fleetcast/codec"
)

// copies are the events of the works as the hub has them now.
func (w *world) copies(all []key) []codec.Bundle {
	w.t.Helper()
	bundles := make([]codec.Bundle, 0, len(all))
	for _, k := range all {
		u, err := w.hub.client.Resource(workResource).Namespace(k.cluster).Get(w.t.Context(), k.name, metav1.GetOptions{})
		w.must(err)
		var work workv1.ManifestWork
		w.must(runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &work))
		b, err := codec.NewBundle(w.hub.source, &work)
		w.must(err)
		bundles = append(bundles, b)
	}
	return bundles
}

// sendAgain publishes copies as the hub would have, through another client.
func (w *world) sendAgain(bundles []codec.Bundle) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	l := newLink(w.t, w.broker.servers()...)
	transport, err := drivers.All.Open(ctx, w.broker.url(l), brokers.Config{Role: brokers.RoleSource, Name: w.hub.source, ClientID: "somebody-else"})
	w.must(err)
	defer func() { w.must(transport.Close(ctx)) }()
	for _, b := range bundles {
		e, err := b.Encode(codec.Create)
		w.must(err)
		to := brokers.Topic{Lane: brokers.ToCluster, Source: b.Source, Cluster: b.Cluster, Key: b.ID}
		await(w.t, "the broker takes the copy", func() error { return transport.Publish(ctx, to, e) })
	}
}

// count is how many events the agent has received with that result since its
// start; "" is any.
func (c *cluster) count(result string) (float64, error) {
	all, err := scrape(c.metrics)
	if err != nil {
		return 0, err
	}
	if result == "" {
		return sum(all, "fleetcast_agent_events_total"), nil
	}
	return sum(all, "fleetcast_agent_events_total", "result="+result), nil
}

func (c *cluster) counts(result string, least int) error {
	return c.countsAny(least, result)
}

// passedOver says whether the agent counts so many events as late copies: stale
// ones, and those of works that it deleted, whose source is told so again.
func (c *cluster) passedOver(least int) error {
	return c.countsAny(least, "stale", "confirmed_again")
}

func (c *cluster) countsAny(least int, results ...string) error {
	sum := 0.0
	for _, result := range results {
		n, err := c.count(result)
		if err != nil {
			return err
		}
		sum += n
	}
	if sum < float64(least) {
		return fmt.Errorf("the agent counts %.0f events as %q, want %d", sum, results, least)
	}
	return nil
}

// update changes a work only if it is there. It may be on its way out.
func (h *hub) update(ctx context.Context, k key, version int64) error {
	patch, err := json.Marshal(map[string]any{"spec": spec(k, version, 100)})
	if err != nil {
		return err
	}
	_, err = h.client.Resource(workResource).Namespace(k.cluster).Patch(ctx, k.name, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
