package app

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	companionauth "github.com/legation/legation/auth"
	"github.com/legation/legation/examples"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/auth"
	"github.com/legation/legation/feature/directresponse"
	"github.com/legation/legation/feature/jwt"
	"github.com/legation/legation/feature/plan"
	"github.com/legation/legation/feature/tls"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
	"github.com/legation/legation/store"
)

// toured is how many routes of a gateway the tour shows.
const toured = 6

// tour says that everything is ready, and prints lines to paste: one or more for each of the first routes.
func (p *process) tour(m *policy.Model, children []child) {
	b := &strings.Builder{}
	for _, g := range m.Gateways {
		i := slices.IndexFunc(children, func(c child) bool { return c.gateway == g.Name })
		if i < 0 {
			continue // gone meanwhile
		}
		what := "gateway"
		if g.Sidecar {
			what = "sidecar"
		}
		fmt.Fprintf(b, "\nready: %s %s, its Envoy's admin at http://%s\n", what, g.Name, children[i].admin)
		for _, l := range g.Listeners {
			fmt.Fprintf(b, "  listener %s: %s://%s\n", l.Name, strings.ToLower(string(l.Protocol)), at(l))
		}
		if len(g.Listeners) == 0 || len(m.Bound[g]) == 0 {
			continue
		}
		all := slices.DeleteFunc(byEase(m.Bound[g]), ofPeers)
		if len(all) == 0 {
			continue
		}
		b.WriteString("\nTry:\n")
		some := first(showable(slices.Clone(all)), toured)
		for _, r := range some {
			tourRoute(b, m, r)
		}
		if more := len(all) - len(some); more > 0 {
			fmt.Fprintf(b, "  … and %d more\n", more)
		}
	}
	fmt.Fprintf(b, "\nEdit the files in %s: a good change is live in under a second, a bad one is told here and changes nothing.\n", p.o.Dir)
	fmt.Fprintf(b, "Status: %s status --server http://%s    End: Ctrl-C\n\n", os.Args[0], p.address("admin"))
	fmt.Fprint(p.o.Out, b)
}

// at is where a listener can be called.
func at(l *policy.Listener) string {
	return net.JoinHostPort(visible(l.Address), strconv.Itoa(int(l.Port)))
}

// tourRoute prints a route's lines, each with the answer to expect.
func tourRoute(b *strings.Builder, m *policy.Model, r *policy.BoundRoute) {
	line, _ := curl(r)
	if !protected(r) {
		fmt.Fprintf(b, "  %s\n      %s: %s\n", line, r.Name, expected(r))
		return
	}
	without, token := unasked(m, r)
	fmt.Fprintf(b, "  %s\n      %s: %s\n", line, r.Name, without)
	if !token {
		return
	}
	claims, planned := planClaim(m, r)
	line = fmt.Sprintf(`%s -H "Authorization: Bearer $(%s token --sub alice%s)"`, line, os.Args[0], claims)
	if !planned {
		fmt.Fprintf(b, "  %s\n      %s: 403, for alice has no plan\n", line, r.Name)
		return
	}
	fmt.Fprintf(b, "  %s\n      %s: %s\n", line, r.Name, expected(r))
	if limit, ok := tightest(m, r); ok {
		silent := strings.Replace(line, "curl -i", `curl -s -o /dev/null -w '%{http_code}\n'`, 1)
		fmt.Fprintf(b, "  for i in $(seq %d); do %s; done\n      %s: 429 with Retry-After past %d %s%s\n",
			atOnce(limit)+1, silent, r.Name, atOnce(limit), window(limit), per(limit))
	}
}

// planClaim is what the token has to say for a route that asks for a plan; false where no token can.
func planClaim(m *policy.Model, r *policy.BoundRoute) (claims string, ok bool) {
	use, found := policy.Find[*plan.Use](r.Settings)
	if !found || use.PlanUse() != companionauth.PlanRequired {
		return "", true
	}
	for _, a := range m.Auth {
		if j, ok := policy.Find[*jwt.JWT](a.Settings); ok && slices.Contains(j.Issuer, examples.Issuer) && j.Plan != "" && len(m.Plans) > 0 {
			return " --claim " + shell(j.Plan+"="+m.Plans[0].Name), true
		}
	}
	return "", false
}

