package observe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/ext"
	"github.com/google/cel-go/interpreter"
	"k8s.io/apiserver/pkg/cel/library"
	"k8s.io/utils/lru"
)

const (
	// costPerCall bounds one evaluation, and costPerObject all of one object, in
	// units of CEL. Both are those of Kubernetes' admission policies.
	costPerCall   = 1_000_000
	costPerObject = 10_000_000
	// patience is for one evaluation. What costs no more than the above takes a
	// fraction of it, unless the machine is busy.
	patience = 50 * time.Millisecond
	// checkEvery is after how many steps of a comprehension the deadline is
	// looked at. All loops around one that was stopped go on until they look
	// themselves, so with more it would multiply.
	checkEvery = 1
	// mostExpression is the length of an expression in characters.
	mostExpression = 4 << 10
	// mostCopies is how often an expression may use optMap and optFlatMap, each of
	// which has the compiler copy all before it.
	mostCopies = 8
	// mostPrograms bounds the compiled expressions that are kept, and mostKept
	// their length in bytes together, to which their size is proportional.
	mostPrograms = 256
	mostKept     = 64 << 10
)

// Errors of an evaluation that are not the expression's fault.
var (
	errLate   = fmt.Errorf("the evaluation took longer than %s", patience)
	errBudget = fmt.Errorf("the rules of this object cost more than %d together", costPerObject)
)

// programs compiles expressions, and keeps what was used last. Failures are kept
// as well.
type programs struct {
	env  func() (*cel.Env, error)
	kept *lru.Cache

	mu   sync.Mutex // For what is added.
	size int        // Of the expressions that are kept.
}

type compiled struct {
	program cel.Program
	err     error
}

func newPrograms() *programs {
	p := &programs{env: sync.OnceValues(newEnv)}
	p.kept = lru.NewWithEvictionFunc(mostPrograms, func(expression lru.Key, _ any) {
		p.size -= weigh(expression.(string)) //nolint:forcetypeassert // No other key is ever put in.
	})
	return p
}

// newEnv declares what expressions may use: what Kubernetes' admission policies
// may but for the authorizer, and hasConditions.
func newEnv() (*cel.Env, error) {
	regex, err := regexLibrary()
	if err != nil {
		return nil, err
	}
	base, err := cel.NewEnv(
		cel.HomogeneousAggregateLiterals(),
		cel.EagerlyValidateDeclarations(true),
		cel.DefaultUTCTimeZone(true),
		cel.CrossTypeNumericComparisons(true),
		cel.OptionalTypes(),
		cel.ParserExpressionSizeLimit(mostExpression),
		cel.CostEstimatorOptions(checker.PresenceTestHasCost(false)),
		cel.ASTValidators(
			cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(),
			cel.ValidateRegexLiterals(), cel.ValidateHomogeneousAggregateLiterals(),
		),
		ext.Strings(ext.StringsVersion(2)), ext.Sets(),
		library.URLs(), cel.Lib(regex), library.Lists(), library.Quantity(),
		library.IP(), library.CIDR(), library.Format(), library.SemverLib(library.SemverVersion(1)),
		cel.Variable("object", cel.DynType), cel.Variable("result", cel.BoolType),
		cel.Function("hasConditions", cel.Overload("status_has_conditions",
			[]*cel.Type{cel.DynType}, cel.BoolType, cel.UnaryBinding(hasConditions))),
	)
	if err != nil {
		return nil, fmt.Errorf("set up CEL: %w", err)
	}
	guards, err := guardFunctions(base)
	if err != nil {
		return nil, err
	}
	env, err := base.Extend(guards...)
	if err != nil {
		return nil, fmt.Errorf("set up CEL: %w", err)
	}
	return env, nil
}

// regexLibrary is Kubernetes' without its optimisation of constant patterns, which
// goes around the guards of find and findAll.
func regexLibrary() (cel.Library, error) {
	for _, l := range library.KnownLibraries() {
		if l.LibraryName() == "kubernetes.regex" {
			return declarationsOf{l}, nil
		}
	}
	return nil, errors.New("set up CEL: there is no library of regular expressions")
}

type declarationsOf struct{ cel.Library }

// ProgramOptions implements cel.Library.
func (declarationsOf) ProgramOptions() []cel.ProgramOption { return nil }

