package observe

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"

	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
)

// A regular expression of a few characters can stand for millions, and takes
// memory and, at each character of the text, time for all of them. Nothing stops
// a search that has begun.
const (
	// mostPattern is the length of a regular expression in bytes.
	mostPattern = 1 << 10
	// mostInstructions bounds what a regular expression is compiled to, and all
	// those that stand in one expression are together.
	mostInstructions = 2000
	// mostSearched is the length of a text in bytes that is searched.
	mostSearched = 4 << 10
	// mostSteps bounds one search: instructions times places in the text.
	mostSteps = mostInstructions * mostSearched
)

// A pattern is a regular expression with its size.
type pattern struct {
	*regexp.Regexp
	instructions int
}

// newPattern compiles an expression that is not too large.
func newPattern(expression string) (*pattern, error) {
	size, err := measurePattern(expression)
	if err != nil {
		return nil, err
	}
	compiled, err := regexp.Compile(expression)
	if err != nil {
		return nil, fmt.Errorf("it is not a regular expression: %w", err)
	}
	return &pattern{compiled, size}, nil
}

// fits says whether a text of so many bytes may be searched once.
func (p *pattern) fits(length int) error {
	if length > mostSearched {
		return fmt.Errorf("a regular expression looks at %d bytes at most", mostSearched)
	}
	return nil
}

// measurePattern returns about how many instructions a regular expression is
// compiled to, or why it is refused.
func measurePattern(expression string) (int, error) {
	if len(expression) > mostPattern {
		return 0, fmt.Errorf("a regular expression has %d bytes at most", mostPattern)
	}
	parsed, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return 0, fmt.Errorf("it is not a regular expression: %w", err)
	}
	size := instructions(parsed)
	if size > mostInstructions {
		return 0, errPattern
	}
	return size, nil
}

var errPattern = fmt.Errorf("the regular expressions stand for more than %d instructions", mostInstructions)

// instructions counts up to a little more than mostInstructions.
func instructions(re *syntax.Regexp) int {
	count := 1
	for _, sub := range re.Sub {
		count = min(count+instructions(sub), mostInstructions+1)
	}
	switch re.Op {
	case syntax.OpLiteral:
		count += len(re.Rune)
	case syntax.OpCapture:
		count++
	case syntax.OpRepeat:
		count *= max(re.Min, re.Max, 1)
	default:
	}
	return min(count, mostInstructions+1)
}

// checkPatterns judges the regular expressions that stand in an expression, before
// anything compiles them.
func checkPatterns(root ast.Expr) error {
	var wrong error
	left := mostInstructions
	ast.PreOrderVisit(root, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind {
			return
		}
		call := e.AsCall()
		switch call.FunctionName() {
		case "matches", "find", "findAll":
		default:
			return
		}
		at := 1
		if call.IsMemberFunction() {
			at = 0
		}
		if len(call.Args()) <= at || call.Args()[at].Kind() != ast.LiteralKind {
			return
		}
		literal, ok := call.Args()[at].AsLiteral().(types.String)
		if !ok || wrong != nil {
			return
		}
		size, err := measurePattern(string(literal))
		if left -= size; err == nil && left < 0 {
			err = errPattern
		}
		wrong = err
	}))
	return wrong
}

func guardFind(args []ref.Val) error {
	if len(text(args, 0)) > mostSearched {
		return fmt.Errorf("a regular expression looks at %d bytes at most", mostSearched)
	}
	_, err := measurePattern(text(args, 1))
	return err
}

// guardFindAll knows that each of the searches may go to the end of the text.
func guardFindAll(args []ref.Val) error {
	if err := guardFind(args); err != nil {
		return err
	}
	size, err := measurePattern(text(args, 1))
	if length := len(text(args, 0)); err == nil && size*length*length/2 > mostSteps {
		return errors.New("findAll would compare too much: at most eight million instructions of the regular expression times half the square of the text's length")
	}
	return err
}
