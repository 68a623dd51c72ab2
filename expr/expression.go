package expr

import (
	"errors"
	"fmt"
	"strconv"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/interpreter"
)

// Error tells what is wrong with an expression, and where.
type Error struct {
	Line, Column int // in the expression, from 1
	Text         string
}

func (e *Error) Error() string { return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Text) }

// Value is a compiled expression that gives a text, a number or a bool.
type Value struct{ program cel.Program }

// CompileValue makes an expression ready; what is wrong with it is an [*Error].
func CompileValue(expression string) (*Value, error) {
	tree, err := values.compile(expression)
	if err != nil {
		return nil, err
	}
	switch tree.OutputType().Kind() {
	case types.StringKind, types.IntKind, types.UintKind, types.DoubleKind, types.BoolKind:
	default:
		return nil, &Error{1, 1, fmt.Sprintf("want a string, a number or a bool, got %s", tree.OutputType())}
	}
	p, err := values.program(tree)
	if err != nil {
		return nil, err
	}
	return &Value{p}, nil
}

// Text is the value for a request. It is empty where there is none, because a header is missing for example.
func (v *Value) Text(f *Facts) string {
	out, _, err := v.program.Eval(f)
	if err != nil {
		return ""
	}
	switch out := out.(type) {
	case types.String:
		return string(out)
	case types.Bool:
		return strconv.FormatBool(bool(out))
	case types.Int:
		return strconv.FormatInt(int64(out), 10)
	case types.Uint:
		return strconv.FormatUint(uint64(out), 10)
	case types.Double:
		return strconv.FormatFloat(float64(out), 'g', -1, 64)
	}
	return ""
}

// Condition is a compiled expression that holds or doesn't.
type Condition struct{ program cel.Program }

// CompileCondition makes an expression ready; what is wrong with it is an [*Error]. Beside what its types say, ranges of
// addresses and patterns are checked, and patterns have to be written out: one that a caller chose could take its time.
func CompileCondition(expression string) (*Condition, error) {
	tree, err := conditions.compile(expression)
	if err != nil {
		return nil, err
	}
	switch tree.OutputType().Kind() {
	case types.BoolKind:
	case types.DynKind:
		return nil, &Error{1, 1, "want a bool, got a value that may be anything: compare it, as in identity.admin == true"}
	default:
		return nil, &Error{1, 1, fmt.Sprintf("want a bool, got %s", tree.OutputType())}
	}
	if err := checkLiterals(tree); err != nil {
		return nil, err
	}
	p, err := conditions.program(tree)
	if err != nil {
		return nil, err
	}
	return &Condition{p}, nil
}

// Why a condition can't be told. The words of CEL are not passed on: they may hold what a caller sent.
var (
	ErrCost  = errors.New("the condition costs more than it may")
	ErrFacts = errors.New("the condition has no value: something that it needs is missing, or of another type")
)

// Holds tells whether the condition holds for a request. It doesn't where there is an error.
func (c *Condition) Holds(f *Facts) (bool, error) {
	out, _, err := c.program.Eval(f)
	if err == nil {
		return out == types.True, nil
	}
	if stopped, ok := errors.AsType[interpreter.EvalCancelledError](err); ok && stopped.Cause == interpreter.CostLimitExceeded {
		return false, ErrCost
	}
	return false, ErrFacts
}
