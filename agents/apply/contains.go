package apply

import (
	apiresource "k8s.io/apimachinery/pkg/api/resource"
)

// contains says whether live holds everything that desired asks for. What live
// has beside it was added by the server, a controller or another user, and is
// no difference; the elements of a list count as its value, so lists must be
// equally long. If zeroIsAbsent, a zero value in desired equals a missing one
// in live: the server's own types do not store them.
func contains(live, desired any, zeroIsAbsent bool) bool {
	return comparison{zeroIsAbsent: zeroIsAbsent}.contains(live, desired, "")
}

// equal says whether the two hold the same, but for nulls and empty maps and
// lists, which equal absence, as do zero values if zeroIsAbsent.
func equal(a, b any, zeroIsAbsent bool) bool {
	c := comparison{zeroIsAbsent: zeroIsAbsent}
	return (a != nil || c.empty(b)) && (b != nil || c.empty(a)) && c.contains(a, b, "") && c.contains(b, a, "")
}

type comparison struct{ zeroIsAbsent bool }

// quantityParents are the fields whose values the server rewrites as canonical
// quantities, so that 1000m comes back as 1.
var quantityParents = map[string]bool{
	"requests": true, "limits": true, "capacity": true, "hard": true,
	"max": true, "min": true, "default": true, "defaultRequest": true, "maxLimitRequestRatio": true,
	"sizeLimit": true, "overhead": true, "podFixed": true, "allocatable": true,
}

// contains compares below parent, the name of the closest enclosing field.
func (c comparison) contains(live, desired any, parent string) bool {
	switch want := desired.(type) {
	case nil: // A null asks for nothing.
		return true
	case map[string]any:
		have, ok := live.(map[string]any)
		if !ok {
			return live == nil && c.emptyMap(want)
		}
		for key, value := range want {
			got, ok := have[key]
			if !ok {
				if !c.empty(value) {
					return false
				}
				continue
			}
			below := key
			if quantityParents[parent] {
				below = parent
			}
			if !c.contains(got, value, below) {
				return false
			}
		}
		return true
	case []any:
		have, ok := live.([]any)
		if !ok {
			return live == nil && len(want) == 0
		}
		if len(have) != len(want) {
			return false
		}
		for i := range want {
			if !c.contains(have[i], want[i], parent) {
				return false
			}
		}
		return true
	default:
		return scalarEqual(live, desired, quantityParents[parent])
	}
}

// empty says whether a server that stores nothing for value did what it says.
func (c comparison) empty(value any) bool {
	switch v := value.(type) {
	case nil:
		return true
	case map[string]any:
		return c.emptyMap(v)
	case []any:
		return len(v) == 0
	case string:
		return c.zeroIsAbsent && v == ""
	case bool:
		return c.zeroIsAbsent && !v
	case int64:
		return c.zeroIsAbsent && v == 0
	case float64:
		return c.zeroIsAbsent && v == 0
	}
	return false
}

func (c comparison) emptyMap(m map[string]any) bool {
	for _, value := range m {
		if !c.empty(value) {
			return false
		}
	}
	return true
}

func scalarEqual(a, b any, quantity bool) bool {
	if a == b {
		return true
	}
	if x, ok := number(a); ok {
		if y, ok := number(b); ok {
			return x == y
		}
	}
	return quantity && quantityEqual(a, b)
}

func number(v any) (float64, bool) {
	switch n := v.(type) {
	case int64:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}

func quantityEqual(a, b any) bool {
	x, ok := quantity(a)
	if !ok {
		return false
	}
	y, ok := quantity(b)
	return ok && x.Cmp(y) == 0
}

// quantity reads a string or a whole number, both of which are quantities.
func quantity(v any) (apiresource.Quantity, bool) {
	switch q := v.(type) {
	case string:
		const longest = 64 // A quantity that means something is far shorter.
		if len(q) > longest {
			return apiresource.Quantity{}, false
		}
		parsed, err := apiresource.ParseQuantity(q)
		return parsed, err == nil
	case int64:
		return *apiresource.NewQuantity(q, apiresource.DecimalSI), true
	}
	return apiresource.Quantity{}, false
}
