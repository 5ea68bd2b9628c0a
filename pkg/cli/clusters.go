package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/printers"
	clusterv1 "open-cluster-management.io/api/cluster/v1"
)

// A fleetCluster sums up one cluster: one that the hub manages, or a namespace
// that holds works, or both.
type fleetCluster struct {
	Name    string
	Managed bool
	Created metav1.Time
	// Alive is the status of the condition that the cluster's agent renews its
	// lease; empty without one.
	Alive string
	// Presence is what the hub recorded of the cluster's agent.
	Presence *presence
	// Works counts the works, Applied and Available those that are so in their
	// latest generation.
	Works, Applied, Available int
	// Obstacle is what is in the way of the first work that is not done.
	Obstacle string
}

var clusterColumns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string"},
	{Name: "Online", Type: "string"},
	{Name: "Works", Type: "integer"},
	{Name: "Applied", Type: "string"},
	{Name: "Available", Type: "string"},
	{Name: "Age", Type: "string"},
	{Name: "In Sync", Type: "string", Priority: 1},
	{Name: "Unclaimed", Type: "string", Priority: 1},
	{Name: "Managed", Type: "string", Priority: 1},
	{Name: "Alive", Type: "string", Priority: 1},
	{Name: "Message", Type: "string", Priority: 1},
}

func newGetClusters(h *hub) *cobra.Command {
	out := newOutput("")
	cmd := &cobra.Command{
		Use:     "clusters [NAME...]",
		Aliases: []string{"cluster", "managedclusters", "managedcluster"},
		Short:   "List the clusters and how their works are doing",
		Long: `List the clusters and how their works are doing.

A cluster is listed if the hub manages it, if it has works or if the hub has
heard of its agent. ONLINE is yes, offline with since when, or unknown: of agents
that speak Open Cluster Management's protocol only, the hub cannot tell. APPLIED
and AVAILABLE count the works of which the cluster says so for the latest
generation.

With -o wide, IN SYNC says whether the cluster was found to hold what the hub
holds, which is unknown while it is offline, and UNCLAIMED counts the works that
it holds and the hub does not know.`,
		Example: `  fleetcast get clusters
  fleetcast get clusters paris lyon -o wide`,
		Args:              arguments(0, -1, "cluster names"),
		ValidArgsFunction: h.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			return h.getClusters(cmd, out, args)
		},
	}
	out.addFlags(cmd, true)
	return cmd
}

func (h *hub) getClusters(cmd *cobra.Command, out *output, names []string) error {
	var p printers.ResourcePrinter
	var err error
	if !out.table() {
		if p, err = out.printer(); err != nil {
			return err
		}
	}
	if err := h.connect(); err != nil {
		return err
	}
	managed, _, err := h.list(cmd.Context(), clusterResource, "", metav1.ListOptions{})
	// A hub may do without ManagedClusters.
	if err != nil && !apierrors.IsNotFound(err) {
		return h.explain(err, "list clusters")
	}
	works, _, err := h.list(cmd.Context(), workResource, "", metav1.ListOptions{})
	if err != nil {
		return h.explain(err, "list the works of all clusters")
	}
	now := time.Now()
	clusters, err := summarize(managed, works, h.warnedAgents(cmd.Context(), ""), now)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		if clusters, err = pick(clusters, names); err != nil {
			return err
		}
	}
	if !out.table() {
		objects := make([]*unstructured.Unstructured, 0, len(clusters))
		for _, c := range clusters {
			objects = append(objects, c.object(out.format() == "name"))
		}
		if len(names) == 1 {
			return p.PrintObj(objects[0], h.Out)
		}
		return p.PrintObj(listOf(objects), h.Out)
	}
	if len(clusters) == 0 {
		fmt.Fprintln(h.ErrOut, "No clusters found.")
		return nil
	}
	table := &metav1.Table{ColumnDefinitions: clusterColumns}
	for _, c := range clusters {
		table.Rows = append(table.Rows, c.row(now))
	}
	return out.tables().PrintObj(table, h.Out)
}

