package ratelimit

import "github.com/legation/legation/expr"

// ExpressionError tells what is wrong with a CEL expression, and where.
type ExpressionError = expr.Error

// CheckCEL tells what is wrong with an expression that a limit is to count by: an [*ExpressionError], or nil. The value
// is a string, a number or a bool; where it can't be had, because a header is missing for example, it is empty.
func CheckCEL(expression string) error { return expr.CheckValue(expression) }

// CELCost is about what it takes to check an expression, in characters of a plain one.
func CELCost(expression string) int { return expr.Cost(expression) }

// Uses is what an expression is made of, for those who have it evaluated elsewhere than here.
type Uses = expr.Uses

// CELUses tells what an expression is made of; the zero value for one that [CheckCEL] refuses.
func CELUses(expression string) Uses { return expr.ValueUses(expression) }

// expression is the value of an expression for the request.
func (a *Attributes) expression(v *expr.Value) string {
	return v.Text(&expr.Facts{
		Method: a.Method, Host: a.Host, Path: a.Path, Scheme: a.Scheme, IP: a.IP, Header: a.Header,
		Consumer: a.Consumer, Claim: a.Claim, Route: a.Route,
	})
}
