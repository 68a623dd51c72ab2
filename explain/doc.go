// Package explain tells which route answers a request, why that one, and what happens on its way. It decides by the very
// resources that Envoys are served, in the way that Envoy does: what explain says of a policy is true whatever the policy's
// own rules are. The command line calls it.
//
// door.go finds the listener, normal.go and path.go do what Envoy does to a request before it looks for a route, table.go
// and condition.go find the route, refuse.go knows what is refused at the door, near.go tells why other routes do not
// answer, facts.go what happens on the way, text.go writes it for people.
package explain
