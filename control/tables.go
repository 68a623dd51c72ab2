package control

import (
	"fmt"
	"maps"
	"slices"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/ratelimit"
)

// retained is how many older policies the companions know at most, where an Envoy never takes the newer ones.
const retained = 8

// older is what the companions still have to know of the policies before the next, the newest first: what each asked for
// and those after it do not. The rest of them is of no more use, and large.
func older(tables []*Compiled, next *Compiled) []*Compiled {
	var left []*Compiled
	for i, t := range tables {
		rest := t // of all but the first it is that already
		if i == 0 {
			rest = &Compiled{}
			rest.Auth.Rules, rest.Limits.Limits = beyond(t.Auth.Rules, next.Auth.Rules), beyond(t.Limits.Limits, next.Limits.Limits)
			rest.Auth.Secrets = t.Auth.Secrets
		}
		if len(rest.Auth.Rules)+len(rest.Limits.Limits) > 0 {
			left = append(left, rest)
		}
	}
	return first(left, retained)
}

// beyond is what an older list has that the one after it has not.
func beyond[T interface{ ID() string }](old, now []T) []T {
	for len(old) > 0 && len(now) > 0 && old[0].ID() == now[0].ID() {
		old, now = old[1:], now[1:]
	}
	for len(old) > 0 && len(now) > 0 && old[len(old)-1].ID() == now[len(now)-1].ID() {
		old, now = old[:len(old)-1], now[:len(now)-1]
	}
	there := make(map[string]bool, len(now))
	for _, one := range now {
		there[one.ID()] = true
	}
	return slices.DeleteFunc(slices.Clone(old), func(one T) bool { return there[one.ID()] })
}

// loadTables loads the companions with the newest table and what the older ones have beyond it. What auth refuses leaves
// both as they were; the limits that its rules ask for are there before any Envoy is told of the rules.
func (c *Controller) loadTables(tables []*Compiled) error {
	if c.o.Auth != nil {
		rules := union(tables, func(t *Compiled) []auth.Rule { return t.Auth.Rules })
		secrets := map[string][]byte{}
		for _, t := range slices.Backward(tables) { // the newest goes before the others
			maps.Copy(secrets, t.Auth.Secrets)
		}
		if err := c.o.Auth.Load(auth.Table{Rules: rules, Consumers: tables[0].Auth.Consumers, Secrets: secrets}); err != nil {
			return fmt.Errorf("load the auth rules: %w", err)
		}
	}
	if c.o.Limits != nil {
		c.o.Limits.Load(ratelimit.Table{
			Limits:  union(tables, func(t *Compiled) []ratelimit.Limit { return t.Limits.Limits }),
			Plans:   tables[0].Limits.Plans,
			Domains: tables[0].Limits.Domains,
		})
	}
	return nil
}

// union is what all tables hold, the newest last: of several versions with one name the last is current. Where the older
// ones hold nothing it is the very list of the newest.
func union[T any](tables []*Compiled, pick func(*Compiled) []T) []T {
	if !slices.ContainsFunc(tables[1:], func(t *Compiled) bool { return len(pick(t)) > 0 }) {
		return pick(tables[0])
	}
	var list []T
	for _, t := range slices.Backward(tables) {
		list = append(list, pick(t)...)
	}
	return list
}

// first is the first n of a list, or all where it has fewer.
func first[T any](list []T, n int) []T { return list[:min(n, len(list))] }
