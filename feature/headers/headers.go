// Package headers changes the headers of requests and responses: the key headers. [envoy.Translate] calls it.
package headers

import (
	"cmp"
	_ "embed"
	"maps"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

//go:embed doc.md
var doc string

// Kind is the key headers.
var Kind = policy.Define[Setting]("headers", policy.Layers, doc)

// Setting is what stands under headers.
type Setting struct {
	Request  Changes `policy:"request" doc:"changes to what the backend gets"`
	Response Changes `policy:"response" doc:"changes to what the client gets"`
}

// The two sides.
const (
	request  = "request"
	response = "response"
)

// Changes is what is done to one side's headers. Values are Envoy's format strings: text with commands of an allow-list.
type Changes struct {
	Set    map[string]string `policy:"set" doc:"headers with their value, in place of what is there"`
	Add    map[string]string `policy:"add" doc:"headers with a value that is added to what is there"`
	Remove []string          `policy:"remove" doc:"names of headers to take away"`
}

// Check refuses headers that are not a policy's to write and names that stand in two lists.
func (s *Setting) Check(c *policy.Check) {
	s.Request.check(c, request)
	s.Response.check(c, response)
}

// maxChanges is how many headers of a side one layer may change: each route has its own copy of them.
const maxChanges = 100

func (h *Changes) check(c *policy.Check, side string) {
	switch n := len(h.Set) + len(h.Add) + len(h.Remove); {
	case n > maxChanges && c.Route() == nil:
		c.Errorf(side, "%d headers, more than %d", n, maxChanges)
		return
	case n > 3*maxChanges: // more than the three layers may say together: told of one of them
		return
	}
	seen := map[string]string{} // lower-case name -> the path where it stands
	for _, name := range sorted(h.Set) {
		path := side + ".set." + name
		checkName(c, path, name, side, seen)
		checkWritten(c, path, name, h.Set[name], side)
	}
	for _, name := range sorted(h.Add) {
		path := side + ".add." + name
		checkName(c, path, name, side, seen)
		checkWritten(c, path, name, h.Add[name], side)
	}
	for i, name := range h.Remove {
		checkName(c, policy.Item(side+".remove", i), name, side, seen)
	}
}

// Headers that belong to the connection or to its framing, not to the message; Envoy writes them itself.
var hopByHop = []string{
	"connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

func checkName(c *policy.Check, path, name, side string, seen map[string]string) {
	lower := strings.ToLower(name)
	first, twice := seen[lower]
	switch {
	case strings.HasPrefix(name, ":"):
		c.Errorf(path, "%s is not a header but part of the request or status line", name).
			Hintf("`rewrite` changes the path and the hostname")
	case !policy.IsToken(name):
		c.Errorf(path, "%q is not a header name", name).Hintf("letters, digits and dashes")
	case lower == "host" && side == request:
		c.Errorf(path, "the host is not changed here").Hintf("write `rewrite: {hostname: …}`")
	case slices.Contains(hopByHop, lower):
		c.Errorf(path, "%s belongs to one connection; Envoy writes it itself", lower)
	case twice:
		c.Errorf(path, "%s is changed twice: also at %s", lower, first).
			Hintf("to replace what an outer layer says, take it away here: `set: {%s: off}`", name)
	default:
		seen[lower] = path
	}
}

// checkWritten checks a header that gets a value.
func checkWritten(c *policy.Check, path, name, value, side string) {
	switch lower := strings.ToLower(name); {
	case strings.HasPrefix(lower, "x-envoy-"):
		c.Errorf(path, "x-envoy- headers are Envoy's own: backends trust what they say").Hintf("use another name")
	case side == request && strings.HasPrefix(lower, "x-legation-"):
		c.Errorf(path, "x-legation- headers are Legation's own: backends trust what they say").Hintf("use another name")
	case slices.Contains(secrets, lower):
		c.Errorf(path, "a value of %s is a secret, and secrets do not stand in policy files", lower).Hide().
			Hintf("take it out, and have another one made: whoever can read the policy has this one")
		return
	}
	if side == request {
		checkIdentity(c, path, strings.ToLower(name), value)
		checkOrigin(c, path, strings.ToLower(name), value)
	}
	if strings.ContainsFunc(value, control) {
		c.Errorf(path, "the value holds a control character").Hintf("headers are one line of plain text")
		return
	}
	if strings.TrimSpace(value) != value {
		c.Errorf(path, "the value begins or ends with a space, which HTTP drops")
	}
	if len(value) > maxValue {
		c.Errorf(path, "the value is longer than Envoy's %d bytes", maxValue)
		return
	}
	checkCommands(c, path, value, side)
}

// checkIdentity keeps commands, which may give what a client chose, out of a header that tells who calls.
func checkIdentity(c *policy.Check, path, name, value string) {
	entry, set := identities(c)[name]
	if found, _ := calls(value); set && len(found) > 0 {
		p := c.Errorf(path, "%s tells who calls: auth sets it, and a command may give what a client chose", name).
			Hintf("use another name")
		p.Also = append(p.Also, entry)
	}
}

// origins are headers by which backends, and sidecars, know the client of a request.
var origins = []string{"forwarded", "true-client-ip", "x-forwarded-client-cert", "x-forwarded-for", "x-real-ip"}

// checkOrigin keeps what a client may write out of them; what Envoy knows of the client itself may stand there.
func checkOrigin(c *policy.Check, path, name, value string) {
	if !slices.Contains(origins, name) {
		return
	}
	found, _ := calls(value)
	for _, one := range found {
		if one.name != "REQ" {
			continue
		}
		for from := range strings.SplitSeq(strings.ToLower(one.argument), "?") {
			if !strings.HasPrefix(from, ":") && !strings.HasPrefix(from, "x-forwarded-") && !strings.HasPrefix(from, "x-envoy-") {
				c.Errorf(path, "%s tells who the client is, which would write it into %s", name, from).
					Hintf("write %%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%%, or trustedHops where proxies stand in front")
			}
		}
	}
}

// identityHeaders is where the headers that auth entries set are told of, by their names in lower case.
type identityHeaders map[string]policy.Pos

func identities(c *policy.Check) identityHeaders {
	return policy.Once(c, func() identityHeaders {
		all := identityHeaders{}
		for _, entry := range c.Common().Auth {
			for set, s := range policy.Each[envoy.Stripper](entry.Settings) {
				for _, name := range s.StripHeaders() {
					all[strings.ToLower(name)] = set.Pos()
				}
			}
		}
		return all
	})
}

// maxValue is the most bytes that Envoy's HeaderValue takes.
const maxValue = 16384

func control(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// Route writes the changes to the route. Envoy removes first, then sets and adds.
func (s *Setting) Route(envoy.RouteContext) envoy.RouteParts {
	return envoy.RouteParts{Route: &routev3.Route{
		RequestHeadersToAdd:     s.Request.options(),
		RequestHeadersToRemove:  lower(s.Request.Remove),
		ResponseHeadersToAdd:    s.Response.options(),
		ResponseHeadersToRemove: lower(s.Response.Remove),
	}}
}

func (h *Changes) options() []*corev3.HeaderValueOption {
	var all []*corev3.HeaderValueOption
	for _, name := range sorted(h.Set) {
		all = append(all, option(name, h.Set[name], corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD))
	}
	for _, name := range sorted(h.Add) {
		all = append(all, option(name, h.Add[name], corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD))
	}
	return all
}

func option(name, value string, action corev3.HeaderValueOption_HeaderAppendAction) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:         &corev3.HeaderValue{Key: strings.ToLower(name), Value: value},
		AppendAction:   action,
		KeepEmptyValue: value == "", // else Envoy drops the header
	}
}

func lower(names []string) []string {
	var low []string
	for _, name := range names {
		low = append(low, strings.ToLower(name))
	}
	return low
}

// sorted gives the names in the order of their lower case.
func sorted(m map[string]string) []string {
	return slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.ToLower(a), strings.ToLower(b)), cmp.Compare(a, b))
	})
}
