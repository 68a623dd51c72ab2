package expr

import (
	"maps"
	"slices"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// Uses is what an expression is made of; sorted, each once. It is shared, and not changed.
type Uses struct {
	Variables []string // "request.headers"
	Members   []string // of variables that are maps, where they are named: "metadata.account"
	Overloads []string // of functions and operators, as CEL names them: "add_string", "matches_string"
	Patterns  []string // the regular expressions of matches; the empty one stands for those that are made of values
	Loops     bool     // exists, all, map, filter: they go through the elements of something
}

// ValueUses tells what a [Value] is made of; the zero value for one that can't be compiled.
func ValueUses(expression string) Uses { return valueUses.of(expression, values.uses) }

// ConditionUses is ValueUses for a [Condition].
func ConditionUses(expression string) Uses { return conditionUses.of(expression, conditions.uses) }

var valueUses, conditionUses memo[Uses]

func (e environment) uses(expression string) Uses {
	tree, err := e.compile(expression)
	if err != nil {
		return Uses{}
	}
	checked := tree.NativeRep()
	var uses Uses
	variables, members, overloads, patterns := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, r := range checked.ReferenceMap() {
		if r.Name != "" {
			variables[r.Name] = true
		}
		for _, id := range r.OverloadIDs {
			overloads[id] = true
		}
	}
	ast.PreOrderVisit(checked.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if name := member(e); name != "" {
			members[name] = true
		}
		switch {
		case e.Kind() == ast.ComprehensionKind:
			uses.Loops = true
		case e.Kind() == ast.CallKind && e.AsCall().FunctionName() == "matches":
			args := e.AsCall().Args()
			text, _ := literal(args[len(args)-1])
			patterns[text] = true
		}
	}))
	uses.Variables, uses.Overloads = slices.Sorted(maps.Keys(variables)), slices.Sorted(maps.Keys(overloads))
	uses.Patterns, uses.Members = slices.Sorted(maps.Keys(patterns)), slices.Sorted(maps.Keys(members))
	return uses
}

// member names what is read of a variable: metadata.account, metadata["account"] or "account" in metadata; "" for all else.
func member(e ast.Expr) string {
	switch e.Kind() {
	case ast.SelectKind:
		if of := e.AsSelect().Operand(); of.Kind() == ast.IdentKind {
			return of.AsIdent() + "." + e.AsSelect().FieldName()
		}
	case ast.CallKind:
		args := e.AsCall().Args()
		if len(args) != 2 {
			return ""
		}
		of, key := args[0], args[1]
		switch e.AsCall().FunctionName() {
		case operators.In:
			of, key = key, of
		case operators.Index:
		default:
			return ""
		}
		if name, ok := literal(key); ok && of.Kind() == ast.IdentKind {
			return of.AsIdent() + "." + name
		}
	}
	return ""
}
