package observe_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	workv1 "open-cluster-management.io/api/work/v1"

	"github.com/fleetcast-io/fleetcast/agents/observe"
)

func cel(expressions ...string) workv1.ConditionRule {
	return workv1.ConditionRule{Condition: "Met", Type: workv1.CelConditionExpressionsType, CelExpressions: expressions}
}

func evaluate(t testing.TB, text string, rule workv1.ConditionRule) metav1.Condition {
	t.Helper()
	got := newObserver(t, observe.Options{}).Observe(t.Context(), object(t, text), observe.Rules{Conditions: []workv1.ConditionRule{rule}})
	return find(t, got, rule.Condition)
}

func TestCELRules(t *testing.T) {
	for _, c := range []struct {
		reason      string
		expressions []string
		status      metav1.ConditionStatus
		why         string
	}{
		{"true", []string{"object.status.count == 3"}, "True", workv1.ConditionRuleEvaluated},
		{"false", []string{"object.status.count == 4"}, "False", workv1.ConditionRuleEvaluated},
		{"all are ANDed", []string{"true", "object.status.ok", "false"}, "False", workv1.ConditionRuleEvaluated},
		{"all are true", []string{"true", "object.status.ok"}, "True", workv1.ConditionRuleEvaluated},
		{"numbers of two types compare", []string{"object.status.ratio < 1"}, "True", workv1.ConditionRuleEvaluated},
		{"hasConditions of a status without", []string{"!hasConditions(object.status)"}, "True", workv1.ConditionRuleEvaluated},
		{"strings", []string{"object.status.text.upperAscii() == 'HELLO'"}, "True", workv1.ConditionRuleEvaluated},
		{"strings: the guarded ones work as ever", []string{
			"'a-b'.replace('-', '+') == 'a+b' && ['a','b'].join() == 'ab' && ['a','b'].join(',') == 'a,b'",
			"'%s is %.2f'.format(['x', 1.5]) == 'x is 1.50' && 'a,b'.split(',') == ['a','b'] && 'a,b,c'.split(',', 2) == ['a','b,c'] && 'aXbX'.replace('X', '', 1) == 'abX'",
		}, "True", workv1.ConditionRuleEvaluated},
		{"lists", []string{"object.status.ports.sum() == 523 && object.status.ports.isSorted()"}, "True", workv1.ConditionRuleEvaluated},
		{"sums of lists", []string{"object.status.ports + [1] == [80, 443, 1] && size([1] + [2] + [3]) == 3"}, "True", workv1.ConditionRuleEvaluated},
		{"regular expressions", []string{"'abc 123'.find('[0-9]+') == '123' && 'a1b2'.findAll('[0-9]') == ['1','2'] && 'abc'.matches('^[a-c]{3}$') && matches('abc', 'b') && !'abc'.matches('^b') && 'abc'.matches(object.status.text.substring(0, 0))"}, "True", workv1.ConditionRuleEvaluated},
		{"equality and membership", []string{"[1, 2] == [1, 2] && [1] != [2] && {'a': 1} == {'a': 1} && 2 in [1, 2] && 'a' in {'a': 1} && !(object in [1])", "object.status.count in object.status.ports || object.status == object.status"}, "True", workv1.ConditionRuleEvaluated},
		{"URLs", []string{"url('https://example.com/x').getHost() == 'example.com'"}, "True", workv1.ConditionRuleEvaluated},
		{"quantities", []string{"quantity('1Gi').isGreaterThan(quantity('1M')) && isQuantity('1e3') && isQuantity('1E-3') && isQuantity('2Ei') && isQuantity('2E') && !isQuantity('one')"}, "True", workv1.ConditionRuleEvaluated},
		{"IPs and CIDRs", []string{"ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.2.3')"}, "True", workv1.ConditionRuleEvaluated},
		{"formats", []string{"!format.dns1123Label().validate('abc').hasValue()"}, "True", workv1.ConditionRuleEvaluated},
		{"semantic versions", []string{"semver('1.2.3').isLessThan(semver('1.10.0'))"}, "True", workv1.ConditionRuleEvaluated},
		{"optional fields", []string{"object.?status.?absent.orValue('none') == 'none'"}, "True", workv1.ConditionRuleEvaluated},
		{"a missing field is the expression's fault", []string{"object.status.absent == 1"}, "False", workv1.ConditionRuleExpressionError},
		{"no expression at all is not CEL", []string{"object.status ="}, "False", workv1.ConditionRuleExpressionError},
		{"a type that is no boolean", []string{"object.status.count"}, "False", workv1.ConditionRuleExpressionError},
		{"an unknown variable", []string{"subject == 1"}, "False", workv1.ConditionRuleExpressionError},
		{"result is for messages only", []string{"result"}, "False", workv1.ConditionRuleExpressionError},
		{"there is no authorizer", []string{"authorizer.path('/healthz').check('get').allowed()"}, "False", workv1.ConditionRuleExpressionError},
		{"a rule without expressions", nil, "Unknown", workv1.ConditionRuleInvalid},
		{"an expression that is too long", []string{"true || " + strings.Repeat("false || ", 5000) + "true"}, "False", workv1.ConditionRuleExpressionError},
	} {
		t.Run(c.reason, func(t *testing.T) {
			got := evaluate(t, sample, cel(c.expressions...))
			if got.Status != c.status || got.Reason != c.why {
				t.Errorf("got %s %s (%s), want %s %s", got.Status, got.Reason, got.Message, c.status, c.why)
			}
			if got.Message == "" {
				t.Error("the condition has no message")
			}
		})
	}
}

