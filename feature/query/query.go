// Package query changes the query parameters of what the backend gets: the key query. [envoy.Translate] calls it.
package query

import (
	_ "embed"
	"maps"
	"net/url"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

//go:embed doc.md
var doc string

// script does the work. Envoy's own query mutations (header_mutation) unescape every parameter of the client and never
// escape it again: ?a=%26b=1 would reach the backend as two parameters.
//
//go:embed query.lua
var script string

// Kind is the key query.
var Kind = policy.Define[Setting]("query", policy.Layers, doc)

// Setting is what stands under query. Names and values are plain text; they are escaped on the wire.
type Setting struct {
	Set    map[string]string `policy:"set" doc:"parameters with their value, in place of all of that name"`
	Add    map[string]string `policy:"add" doc:"parameters with a value that is added to what is there"`
	Remove []string          `policy:"remove" doc:"names of parameters to take away"`
}

// maxText is the most bytes of a name or a value.
const maxText = 4096

// maxChanges is how many parameters one layer may change: each route has its own copy of them.
const maxChanges = 100

// Check refuses names that stand in two lists, and what no query should hold.
func (s *Setting) Check(c *policy.Check) {
	if c.Route() == nil && len(c.Set().Node.Keys) == 0 {
		c.Errorf("", "says nothing: want set, add or remove").Hintf("write `query: off` for no changes")
	}
	switch n := len(s.Set) + len(s.Add) + len(s.Remove); {
	case n > maxChanges && c.Route() == nil:
		c.Errorf("", "%d parameters, more than %d", n, maxChanges)
		return
	case n > 3*maxChanges: // more than the three layers may say together: told of one of them
		return
	}
	seen := map[string]string{} // name -> the path where it stands
	for _, name := range slices.Sorted(maps.Keys(s.Set)) {
		checkName(c, "set."+name, name, seen)
		checkValue(c, "set."+name, s.Set[name])
	}
	for _, name := range slices.Sorted(maps.Keys(s.Add)) {
		checkName(c, "add."+name, name, seen)
		checkValue(c, "add."+name, s.Add[name])
	}
	for i, name := range s.Remove {
		checkName(c, policy.Item("remove", i), name, seen)
	}
	if r := c.Route(); r != nil && r.Answers() && c.Set().Layer.Place == policy.InRoute {
		c.Errorf("", "the route answers by itself, so that there is no backend to get another query").Hintf("take query away")
	}
}

func checkName(c *policy.Check, path, name string, seen map[string]string) {
	first, twice := seen[name]
	switch {
	case name == "":
		c.Errorf(path, "want the name of a parameter, got nothing")
	case twice:
		c.Errorf(path, "%s is changed twice: also at %s", name, first).
			Hintf("to replace what an outer layer says, take it away here: `set: {%s: off}`", name)
	default:
		seen[name] = path
		checkText(c, path, "name", name)
	}
}

func checkValue(c *policy.Check, path, value string) { checkText(c, path, "value", value) }

func checkText(c *policy.Check, path, what, text string) {
	switch {
	case strings.ContainsFunc(text, control):
		c.Errorf(path, "the %s holds a control character", what)
	case len(text) > maxText:
		c.Errorf(path, "the %s is longer than %d bytes", what, maxText)
	}
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

const filter = "legation.query"

// Filters puts the filter into every chain, switched off, after auth and limits, which see what the client asked for.
func (*Setting) Filters(envoy.ListenerContext) []envoy.Filter {
	return []envoy.Filter{{Name: filter, Phase: envoy.Transform, Config: &luav3.Lua{
		DefaultSourceCode: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: script}},
		ClearRouteCache:   wrapperspb.Bool(false), // the change must not lead to another route, whose auth was not asked
	}}}
}

// Route switches the filter on where there is something to change, and tells the script what.
func (s *Setting) Route(c envoy.RouteContext) envoy.RouteParts {
	drop := map[string]*structpb.Value{}
	for _, name := range slices.Concat(s.Remove, slices.Collect(maps.Keys(s.Set))) {
		drop[name] = structpb.NewBoolValue(true)
	}
	written := escaped(s.Set, escaped(s.Add, nil))
	if len(c.Route.Backends) == 0 || len(drop) == 0 && len(written) == 0 {
		return envoy.RouteParts{}
	}
	return envoy.RouteParts{Filters: map[string]proto.Message{filter: &luav3.LuaPerRoute{
		FilterContext: &structpb.Struct{Fields: map[string]*structpb.Value{
			"drop":   structpb.NewStructValue(&structpb.Struct{Fields: drop}),
			"append": structpb.NewStringValue(strings.Join(written, "&")),
		}},
	}}}
}

// escaped gives the parameters as they are written into a query, before those of rest.
func escaped(parameters map[string]string, rest []string) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		all = append(all, escape(name)+"="+escape(parameters[name]))
	}
	return append(all, rest...)
}

// escape escapes a space as %20: a plus sign is a space to forms only.
func escape(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }
