package apply

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A kindRule is what a kind needs beyond the general way of comparing and
// updating. The zero value is the general way.
type kindRule struct {
	// metadataOnly kinds get labels, annotations and owners; their other fields
	// are never changed once they exist.
	metadataOnly bool
	// exact fields must be equal, not merely contained. A kind with exact fields
	// needs no hash annotation: all that a manifest can drop is in them.
	exact [][]string
	// hashed overrides that for kinds with further fields.
	hashed bool
	// emptyCounts says that an empty string in an exact field is a value.
	emptyCounts bool
	// same compares whole objects where even an empty selector is a value.
	same func(live, desired map[string]any) bool
	// keep copies into desired what the server or others may choose and the
	// manifest does not.
	keep func(desired, live map[string]any)
	// recreate says that nothing is lost if the object is made anew when the
	// server refuses to change it.
	recreate bool
}

func (r kindRule) tracksHash() bool { return !r.metadataOnly && (len(r.exact) == 0 || r.hashed) }

// kindRules are by group and kind; versions of one kind behave alike.
var kindRules = map[schema.GroupKind]kindRule{
	{Kind: "Namespace"}:      {metadataOnly: true},
	{Kind: "ServiceAccount"}: {metadataOnly: true},
	{Kind: "Pod"}:            {metadataOnly: true},

	{Kind: "ConfigMap"}: {exact: [][]string{{"data"}, {"binaryData"}}, emptyCounts: true, keep: keepConfigMap},
	{Kind: "Secret"}:    {exact: [][]string{{"data"}}, emptyCounts: true, keep: keepSecret},

	{Kind: "Service"}:               {exact: [][]string{{"spec", "selector"}}, hashed: true, keep: keepService},
	{Kind: "PersistentVolumeClaim"}: {keep: keepSpec("volumeName", "storageClassName", "volumeMode")},
	{Kind: "PersistentVolume"}:      {keep: keepSpec("claimRef")},

	{Group: "rbac.authorization.k8s.io", Kind: "Role"}:               {exact: [][]string{{"rules"}}},
	{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole"}:        {exact: [][]string{{"rules"}, {"aggregationRule"}}, keep: keepAggregated},
	{Group: "rbac.authorization.k8s.io", Kind: "RoleBinding"}:        {exact: [][]string{{"subjects"}, {"roleRef"}}, keep: defaultSubjects},
	{Group: "rbac.authorization.k8s.io", Kind: "ClusterRoleBinding"}: {exact: [][]string{{"subjects"}, {"roleRef"}}, keep: defaultSubjects},

	{Group: "networking.k8s.io", Kind: "NetworkPolicy"}: {same: sameNetworkPolicy},
	{Group: "policy", Kind: "PodDisruptionBudget"}:      {same: sameDisruptionBudget},

	{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}: {keep: keepConversionBundle},

	{Group: "storage.k8s.io", Kind: "StorageClass"}: {keep: keepDefaultClass, recreate: true},
	{Group: "storage.k8s.io", Kind: "CSIDriver"}:    {recreate: true},

	{Group: "apps", Kind: "Deployment"}:  {keep: keepSpec("replicas")},
	{Group: "apps", Kind: "StatefulSet"}: {keep: keepSpec("replicas")},
	{Group: "apps", Kind: "ReplicaSet"}:  {keep: keepSpec("replicas")},
	{Group: "batch", Kind: "Job"}:        {keep: keepJob},

	{Group: "admissionregistration.k8s.io", Kind: "ValidatingWebhookConfiguration"}: {keep: keepCABundles},
	{Group: "admissionregistration.k8s.io", Kind: "MutatingWebhookConfiguration"}:   {keep: keepCABundles},
	{Group: "apiregistration.k8s.io", Kind: "APIService"}:                           {keep: keepSpec("caBundle")},
}

// builtIn says whether a group's types are the API server's own, or treated as
// such. Those do not store zero values of most fields; custom resources do.
func builtIn(group string) bool {
	return !strings.Contains(group, ".") || strings.HasSuffix(group, ".k8s.io")
}

func isSecret(gvk schema.GroupVersionKind) bool { return gvk.Group == "" && gvk.Kind == "Secret" }

// keepSpec keeps the named fields of a spec where the manifest is silent
// about them. Replicas are among them: a manifest without replicas leaves the
// number to an autoscaler or a person.
func keepSpec(names ...string) func(desired, live map[string]any) {
	return func(desired, live map[string]any) {
		for _, name := range names {
			keepField(desired, live, "spec", name)
		}
	}
}

func keepField(desired, live map[string]any, path ...string) {
	want, _, err := unstructured.NestedFieldNoCopy(desired, path...)
	if err != nil || (want != nil && want != "") {
		return
	}
	if have, ok, err := unstructured.NestedFieldCopy(live, path...); ok && err == nil {
		// It fails only where the manifest has something else than an object in
		// the way, which the server will refuse.
		_ = unstructured.SetNestedField(desired, have, path...)
	}
}

func keepConfigMap(desired, live map[string]any) {
	keepField(desired, live, "immutable")
	// OpenShift fills this key of a labelled config map.
	const injected = "config.openshift.io/inject-trusted-cabundle"
	if value, _, _ := unstructured.NestedString(desired, "metadata", "labels", injected); value == "true" {
		keepField(desired, live, "data", "ca-bundle.crt")
	}
	// And this one of an annotated one.
	const serving = "service.beta.openshift.io/inject-cabundle"
	if value, _, _ := unstructured.NestedString(desired, "metadata", "annotations", serving); value == "true" {
		keepField(desired, live, "data", "service-ca.crt")
	}
}

func keepSecret(desired, live map[string]any) {
	keepField(desired, live, "immutable")
	keepField(desired, live, "type")
	if desired["type"] != "kubernetes.io/service-account-token" {
		return
	}
	// The token controller fills the other keys.
	have, _, _ := unstructured.NestedMap(live, "data")
	for key := range have {
		keepField(desired, live, "data", key)
	}
}

func keepService(desired, live map[string]any) {
	wantType, _, _ := unstructured.NestedString(desired, "spec", "type")
	haveType, _, _ := unstructured.NestedString(live, "spec", "type")
	if wantType == "ExternalName" || haveType == "ExternalName" {
		return
	}
	keepSpec("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort")(desired, live)
}

// keepAggregated leaves the rules of an aggregated role to its controller.
func keepAggregated(desired, live map[string]any) {
	if desired["aggregationRule"] == nil {
		return
	}
	delete(desired, "rules")
	keepField(desired, live, "rules")
}

// defaultSubjects adds the API groups that the server adds.
func defaultSubjects(desired, _ map[string]any) {
	const rbac = "rbac.authorization.k8s.io"
	if role, ok := desired["roleRef"].(map[string]any); ok && (role["apiGroup"] == nil || role["apiGroup"] == "") {
		role["apiGroup"] = rbac
	}
	subjects, _ := desired["subjects"].([]any)
	for _, s := range subjects {
		subject, ok := s.(map[string]any)
		if ok && (subject["kind"] == "User" || subject["kind"] == "Group") && (subject["apiGroup"] == nil || subject["apiGroup"] == "") {
			subject["apiGroup"] = rbac
		}
	}
}

// keepDefaultClass leaves the choice of the default storage class to the cluster
// once it is made.
func keepDefaultClass(desired, live map[string]any) {
	path := []string{"metadata", "annotations", "storageclass.kubernetes.io/is-default-class"}
	if chosen, _, _ := unstructured.NestedString(live, path...); chosen != "" {
		// It fails only where the manifest's annotations are no map of strings, which
		// was found out when it was read.
		_ = unstructured.SetNestedField(desired, chosen, path...)
	}
}

// keepJob keeps what the server generates to tell a job's pods from others.
func keepJob(desired, live map[string]any) {
	keepField(desired, live, "spec", "selector")
	labels, _, _ := unstructured.NestedMap(live, "spec", "template", "metadata", "labels")
	for key := range labels {
		keepField(desired, live, "spec", "template", "metadata", "labels", key)
	}
}

// keepConversionBundle keeps the certificate that an injector wrote.
func keepConversionBundle(desired, live map[string]any) {
	path := []string{"spec", "conversion", "webhook", "clientConfig"}
	if _, ok, err := unstructured.NestedMap(desired, path...); ok && err == nil {
		keepField(desired, live, append(path, "caBundle")...)
	}
}

// keepCABundles keeps the certificates that an injector wrote, by webhook name.
func keepCABundles(desired, live map[string]any) {
	have, _ := live["webhooks"].([]any)
	byName := make(map[any]map[string]any, len(have))
	for _, h := range have {
		if hook, ok := h.(map[string]any); ok {
			if name, ok := hook["name"].(string); ok {
				byName[name] = hook
			}
		}
	}
	want, _ := desired["webhooks"].([]any)
	for _, w := range want {
		hook, ok := w.(map[string]any)
		if !ok {
			continue
		}
		if name, ok := hook["name"].(string); ok && byName[name] != nil {
			keepField(hook, byName[name], "clientConfig", "caBundle")
		}
	}
}

// foldStringData moves a secret's stringData into its data, as the server does,
// so that both can be compared with what is there. Its errors name keys only.
func foldStringData(u *unstructured.Unstructured) error {
	data, err := secretData(u)
	if err != nil {
		return err
	}
	plain, ok, err := unstructured.NestedMap(u.Object, "stringData")
	if err != nil {
		return errors.New("stringData is not a map of strings")
	}
	for key, value := range plain {
		text, isText := value.(string)
		if !isText {
			return fmt.Errorf("stringData[%s] is not a string", clip(key))
		}
		encoded := base64.StdEncoding.EncodeToString([]byte(text))
		if have, both := data[key]; both && have != encoded {
			return fmt.Errorf("data and stringData have different values for %s", clip(key))
		}
		data[key] = encoded
	}
	if ok {
		delete(u.Object, "stringData")
	}
	if len(data) > 0 {
		u.Object["data"] = data
	}
	return nil
}

// secretData returns the data in the encoding that the server writes.
func secretData(u *unstructured.Unstructured) (map[string]any, error) {
	given, _, err := unstructured.NestedMap(u.Object, "data")
	if err != nil {
		return nil, errors.New("data is not a map of strings")
	}
	data := make(map[string]any, len(given))
	for key, value := range given {
		text, ok := value.(string)
		if !ok && value != nil {
			return nil, fmt.Errorf("data[%s] is not a string", clip(key))
		}
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("data[%s] is not base64", clip(key))
		}
		data[key] = base64.StdEncoding.EncodeToString(raw)
	}
	return data, nil
}
