package explain

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ipv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/input_matchers/ip/v3"
	templatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/legation/legation/envoy"
	"google.golang.org/protobuf/types/known/anypb"
)

// asked is a request with what conditions compare.
type asked struct {
	envoy.Request
	path    string             // without the query
	query   map[string]string  // the first value of each parameter, as it is written
	unknown map[string]unknown // headers that Envoy sets to what nobody can know beforehand
}

// unknown is why nobody knows a value beforehand, and whether there is one at all.
type unknown struct {
	why   string
	there bool
}

// ask reads the path and the query of a request.
func ask(r envoy.Request) *asked {
	a := &asked{Request: r, path: withoutQuery(r.Path), query: map[string]string{}, unknown: map[string]unknown{}}
	_, query, _ := strings.Cut(r.Path, "?")
	for one := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(one, "=")
		if _, have := a.query[name]; !have {
			a.query[name] = value
		}
	}
	if query == "" {
		clear(a.query)
	}
	return a
}

// header is the values that conditions compare, the pseudo headers too; none where the request has no such header.
func (a *asked) header(name string) []string {
	switch name {
	case ":method":
		return []string{a.Method}
	case ":path":
		return []string{a.Path}
	case ":authority":
		return []string{a.Host}
	case ":scheme":
		return []string{a.Scheme}
	}
	return a.Headers[name]
}

// first is the value of a header that has one at most.
func (a *asked) first(name string) string {
	if values := a.Headers[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// miss is the first condition of a route that a request does not meet.
type miss struct {
	what   string // path, method, header, query, or else the name of Envoy's field
	name   string // of the header or the parameter
	unsure string // why nobody can know beforehand; the condition is taken not to hold
}

// matcher compares, and keeps the expressions that it has compiled.
type matcher struct {
	compiled map[string]*regexp.Regexp
	lists    map[*anypb.Any][]*routev3.Route
}

func newMatcher() *matcher {
	return &matcher{compiled: map[string]*regexp.Regexp{}, lists: map[*anypb.Any][]*routev3.Route{}}
}

// misses is nil where a request meets all conditions of a route.
func (m *matcher) misses(r *routev3.RouteMatch, a *asked) *miss {
	if !m.path(r, a) {
		return &miss{what: "path"}
	}
	for _, h := range r.GetHeaders() {
		value, unknown := a.unknown[h.Name]
		_, presence := h.GetHeaderMatchSpecifier().(*routev3.HeaderMatcher_PresentMatch)
		switch {
		case unknown && presence && value.there && h.GetPresentMatch(), !unknown && m.header(h, a):
			continue
		case unknown && !(presence && value.there):
			return &miss{what: "header", name: h.Name, unsure: value.why}
		}
		if h.Name == ":method" {
			return &miss{what: "method"}
		}
		return &miss{what: "header", name: h.Name}
	}
	for _, q := range r.GetQueryParameters() {
		if !m.parameter(q, a) {
			return &miss{what: "query", name: q.Name}
		}
	}
	return nil
}

// path compares the path alone, but for plain prefixes; of those there is only /.
func (m *matcher) path(r *routev3.RouteMatch, a *asked) bool {
	fold := r.GetCaseSensitive() != nil && !r.GetCaseSensitive().GetValue()
	switch p := r.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		return hasPrefix(a.Path, p.Prefix, fold)
	case *routev3.RouteMatch_Path:
		return len(a.path) == len(p.Path) && hasPrefix(a.path, p.Path, fold)
	case *routev3.RouteMatch_PathSeparatedPrefix:
		n := len(p.PathSeparatedPrefix)
		return hasPrefix(a.path, p.PathSeparatedPrefix, fold) && (len(a.path) == n || a.path[n] == '/')
	case *routev3.RouteMatch_SafeRegex:
		return m.whole(p.SafeRegex.GetRegex(), a.path)
	case *routev3.RouteMatch_PathMatchPolicy:
		var template templatev3.UriTemplateMatchConfig
		if p.PathMatchPolicy.GetTypedConfig().UnmarshalTo(&template) != nil {
			return false
		}
		return m.whole(templateRegex(template.PathTemplate), a.path)
	}
	return false
}

func hasPrefix(s, prefix string, fold bool) bool {
	if len(s) < len(prefix) {
		return false
	}
	if fold {
		return lowerASCII(s[:len(prefix)]) == lowerASCII(prefix)
	}
	return strings.HasPrefix(s, prefix)
}

// lowerASCII leaves bytes that are no ASCII letters alone, as Envoy does.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

var variable = regexp.MustCompile(`\{\w+=?([^}]*)\}`)

// templateRegex is what Envoy makes of a template: * is some characters of a segment, ** any number of them and slashes.
func templateRegex(template string) string {
	const char = `[a-zA-Z0-9._~%!$&'()+,;:@=*-]`
	plain := variable.ReplaceAllStringFunc(template, func(v string) string {
		if pattern := variable.FindStringSubmatch(v)[1]; pattern != "" {
			return pattern
		}
		return "*"
	})
	return strings.NewReplacer(`\*\*`, "(?:"+char+"|/)*", `\*`, char+"+").Replace(regexp.QuoteMeta(plain))
}

// whole compares the whole of a value with an expression of RE2, which takes no bytes that are not UTF-8.
func (m *matcher) whole(expr, value string) bool {
	re := m.compiled[expr]
	if re == nil {
		re = regexp.MustCompile(`\A(?:` + expr + `)\z`) // checked when the policy was loaded
		m.compiled[expr] = re
	}
	return utf8.ValidString(value) && re.MatchString(value)
}

// header compares each line of a header by itself: one that fits is enough.
func (m *matcher) header(h *routev3.HeaderMatcher, a *asked) bool {
	values := a.header(h.Name)
	switch h.GetHeaderMatchSpecifier().(type) {
	case *routev3.HeaderMatcher_PresentMatch:
		return len(values) > 0 == h.GetPresentMatch()
	case *routev3.HeaderMatcher_StringMatch:
		return slices.ContainsFunc(values, func(value string) bool { return m.text(h.GetStringMatch(), value) })
	}
	return false
}

func (m *matcher) parameter(q *routev3.QueryParameterMatcher, a *asked) bool {
	value, present := a.query[q.Name]
	switch q.GetQueryParameterMatchSpecifier().(type) {
	case *routev3.QueryParameterMatcher_PresentMatch:
		return present == q.GetPresentMatch()
	case *routev3.QueryParameterMatcher_StringMatch:
		return present && m.text(q.GetStringMatch(), value)
	}
	return false
}

func (m *matcher) text(s *matcherv3.StringMatcher, value string) bool {
	switch p := s.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return value == p.Exact
	case *matcherv3.StringMatcher_SafeRegex:
		return m.whole(p.SafeRegex.GetRegex(), value)
	case *matcherv3.StringMatcher_Prefix:
		return strings.HasPrefix(value, p.Prefix)
	}
	return false
}

