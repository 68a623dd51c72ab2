package ratelimit

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// Bounds of an expression: its text, and what evaluating it may cost, in the units of CEL, of which a comparison is one.
const (
	maxExpression = 4 << 10
	maxCost       = 10_000
)

// celVariables are what expressions can name: Envoy's names for what it knows too, then ours. Headers, query parameters
// and claims are maps of text; a nested claim has a dotted name: claims["address.country"].
var celVariables = map[string]*cel.Type{
	"request.path":     cel.StringType, // with the query
	"request.url_path": cel.StringType,
	"request.query":    cel.StringType, // the text after the ?
	"request.host":     cel.StringType,
	"request.method":   cel.StringType,
	"request.scheme":   cel.StringType,
	"request.headers":  cel.MapType(cel.StringType, cel.StringType),
	"source.address":   cel.StringType, // the address that By ip counts by, without a port
	"consumer":         cel.StringType, // where auth counts
	"claims":           cel.MapType(cel.StringType, cel.StringType),
	"route":            cel.StringType,
}

// celEnv is made with the first expression.
var celEnv = sync.OnceValues(func() (*cel.Env, error) {
	options := []cel.EnvOption{cel.ParserExpressionSizeLimit(maxExpression), cel.ParserRecursionLimit(64)}
	for _, name := range slices.Sorted(maps.Keys(celVariables)) {
		options = append(options, cel.Variable(name, celVariables[name]))
	}
	return cel.NewEnv(options...)
})

// ExpressionError tells what is wrong with a CEL expression, and where.
type ExpressionError struct {
	Line, Column int // in the expression, from 1
	Text         string
}

func (e *ExpressionError) Error() string { return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Text) }

// CheckCEL tells what is wrong with an expression that a limit is to count by: an [*ExpressionError], or nil. The value
// is a string, a number or a bool; where it can't be had, because a header is missing for example, it is empty.
func CheckCEL(expression string) error {
	_, err := compile(expression)
	return err
}

// program is a compiled expression.
type program struct{ cel.Program }

func compile(expression string) (*program, error) {
	env, err := celEnv()
	if err != nil {
		return nil, err
	}
	if len(expression) > maxExpression {
		return nil, &ExpressionError{1, 1, fmt.Sprintf("the expression has %d bytes; want at most %d", len(expression), maxExpression)}
	}
	tree, issues := env.Compile(expression)
	if problems := issues.Errors(); len(problems) > 0 {
		first := problems[0]
		return nil, &ExpressionError{max(1, first.Location.Line()), max(1, first.Location.Column()+1), first.Message}
	}
	switch tree.OutputType().Kind() {
	case types.StringKind, types.IntKind, types.UintKind, types.DoubleKind, types.BoolKind:
	default:
		return nil, &ExpressionError{1, 1, fmt.Sprintf("want a string, a number or a bool, got %s", tree.OutputType())}
	}
	p, err := env.Program(tree, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, &ExpressionError{1, 1, err.Error()}
	}
	return &program{p}, nil
}

// eval is the value for a request; empty where there is none.
func (p *program) eval(a *Attributes) string {
	v, _, err := p.Eval(variables{a})
	if err != nil {
		return ""
	}
	switch v := v.(type) {
	case types.String:
		return string(v)
	case types.Bool:
		return strconv.FormatBool(bool(v))
	case types.Int:
		return strconv.FormatInt(int64(v), 10)
	case types.Uint:
		return strconv.FormatUint(uint64(v), 10)
	case types.Double:
		return strconv.FormatFloat(float64(v), 'g', -1, 64)
	}
	return ""
}

// variables are a request's values of celVariables, made when they are asked for.
type variables struct{ a *Attributes }

// Parent is none.
func (variables) Parent() cel.Activation { return nil }

// ResolveName gives a variable.
func (v variables) ResolveName(name string) (any, bool) {
	path, query, _ := strings.Cut(v.a.Path, "?")
	switch name {
	case "request.path":
		return v.a.Path, true
	case "request.url_path":
		return path, true
	case "request.query":
		return query, true
	case "request.host":
		return v.a.Host, true
	case "request.method":
		return v.a.Method, true
	case "request.scheme":
		return v.a.Scheme, true
	case "request.headers":
		return texts{noTexts, func(key string) string { return v.a.header(strings.ToLower(key)) }}, true
	case "source.address":
		if !v.a.IP.IsValid() {
			return "", true
		}
		return v.a.IP.Unmap().WithZone("").String(), true
	case "consumer":
		return v.a.Consumer, true
	case "claims":
		return texts{noTexts, v.a.claim}, true
	case "route":
		return v.a.Route, true
	}
	return nil, false
}

// noTexts is what a map of texts is that can't be walked through.
var noTexts = types.NewStringStringMap(types.DefaultTypeAdapter, nil)

// texts is a map whose values are looked up one by one; an empty one isn't there.
type texts struct {
	traits.Mapper
	lookup func(key string) string
}

// Find looks a value up.
func (t texts) Find(key ref.Val) (ref.Val, bool) {
	k, ok := key.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(key), false
	}
	text := t.lookup(string(k))
	return types.String(text), text != ""
}

// Get is Find, or an error.
func (t texts) Get(key ref.Val) ref.Val {
	v, ok := t.Find(key)
	if !ok {
		return types.WrapErr(errNoKey)
	}
	return v
}

// Contains tells whether Find finds something.
func (t texts) Contains(key ref.Val) ref.Val {
	_, ok := t.Find(key)
	return types.Bool(ok)
}

var errNoKey = errors.New("no such key")
