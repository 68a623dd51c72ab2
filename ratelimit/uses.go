package ratelimit

import (
	"maps"
	"slices"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
)

// Uses is what an expression is made of, for those who have it evaluated elsewhere than here; sorted, each once.
type Uses struct {
	Variables []string // "request.headers"
	Overloads []string // of functions and operators, as CEL names them: "add_string", "matches_string"
	Patterns  []string // the regular expressions of matches; the empty one stands for those that are made of values
	Loops     bool     // exists, all, map, filter: they go through the elements of something
}

// CELUses tells what an expression is made of; the zero value for one that [CheckCEL] refuses.
func CELUses(expression string) Uses {
	env, err := celEnv()
	if err != nil {
		return Uses{}
	}
	tree, issues := env.Compile(expression)
	if issues.Err() != nil {
		return Uses{}
	}
	checked := tree.NativeRep()
	var uses Uses
	variables, overloads, patterns := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, r := range checked.ReferenceMap() {
		if r.Name != "" {
			variables[r.Name] = true
		}
		for _, id := range r.OverloadIDs {
			overloads[id] = true
		}
	}
	ast.PreOrderVisit(checked.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch {
		case e.Kind() == ast.ComprehensionKind:
			uses.Loops = true
		case e.Kind() == ast.CallKind && e.AsCall().FunctionName() == "matches":
			patterns[pattern(e.AsCall())] = true
		}
	}))
	uses.Variables, uses.Overloads = slices.Sorted(maps.Keys(variables)), slices.Sorted(maps.Keys(overloads))
	uses.Patterns = slices.Sorted(maps.Keys(patterns))
	return uses
}

// pattern is the expression that matches looks for: its last argument.
func pattern(call ast.CallExpr) string {
	last := call.Args()[len(call.Args())-1]
	if last.Kind() != ast.LiteralKind {
		return ""
	}
	text, _ := last.AsLiteral().(types.String)
	return string(text)
}
