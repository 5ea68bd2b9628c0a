package ignore

import (
	"errors"
	"fmt"

	"github.com/itchyny/gojq"
)

// allowedFunctions take time that is linear in the manifest, and make nothing
// that is larger. By name and number of arguments.
var allowedFunctions = map[string]bool{
	"select/1": true, "empty/0": true, "not/0": true, "first/0": true, "last/0": true, "first/1": true,
	"any/0": true, "any/1": true, "any/2": true, "all/0": true, "all/1": true, "all/2": true,
	"has/1": true, "in/1": true, "IN/1": true, "length/0": true, "type/0": true, "keys/0": true,
	"recurse/0": true, "tostring/0": true,
	"startswith/1": true, "endswith/1": true, "ltrimstr/1": true, "rtrimstr/1": true,
	"ascii_downcase/0": true, "ascii_upcase/0": true,
	"arrays/0": true, "objects/0": true, "iterables/0": true, "scalars/0": true, "values/0": true,
	"booleans/0": true, "numbers/0": true, "strings/0": true, "nulls/0": true,
}

// boundedFunctions are replaced by our own.
var boundedFunctions = map[string]bool{"test/1": true, "contains/1": true}

func checkQuery(q *gojq.Query) error {
	switch {
	case q == nil:
		return nil
	case q.Meta != nil || len(q.Imports) > 0:
		return errors.New("modules are refused")
	case len(q.FuncDefs) > 0:
		return errors.New("definitions of functions are refused")
	case len(q.Patterns) > 0:
		return errors.New("variables are refused")
	}
	switch q.Op {
	case 0, gojq.OpPipe, gojq.OpComma, gojq.OpAlt, gojq.OpAnd, gojq.OpOr,
		gojq.OpEq, gojq.OpNe, gojq.OpGt, gojq.OpLt, gojq.OpGe, gojq.OpLe:
	default:
		return fmt.Errorf("the operator %s is refused: the expression may select fields, and not make values", q.Op)
	}
	if err := checkTerm(q.Term); err != nil {
		return err
	}
	if err := checkQuery(q.Left); err != nil {
		return err
	}
	return checkQuery(q.Right)
}

func checkTerm(t *gojq.Term) error {
	if t == nil {
		return nil
	}
	var err error
	switch t.Type {
	case gojq.TermTypeIdentity, gojq.TermTypeRecurse, gojq.TermTypeNull, gojq.TermTypeTrue, gojq.TermTypeFalse, gojq.TermTypeNumber:
	case gojq.TermTypeIndex:
		err = checkIndex(t.Index)
	case gojq.TermTypeFunc:
		err = checkFunction(t.Func)
	case gojq.TermTypeArray:
		err = checkQuery(t.Array.Query)
	case gojq.TermTypeUnary:
		err = checkTerm(t.Unary.Term)
	case gojq.TermTypeString:
		err = checkString(t.Str)
	case gojq.TermTypeIf:
		err = checkIf(t.If)
	case gojq.TermTypeTry:
		if err = checkQuery(t.Try.Body); err == nil {
			err = checkQuery(t.Try.Catch)
		}
	case gojq.TermTypeQuery:
		err = checkQuery(t.Query)
	default:
		return errors.New("objects, formats, reduce, foreach and labels are refused: the expression may select fields, and not make values")
	}
	if err != nil {
		return err
	}
	for _, s := range t.SuffixList {
		if err := checkIndex(s.Index); err != nil {
			return err
		}
	}
	return nil
}

func checkFunction(f *gojq.Func) error {
	for _, arg := range f.Args {
		if err := checkQuery(arg); err != nil {
			return err
		}
	}
	name := fmt.Sprintf("%s/%d", f.Name, len(f.Args))
	switch {
	case boundedFunctions[name]:
		f.Name = boundedPrefix + f.Name
	case !allowedFunctions[name]:
		return fmt.Errorf("%s is refused: the expression may select fields, and neither make values nor look beyond the manifest", name)
	}
	return nil
}

// checkIndex lets only what is written out be an index: one that is a list looks
// for that list in another, in quadratic time.
func checkIndex(i *gojq.Index) error {
	if i == nil {
		return nil
	}
	if !isLiteral(i.Start) || !isLiteral(i.End) {
		return errors.New("an index that is not a number or a text is refused")
	}
	return checkString(i.Str)
}

func isLiteral(q *gojq.Query) bool {
	if q == nil {
		return true
	}
	t := q.Term
	if t == nil || q.Op != 0 || len(q.FuncDefs) > 0 || len(q.Patterns) > 0 || len(t.SuffixList) > 0 {
		return false
	}
	if t.Type == gojq.TermTypeUnary {
		t = t.Unary.Term
	}
	return len(t.SuffixList) == 0 &&
		(t.Type == gojq.TermTypeNumber || (t.Type == gojq.TermTypeString && t.Str.Queries == nil))
}

func checkString(s *gojq.String) error {
	if s != nil && s.Queries != nil {
		return errors.New("texts that are put together are refused")
	}
	return nil
}

func checkIf(i *gojq.If) error {
	for _, q := range []*gojq.Query{i.Cond, i.Then, i.Else} {
		if err := checkQuery(q); err != nil {
			return err
		}
	}
	for _, e := range i.Elif {
		if err := checkQuery(e.Cond); err != nil {
			return err
		}
		if err := checkQuery(e.Then); err != nil {
			return err
		}
	}
	return nil
}
