package apply

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/apply/ignore"
	"github.com/fleetcast-io/fleetcast/pkg/api"
)

// An option is what a work asks for one of its manifests.
type option struct {
	strategy workv1.UpdateStrategyType
	// owned says that the object belongs to the work and goes with it.
	owned bool
	// force and fieldManager are for server-side apply.
	force        bool
	fieldManager string
	// ignoreFields are those of server-side apply, and ignored what they mean.
	ignoreFields []workv1.IgnoreField
	ignored      *ignore.Fields
}

// self says which managed fields are those of server-side apply.
func (o option) self() ours { return ours{o.fieldManager, metav1.ManagedFieldsOperationApply} }

// resolveOption reads the options of one manifest out of a work: the first
// matching entry with an update strategy decides the strategy.
func resolveOption(spec *workv1.ManifestWorkSpec, id workv1.ResourceIdentifier) (option, error) {
	o := option{strategy: workv1.UpdateStrategyTypeUpdate, owned: owns(spec.DeleteOption, id)}
	strategy := findStrategy(spec.ManifestConfigs, id)
	if strategy == nil {
		return o, nil
	}
	switch strategy.Type {
	case "", workv1.UpdateStrategyTypeUpdate:
	case workv1.UpdateStrategyTypeCreateOnly:
		o.strategy = strategy.Type
	case workv1.UpdateStrategyTypeReadOnly:
		o.strategy, o.owned = strategy.Type, false
	case workv1.UpdateStrategyTypeServerSideApply:
		o.strategy, o.fieldManager = strategy.Type, api.FieldManager
		if c := strategy.ServerSideApply; c != nil {
			o.force = c.Force
			if c.FieldManager != "" {
				o.fieldManager = c.FieldManager
			}
			o.ignoreFields = c.IgnoreFields
		}
		if !strings.HasPrefix(o.fieldManager, api.FieldManager) {
			return o, fmt.Errorf("serverSideApply.fieldManager %.64q does not begin with %s", o.fieldManager, api.FieldManager)
		}
	default:
		return o, fmt.Errorf("updateStrategy.type %.64q is not known", string(strategy.Type))
	}
	return o, nil
}

func findStrategy(configs []workv1.ManifestConfigOption, id workv1.ResourceIdentifier) *workv1.UpdateStrategy {
	for i := range configs {
		if configs[i].UpdateStrategy != nil && matches(configs[i].ResourceIdentifier, id) {
			return configs[i].UpdateStrategy
		}
	}
	return nil
}

// matches holds an object against a selector, whose name and namespace may have
// any number of asterisks, each for any number of characters.
func matches(selector, id workv1.ResourceIdentifier) bool {
	return selector.Group == id.Group && selector.Resource == id.Resource &&
		matchGlob(selector.Namespace, id.Namespace) && matchGlob(selector.Name, id.Name)
}

// matchGlob takes time linear in pattern times text, whatever the pattern:
// it comes from a stranger.
func matchGlob(pattern, text string) bool {
	first, rest, found := strings.Cut(pattern, "*")
	if !found {
		return pattern == text
	}
	text, ok := strings.CutPrefix(text, first)
	if !ok {
		return false
	}
	for {
		part, next, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(text, part)
		}
		at := strings.Index(text, part)
		if at < 0 {
			return false
		}
		text, rest = text[at+len(part):], next
	}
}

// owns says whether the object goes when its work goes. Orphaning rules have no
// wildcards.
func owns(o *workv1.DeleteOption, id workv1.ResourceIdentifier) bool {
	if o == nil {
		return true
	}
	switch o.PropagationPolicy {
	case workv1.DeletePropagationPolicyTypeForeground:
		return true
	case workv1.DeletePropagationPolicyTypeOrphan:
		return false
	case workv1.DeletePropagationPolicyTypeSelectivelyOrphan:
		if o.SelectivelyOrphan == nil {
			return true
		}
		for _, rule := range o.SelectivelyOrphan.OrphaningRules {
			if workv1.ResourceIdentifier(rule) == id {
				return false
			}
		}
	}
	return true
}
