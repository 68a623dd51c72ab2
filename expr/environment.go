package expr

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
)

// Bounds of an expression: its text, how deep it may be nested, and what evaluating it may cost, in the units of CEL.
const (
	maxExpression = 4 << 10
	maxNesting    = 64
	maxCost       = 10_000
)

// requestVariables are what all expressions can name: Envoy's names for what it knows too, then ours. Headers and claims
// are maps of text; a nested claim has a dotted name: claims["address.country"].
var requestVariables = map[string]*cel.Type{
	"request.path":     cel.StringType, // with the query
	"request.url_path": cel.StringType,
	"request.query":    cel.StringType, // the text after the ?
	"request.host":     cel.StringType,
	"request.method":   cel.StringType,
	"request.scheme":   cel.StringType,
	"request.headers":  cel.MapType(cel.StringType, cel.StringType), // names in any case
	"source.address":   cel.StringType,                              // the client's, without a port
	"consumer":         cel.StringType,                              // where auth counts
	"claims":           cel.MapType(cel.StringType, cel.StringType),
	"route":            cel.StringType,
}

// callerVariables are what conditions can name besides.
var callerVariables = map[string]*cel.Type{
	"request.time":         cel.TimestampType,
	"request.query_params": cel.MapType(cel.StringType, cel.StringType), // decoded; one that stands twice has no value
	"identity":             cel.MapType(cel.StringType, cel.DynType),    // the claims as they are
	"identities":           cel.MapType(cel.StringType, cel.MapType(cel.StringType, cel.DynType)),
	"metadata":             cel.MapType(cel.StringType, cel.DynType),
	"plan":                 cel.StringType,
}

// environment is what expressions of one kind can name.
type environment func() (*cel.Env, error)

var (
	values     = newEnvironment(requestVariables)
	conditions = newEnvironment(joined(requestVariables, callerVariables), cel.CustomTypeAdapter(adapter{}), inCIDR)
)

// newEnvironment is made with its first expression.
func newEnvironment(variables map[string]*cel.Type, more ...cel.EnvOption) environment {
	return sync.OnceValues(func() (*cel.Env, error) {
		options := []cel.EnvOption{cel.ParserExpressionSizeLimit(maxExpression), cel.ParserRecursionLimit(maxNesting)}
		for _, name := range slices.Sorted(maps.Keys(variables)) {
			options = append(options, cel.Variable(name, variables[name]))
		}
		return cel.NewEnv(append(options, more...)...)
	})
}

func joined(all ...map[string]*cel.Type) map[string]*cel.Type {
	whole := map[string]*cel.Type{}
	for _, each := range all {
		maps.Copy(whole, each)
	}
	return whole
}

// compile reads an expression and checks its types.
func (e environment) compile(expression string) (*cel.Ast, error) {
	env, err := e()
	if err != nil {
		return nil, err
	}
	if len(expression) > maxExpression {
		return nil, &Error{1, 1, fmt.Sprintf("the expression has %d bytes; want at most %d", len(expression), maxExpression)}
	}
	tree, issues := env.Compile(expression)
	if problems := issues.Errors(); len(problems) > 0 {
		first := problems[0]
		line, column := max(1, first.Location.Line()), max(1, first.Location.Column()+1)
		return nil, &Error{line, column, cmp.Or(subtraction(expression, line, column), words(first.Message))}
	}
	return tree, nil
}

// words is what CEL's parser says, without the names of its own parts.
func words(message string) string {
	message = strings.TrimPrefix(message, "Syntax error: ")
	what := parserWords.FindStringSubmatch(message)
	switch {
	case what == nil:
		return message
	case what[1] == "<EOF>":
		return "the expression ends where a value or an operator is expected"
	}
	return fmt.Sprintf("%.60q can't stand here", what[1])
}

// parserWords is how the parser complains of what it has read, and what else it would take.
var parserWords = regexp.MustCompile(`(?s)^(?:token recognition error at: |mismatched input |extraneous input |no viable alternative at input )'(.*?)'(?: expecting .*)?$`)

// dashed is a member whose name has dashes, as headers' have.
var dashed = regexp.MustCompile(`([A-Za-z_]\w*(?:\.\w+)*)\.(\w+(?:-\w+)+)`)

// subtraction tells of a name with dashes that CEL reads as a subtraction, around the place of an error; else it is empty.
func subtraction(expression string, line, column int) string {
	lines := strings.Split(expression, "\n")
	if line > len(lines) {
		return ""
	}
	for _, at := range dashed.FindAllStringSubmatchIndex(lines[line-1], -1) {
		text := lines[line-1]
		before := utf8.RuneCountInString(text[:at[0]])
		if column > before && column <= before+at[1]-at[0] { // what it matches is ASCII
			object, name := text[at[2]:at[3]], text[at[4]:at[5]]
			return fmt.Sprintf("%s.%s is read as a subtraction: write %s[\"%s\"]", object, name, object, name)
		}
	}
	return ""
}

// program makes a checked expression ready.
func (e environment) program(tree *cel.Ast) (cel.Program, error) {
	env, err := e()
	if err != nil {
		return nil, err
	}
	p, err := env.Program(tree, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, &Error{1, 1, err.Error()}
	}
	return p, nil
}