// summarize unites the managed clusters, those that have works and those whose
// agents are known, by name.
func summarize(managed, works []*unstructured.Unstructured, agents roster, now time.Time) ([]*fleetCluster, error) {
	clusters := map[string]*fleetCluster{}
	for _, m := range managed {
		clusters[m.GetName()] = &fleetCluster{
			Name: m.GetName(), Managed: true, Created: m.GetCreationTimestamp(), Alive: alive(m),
		}
	}
	for _, u := range works {
		w, err := typed(u)
		if err != nil {
			return nil, err
		}
		c := clusters[w.Namespace]
		if c == nil {
			c = &fleetCluster{Name: w.Namespace}
			clusters[w.Namespace] = c
		}
		// Without a ManagedCluster, the first work says how long it has been here.
		if !c.Managed && (c.Created.IsZero() || w.CreationTimestamp.Before(&c.Created)) {
			c.Created = w.CreationTimestamp
		}
		v := judge(w, agents[w.Namespace], now)
		c.Works++
		if v.Applied == string(metav1.ConditionTrue) {
			c.Applied++
		}
		if v.Available == string(metav1.ConditionTrue) {
			c.Available++
		}
		if c.Obstacle == "" && v.Obstacle != "" {
			c.Obstacle = w.Name + ": " + v.Obstacle
		}
	}
	for name, p := range agents {
		c := clusters[name]
		if c == nil {
			c = &fleetCluster{Name: name, Created: p.created()}
			clusters[name] = c
		}
		c.Presence = p
	}
	return slices.SortedFunc(maps.Values(clusters), func(a, b *fleetCluster) int { return cmp.Compare(a.Name, b.Name) }), nil
}

// pick returns the named clusters, in the order of names.
func pick(clusters []*fleetCluster, names []string) ([]*fleetCluster, error) {
	picked := make([]*fleetCluster, 0, len(names))
	for _, name := range names {
		i := slices.IndexFunc(clusters, func(c *fleetCluster) bool { return c.Name == name })
		if i < 0 {
			return nil, notFoundf("cluster %q is not known to the hub: it is not managed, has no works, and nothing was heard of its agent. See which there are: fleetcast get clusters", name)
		}
		picked = append(picked, clusters[i])
	}
	return picked, nil
}

// alive returns the status of the condition that a cluster's agent renews its
// lease, or "".
func alive(cluster *unstructured.Unstructured) string {
	conditions, _, _ := unstructured.NestedSlice(cluster.Object, "status", "conditions")
	for _, c := range conditions {
		if condition, ok := c.(map[string]any); ok && condition["type"] == clusterv1.ManagedClusterConditionAvailable {
			return fmt.Sprint(condition["status"])
		}
	}
	return ""
}

func (c *fleetCluster) row(now time.Time) metav1.TableRow {
	of := func(n int) string { return fmt.Sprintf("%d/%d", n, c.Works) }
	unclaimed := "<unknown>"
	if c.Presence != nil {
		unclaimed = strconv.Itoa(c.Presence.unclaimed())
	}
	return metav1.TableRow{Cells: []any{
		c.Name, c.Presence.cell(now), c.Works, of(c.Applied), of(c.Available), age(c.Created, now),
		string(c.Presence.inSync()), unclaimed, fmt.Sprint(c.Managed), cmp.Or(c.Alive, "<none>"), c.Obstacle,
	}}
}

// object is the summary for -o json and the like. For -o name it is a reference
// that kubectl takes.
func (c *fleetCluster) object(nameOnly bool) *unstructured.Unstructured {
	if nameOnly {
		gvk := map[string]any{"apiVersion": "v1", "kind": "Namespace"}
		if c.Managed {
			gvk = map[string]any{"apiVersion": clusterv1.GroupName + "/v1", "kind": "ManagedCluster"}
		}
		gvk["metadata"] = map[string]any{"name": c.Name}
		return &unstructured.Unstructured{Object: gvk}
	}
	status := map[string]any{
		"managed":   c.Managed,
		"works":     int64(c.Works),
		"applied":   int64(c.Applied),
		"available": int64(c.Available),
	}
	online, since := c.Presence.online()
	status["online"], status["inSync"] = string(online), string(c.Presence.inSync())
	if c.Presence != nil {
		status["unclaimed"], status["duplicate"] = int64(c.Presence.unclaimed()), c.Presence.duplicate()
	}
	if !since.IsZero() {
		status["onlineSince"] = since.UTC().Format(time.RFC3339)
	}
	if c.Alive != "" {
		status["alive"] = c.Alive
	}
	if c.Obstacle != "" {
		status["message"] = c.Obstacle
	}
	object := map[string]any{
		"apiVersion": "cli.fleetcast.io/v1alpha1",
		"kind":       "ClusterSummary",
		"metadata":   map[string]any{"name": c.Name},
		"status":     status,
	}
	if !c.Created.IsZero() {
		object["metadata"] = map[string]any{"name": c.Name, "creationTimestamp": c.Created.UTC().Format(time.RFC3339)}
	}
	return &unstructured.Unstructured{Object: object}
}
