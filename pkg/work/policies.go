package work

import (
	"bytes"
	_ "embed" // The policies.
	"errors"
	"fmt"
	"io"
	"strconv"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// policies is the file that the chart of the hub has too.
//
//go:embed policies.yaml
var policies []byte

// PolicySettings tune the policies. The zero value refuses no size.
type PolicySettings struct {
	// ManifestLimit is how many bytes the manifests of a work may have together; 0
	// is no limit.
	ManifestLimit int64
	// NilExecutorValidating has a work without an executor count as one of the
	// agent's own account, system:serviceaccount::klusterlet-work-sa, which takes
	// the right to execute as that. Without it whoever may write works may have
	// them executed by the agent itself, as on OCM hubs.
	NilExecutorValidating bool
}

// Variables of the policies that hold the settings.
const (
	limitVariable       = "manifestLimit"
	nilExecutorVariable = "nilExecutorValidating"
)

// Policies returns what has an API server refuse works that cannot run: a policy
// for ManifestWorks and one for ManifestWorkReplicaSets, and their bindings. They
// are compiled by Kubernetes 1.30 and later. The caller owns the result.
func Policies(s PolicySettings) ([]*admissionv1.ValidatingAdmissionPolicy, []*admissionv1.ValidatingAdmissionPolicyBinding) {
	all, bindings, err := parsePolicies()
	if err != nil {
		// The binary itself would be broken.
		panic(fmt.Sprintf("parse the embedded policies: %v", err))
	}
	for _, p := range all {
		for i := range p.Spec.Variables {
			switch v := &p.Spec.Variables[i]; v.Name {
			case limitVariable:
				v.Expression = strconv.FormatInt(max(s.ManifestLimit, 0), 10)
			case nilExecutorVariable:
				v.Expression = strconv.FormatBool(s.NilExecutorValidating)
			}
		}
	}
	return all, bindings
}

func parsePolicies() ([]*admissionv1.ValidatingAdmissionPolicy, []*admissionv1.ValidatingAdmissionPolicyBinding, error) {
	var all []*admissionv1.ValidatingAdmissionPolicy
	var bindings []*admissionv1.ValidatingAdmissionPolicyBinding
	documents := yaml.NewYAMLToJSONDecoder(bytes.NewReader(policies))
	for {
		p := &admissionv1.ValidatingAdmissionPolicy{}
		err := documents.Decode(p)
		if errors.Is(err, io.EOF) {
			return all, bindings, nil
		}
		if err != nil {
			return nil, nil, err
		}
		all = append(all, p)
		b := &admissionv1.ValidatingAdmissionPolicyBinding{}
		if err := documents.Decode(b); err != nil {
			return nil, nil, err
		}
		bindings = append(bindings, b)
	}
}
