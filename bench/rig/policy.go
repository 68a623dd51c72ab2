package rig

import (
	"fmt"
	"strings"
)

// Policy is what legation is to serve: limits and rules of routes whose requests never come. Envoys that others
// configure, and load generators, ask for them by name.
type Policy struct {
	Auth   string // the section auth, in YAML's flow style; empty: none
	Routes []Route
}

// Route has one limit, or a rule, or both.
type Route struct {
	Name      string
	RateLimit string // in YAML's flow style; empty: none
	Auth      string // likewise
}

// Limit is the name of the route's limit, for the descriptor's entry "limit".
func (r Route) Limit() string { return "route/" + r.Name + "/0" }

// Rule is the name of the route's rule, for the context extension "legation.rule".
func (r Route) Rule() string { return "edge/" + r.Name }

// String is the policy's text.
func (p Policy) String() string {
	var b strings.Builder
	b.WriteString("gateways: {edge: {listeners: {http: {port: 10000, address: 127.0.0.1}}}}\n")
	b.WriteString("services: {app: {endpoints: [\"127.0.0.1:9\"]}}\n")
	if p.Auth != "" {
		fmt.Fprintf(&b, "auth: %s\n", p.Auth)
	}
	b.WriteString("routes:\n")
	for _, r := range p.Routes {
		fmt.Fprintf(&b, "  %s:\n    hostnames: [%[1]s.test]\n    match: {path: /}\n    backends: {app: 1}\n", r.Name)
		if r.RateLimit != "" {
			fmt.Fprintf(&b, "    rateLimit: %s\n", r.RateLimit)
		}
		if r.Auth != "" {
			fmt.Fprintf(&b, "    auth: %s\n", r.Auth)
		}
	}
	return b.String()
}