// ofPeers tells whether a route is only for the peers of a sidecar, who have certificates.
func ofPeers(r *policy.BoundRoute) bool {
	return slices.ContainsFunc(r.Gateway.Listeners, func(l *policy.Listener) bool { return len(l.Peers) > 0 && r.On(l) })
}

// showable leaves out the routes of which the policy tells no request that meets their conditions.
func showable(routes []*policy.BoundRoute) []*policy.BoundRoute {
	return slices.DeleteFunc(routes, func(r *policy.BoundRoute) bool { _, ok := curl(r); return !ok })
}

// curl is a command line that reaches the route; false where the policy does not tell what does, as with a regex, or
// only some clients do.
func curl(r *policy.BoundRoute) (line string, ok bool) {
	i := slices.IndexFunc(r.Gateway.Listeners, func(l *policy.Listener) bool { return l.HTTP() && r.On(l) })
	readable := r.Match.Path.Kind == policy.PathPrefix || r.Match.Path.Kind == policy.PathExact
	if i < 0 || !readable || r.Match.GRPC || len(r.Match.Source) > 0 {
		return "", false
	}
	l := r.Gateway.Listeners[i]
	host, options := reach(l, r)
	options += shown(l)
	headers, ok := samplesOf(r.Match.Headers)
	for _, h := range headers {
		if strings.HasPrefix(h[0], "x-legation-") {
			return "", false // set from the client's certificate, whose names are not the policy's to tell
		}
		options += " -H " + shell(h[0]+": "+h[1])
	}
	query, found := samplesOf(r.Match.Query)
	values := url.Values{}
	for _, q := range query {
		values.Set(q[0], q[1])
	}
	u := url.URL{
		Scheme: strings.ToLower(string(l.Protocol)), Host: net.JoinHostPort(host, strconv.Itoa(int(l.Port))),
		Path: cmp.Or(r.Match.Path.Value, "/"), RawQuery: values.Encode(),
	}
	return fmt.Sprintf("curl -i%s%s %s", method(r.Match.Methods), options, shell(u.String())), ok && found
}

// reach is the host to call for a route, and what curl has to be told beside it. With TLS the host is the name that the
// certificate is chosen by, which no resolver has to know, and nobody need have signed it.
func reach(l *policy.Listener, r *policy.BoundRoute) (host, options string) {
	address := visible(l.Address)
	name := strings.Replace(r.Hostnames[0], "*.", "any.", 1)
	if l.Protocol == policy.HTTPS {
		for _, c := range l.Certificates {
			if name == "*" && c.Hostname != "" {
				name = strings.Replace(c.Hostname, "*.", "any.", 1)
			}
		}
		if name == "*" {
			name = "localhost"
		}
		if strings.Contains(address, ":") {
			address = "[" + address + "]"
		}
		return name, " -k --resolve " + shell(fmt.Sprintf("%s:%d:%s", name, l.Port, address))
	}
	switch {
	case slices.Contains(r.Hostnames, "localhost"):
		return "localhost", ""
	case name == "*" || slices.Contains(r.Hostnames, address):
		return address, ""
	default:
		return address, " -H 'Host: " + name + "'"
	}
}

// shown is what curl has to be told for a listener that asks clients for something before the request.
func shown(l *policy.Listener) (options string) {
	if l.Settings.Has("proxyProtocol") {
		options += " --haproxy-protocol"
	}
	if s, ok := policy.Find[*tls.Listener](l.Settings); ok && s.ClientCertificates != nil {
		options += " --cert CLIENT.crt --key CLIENT.key"
	}
	return options
}

// samplesOf is names and values that meet the conditions.
func samplesOf(matches []policy.ValueMatch) (pairs [][2]string, ok bool) {
	for _, m := range matches {
		switch {
		case m.Regex != "":
			return nil, false
		case m.Present == nil:
			pairs = append(pairs, [2]string{m.Name, m.Exact})
		case *m.Present:
			pairs = append(pairs, [2]string{m.Name, "any"})
		}
	}
	return pairs, true
}

// method is curl's option for the first of the methods; with none, or with GET, it takes none.
func method(methods []string) string {
	switch {
	case len(methods) == 0 || slices.Contains(methods, "GET"):
		return ""
	case methods[0] == "HEAD":
		return " -I" // with -X HEAD curl would wait for a body
	}
	return " -X " + methods[0]
}