func TestMessages(t *testing.T) {
	for _, c := range []struct {
		reason                   string
		expression, text, making string
		want                     string
	}{
		{"without any", "true", "", "", "The expressions of the rule are true"},
		{"fixed", "true", "fixed text", "", "fixed text"},
		{"made of the object", "true", "fixed text", "'count ' + string(object.status.count)", "count 3"},
		{"made of the result", "false", "", "result ? 'good' : 'bad'", "bad"},
		{"one that makes nothing leaves the fixed one", "true", "fixed text", "''", "fixed text"},
		{"a broken one says so, and the rule holds", "true", "fixed text", "object.absent", "messageExpression: no such key: absent"},
		{"one that makes no text", "true", "", "1", "messageExpression: the expression is of type int, not string"},
		{"one that makes too much is cut", "true", "", "'" + strings.Repeat("x", 2000) + "'", strings.Repeat("x", 1024) + "..."},
	} {
		t.Run(c.reason, func(t *testing.T) {
			rule := cel(c.expression)
			rule.Message, rule.MessageExpression = c.text, c.making
			got := evaluate(t, sample, rule)
			if got.Message != c.want || got.Reason != workv1.ConditionRuleEvaluated {
				t.Errorf("got %s %q, want %q", got.Reason, got.Message, c.want)
			}
		})
	}
}

