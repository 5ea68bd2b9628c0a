package observe

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/functions"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

// CEL knows what a call costs only after it was made. Most calls cannot make
// more of their arguments than a small multiple; those that can are judged
// before.
const (
	// mostText is what one call may make, in bytes.
	mostText = 1 << 20
	// mostElements is the length of a list that one call makes.
	mostElements = 10_000
	// mostPrecision is that of numbers in formatted text.
	mostPrecision = 100
	// mostQuantity is the length of a quantity in text, and mostExponent the
	// highest power of ten in it: it is made out digit by digit.
	mostQuantity = 100
	mostExponent = 100
	// mostParsed is the length in bytes of other text that one call reads as
	// something.
	mostParsed = 64 << 10
	// mostComparisons is how many pairs of characters or elements one call may
	// compare.
	mostComparisons = 1_000_000
)

// A guard returns why a call is refused, nil if it is not.
type guard func(args []ref.Val) error

var guards = map[string]guard{
	"replace": guardReplace,
	"join":    guardJoin,
	"format":  guardFormat,
	"split":   guardSplit,
	"find":    guardFind,
	"findAll": guardFindAll,

	"quantity":        guardQuantity,
	"isQuantity":      guardQuantity,
	"indexOf":         guardIndex,
	"lastIndexOf":     guardIndex,
	"validate":        guardParsed,
	"url":             guardParsed,
	"isURL":           guardParsed,
	"semver":          guardParsed,
	"isSemver":        guardParsed,
	"sets.contains":   guardSets,
	"sets.equivalent": guardSets,
	"sets.intersects": guardSets,
}

// guardFunctions declares the functions that need it once more, as they are but
// for their guards.
func guardFunctions(base *cel.Env) ([]cel.EnvOption, error) {
	known := base.Functions()
	options := make([]cel.EnvOption, 0, len(guards))
	for name, check := range guards {
		function, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("set up CEL: there is no function %s to guard", name)
		}
		bindings, err := function.Bindings()
		if err != nil {
			return nil, fmt.Errorf("set up CEL: bind %s: %w", name, err)
		}
		calls := make(map[string]*functions.Overload, len(bindings))
		for _, b := range bindings {
			calls[b.Operator] = b
		}
		var overloads []cel.FunctionOpt
		for _, o := range function.OverloadDecls() {
			call := calls[o.ID()]
			if call == nil {
				return nil, fmt.Errorf("set up CEL: %s is not bound", o.ID())
			}
			declare := cel.Overload
			if o.IsMemberFunction() {
				declare = cel.MemberOverload
			}
			overloads = append(overloads, declare(o.ID(), o.ArgTypes(), o.ResultType(), binding(call, check, len(o.ArgTypes()))))
		}
		options = append(options, cel.Function(name, overloads...))
	}
	return options, nil
}

// binding puts a guard before a call of so many arguments.
func binding(call *functions.Overload, check guard, arguments int) cel.OverloadOpt {
	guarded := func(args ...ref.Val) ref.Val {
		if err := check(args); err != nil {
			return types.WrapErr(err)
		}
		switch {
		case call.Unary != nil && len(args) == 1:
			return call.Unary(args[0])
		case call.Binary != nil && len(args) == 2:
			return call.Binary(args[0], args[1])
		}
		return call.Function(args...)
	}
	switch arguments {
	case 1:
		return cel.UnaryBinding(func(arg ref.Val) ref.Val { return guarded(arg) })
	case 2:
		return cel.BinaryBinding(func(left, right ref.Val) ref.Val { return guarded(left, right) })
	}
	return cel.FunctionBinding(guarded)
}

func text(args []ref.Val, i int) string {
	if i < len(args) {
		if s, ok := args[i].(types.String); ok {
			return string(s)
		}
	}
	return ""
}

func guardReplace(args []ref.Val) error {
	s, old, next := text(args, 0), text(args, 1), text(args, 2)
	times := len(s) + 1
	if old != "" {
		times = strings.Count(s, old)
	}
	if len(s)+times*len(next) > mostText {
		return fmt.Errorf("replace would make more than %d bytes", mostText)
	}
	return nil
}

func guardSplit(args []ref.Val) error {
	s, separator := text(args, 0), text(args, 1)
	if strings.Count(s, separator) >= mostElements {
		return fmt.Errorf("split would make more than %d strings", mostElements)
	}
	return nil
}

