package apply

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
)

// sameNetworkPolicy compares two network policies as their types. In them an
// empty selector selects everything and a missing one nothing, and a rule more
// opens what the manifest closed.
func sameNetworkPolicy(live, desired map[string]any) bool {
	return sameTyped(live, desired, func(p *networkingv1.NetworkPolicy) any {
		for i := range p.Spec.Ingress {
			defaultProtocol(p.Spec.Ingress[i].Ports)
		}
		for i := range p.Spec.Egress {
			defaultProtocol(p.Spec.Egress[i].Ports)
		}
		if len(p.Spec.PolicyTypes) == 0 {
			p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
			if len(p.Spec.Egress) > 0 {
				p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
			}
		}
		return p.Spec
	})
}

func defaultProtocol(ports []networkingv1.NetworkPolicyPort) {
	tcp := corev1.ProtocolTCP
	for i := range ports {
		if ports[i].Protocol == nil {
			ports[i].Protocol = &tcp
		}
	}
}

// sameDisruptionBudget compares two budgets as their types. The server has no
// defaults for them.
func sameDisruptionBudget(live, desired map[string]any) bool {
	return sameTyped(live, desired, func(b *policyv1.PodDisruptionBudget) any { return b.Spec })
}

// sameTyped compares what spec makes of both. What cannot be read as the type
// is left for the server to judge.
func sameTyped[T any](live, desired map[string]any, spec func(*T) any) bool {
	var have, want T
	convert := runtime.DefaultUnstructuredConverter.FromUnstructured
	if convert(live, &have) != nil || convert(desired, &want) != nil {
		return true
	}
	return equality.Semantic.DeepEqual(spec(&have), spec(&want))
}