func TestWellKnownConditions(t *testing.T) {
	rule := workv1.ConditionRule{Condition: workv1.ManifestComplete, Type: workv1.WellKnownConditionsType}
	job := `{"apiVersion":"batch/v1","kind":"Job","status":{"conditions":[{"type":"%s","status":"%s"}]}}`
	pod := `{"apiVersion":"v1","kind":"Pod","status":{"phase":"%s"}}`
	for _, c := range []struct {
		reason, object string
		status         metav1.ConditionStatus
	}{
		{"a finished Job", fmt.Sprintf(job, "Complete", "True"), "True"},
		{"a failed Job is finished as well", fmt.Sprintf(job, "Failed", "True"), "True"},
		{"a condition that is not true", fmt.Sprintf(job, "Complete", "False"), "False"},
		{"a suspended Job", fmt.Sprintf(job, "Suspended", "True"), "False"},
		{"a Job without a status", `{"apiVersion":"batch/v1","kind":"Job"}`, "False"},
		{"a Pod that succeeded", fmt.Sprintf(pod, "Succeeded"), "True"},
		{"a Pod that failed", fmt.Sprintf(pod, "Failed"), "True"},
		{"a Pod that runs", fmt.Sprintf(pod, "Running"), "False"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			got := evaluate(t, c.object, rule)
			if got.Status != c.status || got.Reason != workv1.ConditionRuleEvaluated {
				t.Errorf("got %s %s: %s", got.Status, got.Reason, got.Message)
			}
		})
	}
	t.Run("the message can be another", func(t *testing.T) {
		named := rule
		named.MessageExpression = "'phase ' + object.status.phase"
		if got := evaluate(t, fmt.Sprintf(pod, "Failed"), named); got.Message != "phase Failed" {
			t.Errorf("got %q", got.Message)
		}
	})
	t.Run("what is not known is left out", func(t *testing.T) {
		o := newObserver(t, observe.Options{})
		healthy := rule
		healthy.Condition = "Healthy"
		for _, r := range []struct {
			object string
			rule   workv1.ConditionRule
		}{{`{"apiVersion":"v1","kind":"ConfigMap"}`, rule}, {fmt.Sprintf(pod, "Failed"), healthy}} {
			got := o.Observe(t.Context(), object(t, r.object), observe.Rules{Conditions: []workv1.ConditionRule{r.rule}})
			for _, c := range got.Conditions {
				if c.Type == r.rule.Condition {
					t.Errorf("there is a condition %v", c)
				}
			}
		}
	})
}

func TestUnknownRuleType(t *testing.T) {
	rule := workv1.ConditionRule{Condition: "Met", Type: "Oracle"}
	if got := evaluate(t, sample, rule); got.Status != metav1.ConditionUnknown || got.Reason != workv1.ConditionRuleInvalid {
		t.Errorf("got %v", got)
	}
}

func TestRulesAreIndependent(t *testing.T) {
	broken, met, again := cel("object."), cel("true"), cel("false")
	broken.Condition = "Broken"
	got := newObserver(t, observe.Options{}).Observe(t.Context(), object(t, sample),
		observe.Rules{Conditions: []workv1.ConditionRule{broken, met, again}})
	if c := find(t, got, "Met"); c.Status != metav1.ConditionTrue {
		t.Errorf("beside a broken rule, and before another of its name: %v", c)
	}
	if c := find(t, got, "Broken"); c.Reason != workv1.ConditionRuleExpressionError {
		t.Errorf("got %v", c)
	}
}

