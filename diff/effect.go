package diff

import (
	"cmp"
	"maps"
	"path"
	"slices"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// Effect is what the Envoys of a gateway have to do.
type Effect struct {
	Gateway string     `json:"gateway"`
	Kind    string     `json:"kind"`   // listener, routeTable, host (of routeTables: perHost), cluster, endpoints, secret, or another type of Envoy's
	Name    string     `json:"name"`   // of the resource
	Change  string     `json:"change"` // added, removed or changed
	Drains  bool       `json:"drains,omitempty"`
	Warms   bool       `json:"warms,omitempty"`
	At      policy.Pos `json:"at"`
}

// effects compares what Envoys are served.
func effects(before, after Policy) []Effect {
	all := []Effect{}
	names := slices.Concat(slices.Collect(maps.Keys(before.Resources)), slices.Collect(maps.Keys(after.Resources)))
	slices.Sort(names)
	for _, gateway := range slices.Compact(names) {
		var here []Effect
		for _, c := range envoy.Changes(before.Resources[gateway], after.Resources[gateway]) {
			here = append(here, effect(gateway, c))
		}
		here = slices.DeleteFunc(here, func(e Effect) bool { return e.Kind == "endpoints" && e.Change != Changed }) // as their cluster does
		slices.SortStableFunc(here, func(a, b Effect) int { return cmp.Compare(rank(a.Kind), rank(b.Kind)) })
		all = append(all, here...)
	}
	return all
}

func effect(gateway string, c envoy.ResourceChange) Effect {
	r := c.Either()
	e := Effect{Gateway: gateway, Kind: kindOf(r.Type), Name: r.Name, Change: Changed, Drains: c.Drains(), At: r.Pos}
	switch {
	case c.Before == nil:
		e.Change = Added
	case c.After == nil:
		e.Change = Removed
	}
	e.Warms = e.Kind == "cluster" && c.After != nil
	return e
}

var kinds = []struct{ url, name string }{
	{resource.ListenerType, "listener"},
	{resource.RouteType, "routeTable"},
	{resource.ScopedRouteType, "host"},
	{resource.ClusterType, "cluster"},
	{resource.EndpointType, "endpoints"},
	{resource.SecretType, "secret"},
}

func kindOf(url string) string {
	for _, k := range kinds {
		if k.url == url {
			return k.name
		}
	}
	return path.Base(url)
}

func rank(name string) int {
	for i, k := range kinds {
		if k.name == name {
			return i
		}
	}
	return len(kinds)
}

// means says what an effect is to people who are connected.
func (e Effect) means() string {
	switch {
	case e.Kind == "listener" && e.Change == Added:
		return "opens"
	case e.Kind == "listener" && e.Change == Removed:
		return "closes: its connections drain"
	case e.Kind == "listener":
		return "changes: its connections drain"
	case e.Kind == "cluster" && e.Change == Added:
		return "comes: it warms before routes lead to it"
	case e.Kind == "cluster" && e.Change == Changed:
		return "changes: it warms before it takes the place of the old one, whose connections drain"
	case e.Change == Added:
		return "comes"
	case e.Change == Removed:
		return "goes, once nothing leads to it"
	case e.Kind == "routeTable" || e.Kind == "host":
		return "changes at once, without a drain"
	case e.Kind == "endpoints":
		return "change at once; connections to those that stay go on"
	case e.Kind == "secret":
		return "is replaced: connections go on, new ones have it"
	}
	return "changes"
}
