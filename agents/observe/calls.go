package observe

import (
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/interpreter"
	"k8s.io/apiserver/pkg/cel/library"
)

// guardCalls puts guards where declarations cannot: at operators and at matches.
// It also has every call look at the deadline, which CEL itself does only between
// the steps of a comprehension: a long row of dear calls has none.
func guardCalls(i interpreter.Interpretable) (interpreter.Interpretable, error) {
	call, ok := i.(interpreter.InterpretableCall)
	if !ok {
		return i, nil
	}
	args := call.Args()
	switch call.Function() {
	case operators.Add:
		call = addition{call}
	case operators.Equals:
		call = interpreter.NewCall(call.ID(), call.Function(), call.OverloadID(), args, compare(true))
	case operators.NotEquals:
		call = interpreter.NewCall(call.ID(), call.Function(), call.OverloadID(), args, compare(false))
	case operators.In:
		call = interpreter.NewCall(call.ID(), call.Function(), call.OverloadID(), args, within)
	case overloads.Matches:
		match, err := matchCall(args)
		if err != nil {
			return nil, err
		}
		// Under a name of its own, for CEL would replace it where the pattern is
		// constant. What it costs goes by the overload.
		call = interpreter.NewCall(call.ID(), "bounded_"+overloads.Matches, overloads.MatchesString, args, match)
	}
	return punctual{call}, nil
}

// A punctual call is not made after the deadline.
type punctual struct{ interpreter.InterpretableCall }

// Eval implements interpreter.Interpretable.
func (p punctual) Eval(vars interpreter.Activation) ref.Val {
	if stopped, ok := vars.ResolveName("#interrupted"); ok && stopped == true {
		return types.NewErr("the evaluation was interrupted")
	}
	return p.InterpretableCall.Eval(vars)
}

func compare(same bool) func(args ...ref.Val) ref.Val {
	return func(args ...ref.Val) ref.Val {
		if err := guardEqual(args); err != nil {
			return types.WrapErr(err)
		}
		return types.Bool((types.Equal(args[0], args[1]) == types.True) == same)
	}
}

func within(args ...ref.Val) ref.Val {
	container, ok := args[1].(traits.Container)
	if !ok {
		return types.MaybeNoSuchOverloadErr(args[1])
	}
	if _, isMap := container.(traits.Mapper); !isMap { // A map is not gone through.
		if err := guardEqual(args); err != nil {
			return types.WrapErr(err)
		}
	}
	return container.Contains(args[0])
}

// matchCall is the function matches with its guard. A constant pattern is compiled
// once.
func matchCall(args []interpreter.Interpretable) (func(args ...ref.Val) ref.Val, error) {
	var constant *pattern
	if c, ok := args[1].(interpreter.InterpretableConst); ok {
		if expression, ok := c.Value().(types.String); ok {
			var err error
			if constant, err = newPattern(string(expression)); err != nil {
				return nil, err
			}
		}
	}
	return func(args ...ref.Val) ref.Val {
		s, ok := args[0].(types.String)
		if !ok {
			return types.MaybeNoSuchOverloadErr(args[0])
		}
		p := constant
		if p == nil {
			expression, ok := args[1].(types.String)
			if !ok {
				return types.MaybeNoSuchOverloadErr(args[1])
			}
			var err error
			if p, err = newPattern(string(expression)); err != nil {
				return types.WrapErr(err)
			}
		}
		if err := p.fits(len(s)); err != nil {
			return types.WrapErr(err)
		}
		return types.Bool(p.MatchString(string(s)))
	}, nil
}

// An addition bounds the lists that it makes. It copies nothing and is free, so
// that a short expression could double a list until going through it takes for
// ever.
type addition struct{ interpreter.InterpretableCall }

// Eval implements interpreter.Interpretable.
func (a addition) Eval(vars interpreter.Activation) ref.Val {
	sum := a.InterpretableCall.Eval(vars)
	list, ok := sum.(traits.Lister)
	if !ok {
		return sum
	}
	size := lengthOf(list)
	if size > mostElements {
		return types.NewErr("a list of more than %d elements", mostElements)
	}
	flat := make([]ref.Val, 0, size) // Else each look at it would go through all additions.
	for it := list.Iterator(); it.HasNext() == types.True; {
		flat = append(flat, it.Next())
	}
	return types.NewRefValList(types.DefaultTypeAdapter, flat)
}

// An estimator says what calls have cost. Kubernetes' goes through what a search
// compares, all of it, even where the search was refused.
type estimator struct{ *library.CostEstimator }

// CallCost implements interpreter.ActualCostEstimator.
func (e estimator) CallCost(function, overload string, args []ref.Val, result ref.Val) *uint64 {
	switch function {
	case "indexOf", "lastIndexOf", "sets.contains", "sets.equivalent", "sets.intersects":
		if guardEqual(args) != nil {
			cost := uint64(costPerCall)
			return &cost
		}
	}
	return e.CostEstimator.CallCost(function, overload, args, result)
}
