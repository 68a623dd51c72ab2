package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/legation/legation/expr"
)

// Authorization is what a layer asks of callers that are known: all of it has to hold. What is wrong with one tells
// [Authorization.Flaws].
type Authorization struct {
	Name   string   `json:"name"`             // the layer that asks, "route/orders"; told in dynamic metadata
	Scopes []string `json:"scopes,omitempty"` // all of them; of the claim scope (a text, parted by spaces) or scp (that, or a list)
	// Claims are what claims have to be, by dotted path: one of these texts, or a list that holds one. Of numbers and bools
	// the text is that of their JSON. Case counts.
	Claims   map[string][]string `json:"claims,omitempty"`
	Rules    []AuthRule          `json:"rules,omitempty"`
	Metadata []Metadata          `json:"metadata,omitempty"` // rules of further layers may name it too
	Deny     *Reply              `json:"deny,omitempty"`     // in place of our 403
}

// AuthRule is a condition that requests have to meet.
type AuthRule struct {
	Expression string `json:"expression"`     // CEL, of type bool; see [expr.Condition]
	Name       string `json:"name,omitempty"` // told in dynamic metadata
	Deny       *Reply `json:"deny,omitempty"` // in place of that of the Authorization
}

// ExpressionError tells what is wrong with an expression, and where.
type ExpressionError = expr.Error

// RuleUses tells what the expression of a rule is made of; the zero value for one that can't be compiled.
func RuleUses(expression string) expr.Uses { return expr.ConditionUses(expression) }

// RuleCost is about what it takes to check a rule, in characters of a plain one.
func RuleCost(expression string) int { return expr.Cost(expression) }

// authorization is a compiled [Authorization]; immutable.
type authorization struct {
	scopes  []string
	noScope *veto
	claims  []claimDemand
	rules   []ruleDemand
}

type claimDemand struct {
	path    string
	any     []string
	refused *veto
}

type ruleDemand struct {
	condition *expr.Condition
	refused   *veto
	broken    *veto // it could not be told whether the condition holds
}

// newAuthorization compiles a; the error tells all of its flaws.
func newAuthorization(a Authorization) (*authorization, error) {
	var flaws []error
	for _, f := range a.Flaws() {
		flaws = append(flaws, f)
	}
	if len(flaws) > 0 {
		return nil, fmt.Errorf("authorization %s: %w", a.Name, errors.Join(flaws...))
	}
	ready := &authorization{
		scopes:  slices.Clone(a.Scopes),
		noScope: newVeto(a.Name, "", "insufficient_scope", a.Deny),
	}
	ready.noScope.challenge = `, error="insufficient_scope", scope="` + strings.Join(a.Scopes, " ") + `"`
	for _, path := range slices.Sorted(maps.Keys(a.Claims)) {
		ready.claims = append(ready.claims, claimDemand{path, slices.Clone(a.Claims[path]), newVeto(a.Name, path, "claim", a.Deny)})
	}
	for _, r := range a.Rules {
		condition, err := expr.CompileCondition(r.Expression)
		if err != nil {
			return nil, err
		}
		reply := r.Deny
		if reply == nil {
			reply = a.Deny
		}
		ready.rules = append(ready.rules, ruleDemand{
			condition: condition,
			refused:   newVeto(a.Name, r.Name, "rule", reply),
			broken:    newVeto(a.Name, r.Name, "rule_error", reply),
		})
	}
	return ready, nil
}

// screen judges by what the caller has shown alone: scopes and claims. It is nil for a caller who has them.
func (a *authorization) screen(c claims) *veto {
	for _, scope := range a.scopes {
		if !c.hasScope(scope) {
			return a.noScope
		}
	}
	for _, d := range a.claims {
		if !c.holds(d.path, d.any) {
			return d.refused
		}
	}
	return nil
}

// judge tells why a request may not pass, and nil for one that may. What can't be told doesn't hold.
func (a *authorization) judge(f *expr.Facts) *veto {
	if v := a.screen(f.Identity); v != nil {
		return v
	}
	for i := range a.rules {
		switch holds, err := a.rules[i].condition.Holds(f); {
		case err != nil:
			return a.rules[i].broken
		case !holds:
			return a.rules[i].refused
		}
	}
	return nil
}

// hasScope tells whether a scope was granted. What is neither text nor list grants none.
func (c claims) hasScope(scope string) bool {
	if text, ok := c["scope"].(string); ok && listed(text, scope) {
		return true
	}
	switch scp := c["scp"].(type) {
	case string:
		return listed(scp, scope)
	case []any:
		return slices.ContainsFunc(scp, func(each any) bool { return each == scope })
	}
	return false
}

// listed tells whether a text that spaces part has the word.
func listed(text, word string) bool {
	for each := range strings.SplitSeq(text, " ") {
		if each == word {
			return true
		}
	}
	return false
}

// holds tells whether a claim is one of some texts, or a list with one of them.
func (c claims) holds(path string, texts []string) bool {
	switch v := c.find(path).(type) {
	case []any:
		return slices.ContainsFunc(v, func(each any) bool { return isOneOf(each, texts) })
	default:
		return isOneOf(v, texts)
	}
}

// isOneOf compares what JSON holds, but for null, lists and objects, with texts.
func isOneOf(v any, texts []string) bool {
	text, ok := exactText(v)
	return ok && slices.Contains(texts, text)
}

// exactText is a text itself, or the JSON of a number or a bool.
func exactText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}