// shell quotes text that a shell would read otherwise.
func shell(text string) string {
	if strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/:%@+,=") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// visible is an address that can be called.
func visible(address string) string {
	ip := net.ParseIP(address)
	switch {
	case ip == nil || !ip.IsUnspecified():
		return address
	case ip.To4() == nil:
		return "::1"
	}
	return "127.0.0.1"
}

// expected is what a request that comes through is answered, and by which services.
func expected(r *policy.BoundRoute) string {
	if s, ok := policy.Find[*directresponse.Setting](r.Settings); ok && s.Status != nil {
		return strconv.Itoa(int(*s.Status))
	}
	if r.Settings.Has("redirect") {
		return "a redirect"
	}
	return "200" + split(r)
}

// split tells how a route is shared out.
func split(r *policy.BoundRoute) string {
	if len(r.Backends) < 2 {
		return ""
	}
	var total uint32
	for _, b := range r.Backends {
		total += b.Weight
	}
	var parts []string
	for _, b := range r.Backends {
		parts = append(parts, fmt.Sprintf("%s %d %%", b.Service.Name, 100*b.Weight/max(total, 1)))
	}
	return ", from " + strings.Join(parts, ", ")
}

// unasked is what a protected route answers to who brings nothing, and whether one of the quickstart's test tokens opens it.
func unasked(m *policy.Model, r *policy.BoundRoute) (without string, token bool) {
	s, _ := policy.Find[*auth.Setting](r.Settings)
	without = "401 without a token"
	for _, a := range m.Auth {
		if !slices.Contains(s.Of, a.Name) {
			continue
		}
		j, ok := policy.Find[*jwt.JWT](a.Settings)
		switch {
		case a.Settings.Has("anonymous"):
			return expected(r) + ", also for guests", false
		case ok && slices.Contains(j.Issuer, examples.Issuer):
			token = !s.All || len(s.Of) == 1
		case !ok && !a.Settings.Has("introspection"):
			without = "401 without credentials that it takes"
		}
	}
	return without, token
}

// tightest is the limit of a route that is reached first.
func tightest(m *policy.Model, r *policy.BoundRoute) (ratelimit.Limit, bool) {
	_, all := feature.Companions(m)
	own := slices.DeleteFunc(all.Limits, func(l ratelimit.Limit) bool {
		return !strings.HasPrefix(l.Name, "route/"+r.Name+"/") || atOnce(l) > loops || l.Shadow
	})
	if len(own) == 0 {
		return ratelimit.Limit{}, false
	}
	return slices.MinFunc(own, func(a, b ratelimit.Limit) int { return cmp.Compare(atOnce(a), atOnce(b)) }), true
}

// loops is how often a line of the tour asks at most.
const loops = 200

// atOnce is how many requests a limit takes without a pause.
func atOnce(l ratelimit.Limit) int64 {
	if l.Algorithm == store.GCRA {
		return l.Burst
	}
	return l.Requests
}

// window is the time that atOnce is for.
func window(l ratelimit.Limit) string {
	switch {
	case l.Algorithm == store.GCRA:
		return "at once"
	case l.Algorithm == store.Calendar:
		return [...]string{store.Day: "a day", store.Week: "a week", store.Month: "a month", store.Year: "a year"}[l.Period]
	}
	switch l.Window {
	case time.Second:
		return "a second"
	case time.Minute:
		return "a minute"
	case time.Hour:
		return "an hour"
	case 24 * time.Hour:
		return "a day"
	}
	return "each " + l.Window.String()
}

func per(l ratelimit.Limit) string {
	if len(l.By) == 0 {
		return ""
	}
	var parts []string
	for _, by := range l.By {
		parts = append(parts, cmp.Or(by.Name, by.Kind.String()))
	}
	return " for each " + strings.Join(parts, " and ")
}

func first[T any](list []T, n int) []T { return list[:min(n, len(list))] }

// byEase puts the routes that answer anyone first.
func byEase(routes []*policy.BoundRoute) []*policy.BoundRoute {
	sorted := slices.Clone(routes)
	slices.SortStableFunc(sorted, func(a, b *policy.BoundRoute) int {
		switch {
		case protected(a) == protected(b):
			return 0
		case protected(b):
			return -1
		}
		return 1
	})
	return sorted
}

// protected tells whether the route asks who calls.
func protected(r *policy.BoundRoute) bool {
	s, ok := policy.Find[*auth.Setting](r.Settings)
	return ok && !s.None
}