// What a stranger's expression may cost is bounded, and the error says so.
func TestCostsAreBounded(t *testing.T) {
	var big strings.Builder
	big.WriteString(`{"apiVersion":"v1","kind":"Thing","text":"` + strings.Repeat("a", 1<<20) + `","tiny":"1e-99999999","word":"a","pattern":"(a?){1000}(a?){1000}","row":"(a?){600}b|.*","words":"` + strings.Repeat("a,", 5000) + `","list":[0`)
	for range 20_000 {
		big.WriteString(",1")
	}
	big.WriteString("]}")
	live := object(t, big.String())
	for _, c := range []struct{ reason, expression string }{
		{"loops in loops", "object.list.all(a, object.list.all(b, object.list.all(c, a + b + c >= 0)))"},
		{"a text that grows by replacing nothing", "object.text.replace('', object.text).size() > 0"},
		{"a text that is joined with itself", "object.list.map(x, object.text).join().size() > 0"},
		{"a separator that is repeated", "object.list.map(x, '').join(object.text).size() > 0"},
		{"a text that is formatted often", "'%s'.format([object.list.map(x, object.text)]).size() > 0"},
		{"a number of great precision", "'%.999999999f'.format([1.0]).size() > 0"},
		{"a text that is split to pieces", "object.text.split('').size() > 0"},
		{"a text that is searched everywhere", "object.text.findAll('.').size() > 0"},
		{"a quantity of a hundred million digits", "isQuantity(object.tiny)"},
		{"one that is converted", "quantity(object.tiny).isInteger()"},
		{"a quantity whose exponent is no number that a machine knows", "isQuantity('1E' + '9999999999999999999999')"},
		{"a long quantity", "isQuantity(object.text)"},
		{"a long text that is searched for a long one", "object.text.indexOf(object.text.substring(0, 500000) + 'b') >= 0"},
		{"one that is searched from its end", "object.text.lastIndexOf(object.text.substring(0, 500000) + 'b') >= 0"},
		{"a long text that is held against a format", "format.dns1123Label().validate(object.text).hasValue()"},
		{"a long URL", "isURL(object.text)"},
		{"a long version", "isSemver(object.text)"},
		{"long lists that are compared as sets", "sets.intersects(object.words.split(','), object.words.split(',').map(x, x + 'b'))"},
		{"regular expressions that stand for millions", "object.word.matches('" + strings.Repeat("a{1000}", 140) + "')"},
		{"ones that are long", "object.word.matches('" + strings.Repeat("a", 1100) + "')"},
		{"ones that only together are large", "true" + strings.Repeat(" && object.word.matches('a{900}')", 3)},
		{"one that the object makes", "object.word.matches(object.pattern)"},
		{"one that the object makes, and that is found", "object.word.find(object.pattern) == ''"},
		{"one that the object makes, and that is found often", "object.word.findAll(object.pattern) == []"},
		{"one that many texts are held against", "object.text.matches('^a*$')"},
		{"a long text that is searched once", "object.text.find('b') == ''"},
		{"searches that each go to the end", "object.text.substring(0, 4000).findAll('a*b|.').size() > 0"},
		{"nested lists that double and are compared", "[[1]]" + strings.Repeat(".map(x, [x, x])", 60) + ".all(x, x == x)"},
		{"nested lists that double and are not equal", "[[1]]" + strings.Repeat(".map(x, [x, x])", 60) + ".all(x, !(x != x))"},
		{"nested lists that double and are looked for", "[[1]]" + strings.Repeat(".map(x, [x, x])", 60) + ".all(x, x in [x])"},
		{"nested lists that double and are looked for by place", "[[1]]" + strings.Repeat(".map(x, [x, x])", 60) + ".all(x, [x].indexOf(x) == 0)"},
		{"a long row of searches, none of which is too dear", strings.Repeat("object.text.substring(0, 4000).matches(object.row) && ", 60) + "true"},
		{"an expression that doubles as it is read", "object.?word" + strings.Repeat(".optMap(x, x)", 60) + ".hasValue()"},
		{"a list that is copied as it is read", "optional.of([" + strings.Repeat("1, ", 1000) + "1])" + strings.Repeat(".optMap(x, x)", 8) + ".hasValue()"},
		{"a list that doubles", "[[1]]" + strings.Repeat(".map(x, x + x)", 60) + "[0].sum() > 0"},
		{"a text that doubles", "['a']" + strings.Repeat(".map(x, x + x)", 60) + "[0].size() > 0"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			got := newObserver(t, observe.Options{}).Observe(t.Context(), live, observe.Rules{Conditions: []workv1.ConditionRule{cel(c.expression)}})
			met := find(t, got, "Met")
			if met.Reason == workv1.ConditionRuleEvaluated {
				t.Fatalf("it was evaluated: %v", met)
			}
			if len(met.Message) > 1100 || strings.Contains(met.Message, "aaaaaaaa") {
				t.Errorf("the message quotes the object: %.200s", met.Message)
			}
			if !strings.Contains(met.Message, "cost") && !strings.Contains(met.Message, "more than") &&
				!strings.Contains(met.Message, "at most") && !strings.Contains(met.Message, "longer than") {
				t.Errorf("the message names no limit: %s", met.Message)
			}
		})
	}
}