// listFor is the routes that a virtual host has for a request: for some clients it has another list. Where nobody knows the
// client's address, which why tells, it is the one for all others, and maybe has those that it might be.
func (m *matcher) listFor(h *routev3.VirtualHost, a *asked) (routes []*routev3.Route, maybe [][]*routev3.Route, why string) {
	choice := h.GetMatcher()
	if choice == nil {
		return h.Routes, nil, ""
	}
	for _, one := range choice.GetMatcherList().GetMatchers() {
		holds, unsure := m.client(one.GetPredicate(), a)
		switch {
		case holds:
			return m.list(one.GetOnMatch()), nil, ""
		case unsure != "":
			maybe, why = append(maybe, m.list(one.GetOnMatch())), unsure
		}
	}
	return m.list(choice.GetOnNoMatch()), maybe, why
}

func (m *matcher) list(then *xdsmatcherv3.Matcher_OnMatch) []*routev3.Route {
	packed := then.GetAction().GetTypedConfig()
	if list, have := m.lists[packed]; have {
		return list
	}
	var list routev3.RouteList
	if packed == nil || packed.UnmarshalTo(&list) != nil {
		return nil
	}
	m.lists[packed] = list.Routes
	return list.Routes
}

// client compares the client's address, which Envoy has put into a header, with networks.
func (m *matcher) client(p *xdsmatcherv3.Matcher_MatcherList_Predicate, a *asked) (holds bool, unsure string) {
	var ranges ipv3.Ip
	var input matcherv3.HttpRequestHeaderMatchInput
	one := p.GetSinglePredicate()
	if one.GetCustomMatch().GetTypedConfig().UnmarshalTo(&ranges) != nil || one.GetInput().GetTypedConfig().UnmarshalTo(&input) != nil {
		return false, "the route is chosen in a way that is not known"
	}
	if value, unknown := a.unknown[input.HeaderName]; unknown {
		return false, value.why
	}
	client, err := netip.ParseAddr(a.first(input.HeaderName))
	return err == nil && inRanges(ranges.CidrRanges, client), ""
}

func inRanges(ranges []*corev3.CidrRange, client netip.Addr) bool {
	for _, r := range ranges {
		address, err := netip.ParseAddr(r.AddressPrefix)
		if err == nil && netip.PrefixFrom(address, int(r.PrefixLen.GetValue())).Masked().Contains(client) {
			return true
		}
	}
	return false
}