// hasConditions says whether a status has at least one condition.
func hasConditions(status ref.Val) ref.Val {
	fields, ok := status.(traits.Mapper)
	if !ok {
		return types.False
	}
	conditions, ok := fields.Find(types.String("conditions"))
	if !ok {
		return types.False
	}
	list, ok := conditions.(traits.Lister)
	return types.Bool(ok && list.Size() != types.IntZero)
}

// compile returns the program of an expression.
func (p *programs) compile(expression string) (cel.Program, error) {
	if len(expression) > 4*mostExpression { // As UTF-8 at most; it is a key of the cache.
		return nil, fmt.Errorf("the expression has more than %d characters", mostExpression)
	}
	if c, ok := p.kept.Get(expression); ok {
		c := c.(compiled) //nolint:forcetypeassert // Nothing else is ever put in.
		return c.program, c.err
	}
	program, err := p.compileNew(expression)
	p.keep(expression, compiled{program, err})
	return program, err
}

// keep makes room for an expression by dropping what was not used for longest.
func (p *programs) keep(expression string, c compiled) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.kept.Get(expression); ok {
		return
	}
	p.size += weigh(expression)
	p.kept.Add(expression, c)
	for p.size > mostKept && p.kept.Len() > 1 {
		p.kept.RemoveOldest()
	}
}

// weigh returns the length of an expression, times the copies that compiling it
// makes.
func weigh(expression string) int {
	return len(expression) << min(copies(expression), mostCopies)
}

func copies(expression string) int {
	return strings.Count(expression, "optMap") + strings.Count(expression, "optFlatMap")
}

func (p *programs) compileNew(expression string) (program cel.Program, err error) {
	defer func() {
		if r := recover(); r != nil {
			program, err = nil, errors.New("the expression cannot be compiled")
		}
	}()
	env, err := p.env()
	if err != nil {
		return nil, err
	}
	if copies(expression) > mostCopies {
		return nil, fmt.Errorf("the expression uses optMap and optFlatMap more than %d times", mostCopies)
	}
	if weigh(expression) > 4*mostExpression {
		return nil, fmt.Errorf("the expression has more than %d characters with what optMap and optFlatMap copy", 4*mostExpression)
	}
	parsed, issues := env.Parse(expression)
	if issues.Err() != nil {
		return nil, errors.New(clip(firstIssue(issues)))
	}
	if err := checkPatterns(parsed.NativeRep().Expr()); err != nil {
		return nil, errors.New(clip(err.Error()))
	}
	ast, issues := env.Check(parsed)
	if issues.Err() != nil {
		return nil, errors.New(clip(firstIssue(issues)))
	}
	program, err = env.Program(ast,
		cel.EvalOptions(cel.OptOptimize, cel.OptTrackCost),
		cel.CostLimit(costPerCall), cel.CostTracking(estimator{&library.CostEstimator{}}),
		cel.CostTrackerOptions(interpreter.PresenceTestHasCost(false)),
		cel.InterruptCheckFrequency(checkEvery),
		cel.CustomDecorator(guardCalls),
	)
	if err != nil {
		return nil, errors.New(clip(err.Error()))
	}
	return program, nil
}

// firstIssue is the first error of a compilation with its position in the
// expression.
func firstIssue(issues *cel.Issues) string {
	for _, e := range issues.Errors() {
		return fmt.Sprintf("%d:%d: %s", e.Location.Line(), e.Location.Column()+1, e.Message)
	}
	return issues.Err().Error()
}

// A budget is what the rules of one object may still cost.
type budget struct{ left uint64 }

// evaluate runs one expression. The errors errLate and errBudget are not the
// expression's.
func (p *programs) evaluate(ctx context.Context, expression string, variables map[string]any, b *budget) (out ref.Val, err error) {
	program, err := p.compile(expression)
	if err != nil {
		return nil, err
	}
	if b.left == 0 {
		return nil, errBudget
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			out, err = nil, errors.New("the expression does not fit the object")
		}
	}()
	out, details, err := program.ContextEval(ctx, variables)
	if details != nil && details.ActualCost() != nil {
		b.left -= min(b.left, *details.ActualCost())
	} else {
		b.left -= min(b.left, costPerCall) // It was cut short.
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, errLate
		}
		return nil, errors.New(clip(err.Error()))
	}
	return out, nil
}