// guardQuantity is for the texts that become quantities. What is no text, or no
// quantity, is for the function itself to say.
func guardQuantity(args []ref.Val) error {
	s := text(args, 0)
	if len(s) > mostQuantity {
		return fmt.Errorf("a quantity has %d characters at most", mostQuantity)
	}
	at := strings.IndexAny(s, "eE")
	if at < 0 {
		return nil
	}
	exponent, err := strconv.Atoi(s[at+1:])
	if errors.Is(err, strconv.ErrRange) || exponent > mostExponent || exponent < -mostExponent {
		return fmt.Errorf("a quantity has an exponent of %d at most", mostExponent)
	}
	return nil
}

// guardParsed is for functions that go through a text more than once, or with a
// regular expression.
func guardParsed(args []ref.Val) error {
	for i := range args {
		if len(text(args, i)) > mostParsed {
			return fmt.Errorf("the function reads %d bytes at most", mostParsed)
		}
	}
	return nil
}

// guardIndex is for searches that compare at every place anew.
func guardIndex(args []ref.Val) error {
	if list, ok := args[0].(traits.Lister); ok {
		return guardEqual([]ref.Val{list})
	}
	s, part := text(args, 0), text(args, 1)
	if len(s) > mostText || len(s)*len(part) > mostComparisons && len(part) > 1 {
		return fmt.Errorf("a search compares %d characters at most", mostComparisons)
	}
	return nil
}

// guardSets is for functions that compare each element of one list with each of
// the other.
func guardSets(args []ref.Val) error {
	if err := guardEqual(args); err != nil {
		return err
	}
	pairs := 1
	for _, arg := range args {
		if list, ok := arg.(traits.Lister); ok {
			pairs *= min(lengthOf(list), mostComparisons) + 1
		}
	}
	if pairs > mostComparisons {
		return fmt.Errorf("sets compare %d pairs of elements at most", mostComparisons)
	}
	return nil
}

// guardEqual is for comparisons. A list that holds another twice, which holds
// another twice, takes no room, but for ever to be compared.
func guardEqual(args []ref.Val) error {
	for _, arg := range args {
		switch arg.(type) {
		case traits.Mapper, traits.Lister:
			if measure(arg, 4*mostText) < 0 {
				return fmt.Errorf("a value that is compared has more than %d bytes", 4*mostText)
			}
		}
	}
	return nil
}

func guardJoin(args []ref.Val) error {
	list, ok := args[0].(traits.Lister)
	if !ok {
		return nil
	}
	if size, ok := list.Size().(types.Int); !ok || size > mostElements {
		return fmt.Errorf("join takes %d strings at most", mostElements)
	}
	if left := measure(list, mostText); left < lengthOf(list)*len(text(args, 1)) {
		return fmt.Errorf("join would make more than %d bytes", mostText)
	}
	return nil
}

func guardFormat(args []ref.Val) error {
	if len(args) < 2 {
		return nil
	}
	for rest := text(args, 0); ; {
		_, after, found := strings.Cut(rest, "%.")
		if !found {
			break
		}
		digits := len(after) - len(strings.TrimLeft(after, "0123456789"))
		if digits > 3 || (digits == 3 && after[:3] > "100") {
			return fmt.Errorf("format takes a precision of %d at most", mostPrecision)
		}
		rest = after
	}
	if measure(args[1], mostText-len(text(args, 0))) < 0 {
		return fmt.Errorf("format would make more than %d bytes", mostText)
	}
	return nil
}

func lengthOf(list traits.Lister) int {
	size, _ := list.Size().(types.Int)
	return int(size)
}

// measure returns what is left of room after the text of value, less than 0 if
// there is not enough. It looks no further than the room reaches.
func measure(value ref.Val, room int) int {
	const entry = 8 // What a number or a mark takes, about.
	switch v := value.(type) {
	case types.String:
		return room - len(v) - 1
	case types.Bytes:
		return room - len(v) - 1
	case traits.Mapper:
		for it := v.Iterator(); room >= 0 && it.HasNext() == types.True; {
			key := it.Next()
			room = measure(key, room-entry)
			if room >= 0 {
				room = measure(v.Get(key), room)
			}
		}
	case traits.Lister:
		for it := v.Iterator(); room >= 0 && it.HasNext() == types.True; {
			room = measure(it.Next(), room-1)
		}
	default:
		return room - entry
	}
	return room
}