func TestBudgetOfAnObject(t *testing.T) {
	var rules []workv1.ConditionRule
	for i := range 40 {
		// Each stays below the limit of one evaluation, all together do not below
		// that of an object.
		rule := cel(fmt.Sprintf("object.list.all(a, object.list.all(b, a + b >= 0)) && %d >= 0", i))
		rule.Condition = fmt.Sprintf("Met%d", i)
		rules = append(rules, rule)
	}
	live := object(t, `{"apiVersion":"v1","kind":"Thing","list":[`+strings.Repeat("1,", 250)+`1]}`)
	got := newObserver(t, observe.Options{}).Observe(t.Context(), live, observe.Rules{Conditions: rules})
	if first := find(t, got, "Met0"); first.Reason == workv1.ConditionRuleExpressionError {
		t.Errorf("the first: %v", first)
	}
	last := find(t, got, "Met39")
	if last.Status != metav1.ConditionUnknown || last.Reason != workv1.ConditionRuleInternalError {
		t.Errorf("the last: %v, want it refused over the budget", last)
	}
	if !got.Transient {
		t.Error("a condition that could not be evaluated should be tried again")
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		reason string
		rules  observe.Rules
		want   string
	}{
		{"a usual rule", observe.Rules{Conditions: []workv1.ConditionRule{cel("true")}}, ""},
		{"a name with a prefix", observe.Rules{Conditions: []workv1.ConditionRule{{Condition: "example.com/Met", Type: "CEL"}}}, ""},
		{"a name that no status can hold", observe.Rules{Conditions: []workv1.ConditionRule{{Condition: "not a name", Type: "CEL"}}}, "no name"},
		{"no name", observe.Rules{Conditions: []workv1.ConditionRule{{Type: "CEL"}}}, "no name"},
		{"what confirms a deletion", observe.Rules{Conditions: []workv1.ConditionRule{{Condition: "Deleted", Type: "CEL"}}}, "cannot be set"},
		{"what the agent says of its own work", observe.Rules{Conditions: []workv1.ConditionRule{{Condition: "Applied", Type: "CEL"}}}, "cannot be set"},
		{"too many", observe.Rules{Conditions: make([]workv1.ConditionRule, 51)}, "at most 50"},
		{"too many expressions", observe.Rules{Conditions: []workv1.ConditionRule{cel(strings.Split(strings.Repeat("true ", 101), " ")...)}}, "more than 100"},
		{"a path without a name", observe.Rules{Feedback: paths("", ".x")}, "no name"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			got := ""
			if err := observe.Check(c.rules); err != nil {
				got = err.Error()
			}
			if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestAbsentAndUnread(t *testing.T) {
	rules := observe.Rules{Feedback: paths("Count", ".status.count"), Conditions: []workv1.ConditionRule{cel("true")}}
	absent := newObserver(t, observe.Options{}).Observe(t.Context(), nil, rules)
	kinds := func(r observe.Result) (out []string) {
		for _, c := range r.Conditions {
			out = append(out, c.Type+" "+string(c.Status)+" "+c.Reason)
		}
		return out
	}
	want := []string{"StatusFeedbackSynced False StatusFeedbackSyncFailed", "Ready False NotFound", "Met Unknown ConditionRuleInternalError"}
	if diff := cmp.Diff(want, kinds(absent)); diff != "" || len(absent.Values) > 0 {
		t.Errorf("of an object that does not exist (-want +got):\n%s", diff)
	}
	was := workv1.ManifestCondition{
		StatusFeedbacks: workv1.StatusFeedbackResult{Values: []workv1.FeedbackValue{{Name: "Count"}}},
		Conditions: []metav1.Condition{
			{Type: "Met", Status: "True", Reason: workv1.ConditionRuleEvaluated, ObservedGeneration: 4},
			{Type: "Gone", Status: "True", Reason: workv1.ConditionRuleEvaluated},
		},
	}
	unread := observe.Unread(rules, was)
	want = []string{"StatusFeedbackSynced False StatusFeedbackSyncFailed", "Ready Unknown " + observe.ReasonUnknown, "Met True ConditionRuleEvaluated"}
	if diff := cmp.Diff(want, kinds(unread)); diff != "" {
		t.Errorf("of an object that was not read (-want +got):\n%s", diff)
	}
	if len(unread.Values) != 1 {
		t.Error("values are lost when an object cannot be read")
	}
}
