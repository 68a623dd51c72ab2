package app

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/legation/legation/examples"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/auth"
	"github.com/legation/legation/feature/jwt"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
)

// toured is how many routes of a gateway the tour shows.
const toured = 6

// tour says that everything is ready, and prints lines to paste: one or more for each of the first routes.
func (p *process) tour(m *policy.Model, children []child) {
	b := &strings.Builder{}
	for i, g := range m.Gateways {
		fmt.Fprintf(b, "\nready: gateway %s, its Envoy's admin at http://%s\n", g.Name, children[i].admin)
		for _, l := range g.Listeners {
			fmt.Fprintf(b, "  listener %s: http://%s\n", l.Name, net.JoinHostPort(visible(l.Address), strconv.Itoa(int(l.Port))))
		}
		if len(g.Listeners) == 0 || len(g.Routes) == 0 {
			continue
		}
		b.WriteString("\nTry:\n")
		for _, r := range first(byEase(g.Routes), toured) {
			tourRoute(b, m, g.Listeners[0], r)
		}
		if more := len(g.Routes) - toured; more > 0 {
			fmt.Fprintf(b, "  … and %d more routes\n", more)
		}
	}
	fmt.Fprintf(b, "\nEdit the files in %s: a good change is live in under a second, a bad one is told here and changes nothing.\n", p.o.Dir)
	fmt.Fprintf(b, "Status: %s status --server http://%s    End: Ctrl-C\n\n", os.Args[0], p.address("admin"))
	fmt.Fprint(p.o.Out, b)
}

// tourRoute prints a route's lines, each with the answer to expect.
func tourRoute(b *strings.Builder, m *policy.Model, l *policy.Listener, r *policy.BoundRoute) {
	line := curl(l, r)
	if !protected(r) {
		fmt.Fprintf(b, "  %s\n      %s: 200%s\n", line, r.Name, split(r))
		return
	}
	fmt.Fprintf(b, "  %s\n      %s: 401 without a token\n", line, r.Name)
	if !demo(m) {
		return
	}
	line = fmt.Sprintf(`%s -H "Authorization: Bearer $(%s token --sub alice)"`, line, os.Args[0])
	fmt.Fprintf(b, "  %s\n      %s: 200%s\n", line, r.Name, split(r))
	if limit, ok := tightest(m, r); ok {
		silent := strings.Replace(line, "curl -i", `curl -s -o /dev/null -w '%{http_code}\n'`, 1)
		fmt.Fprintf(b, "  for i in $(seq %d); do %s; done\n      %s: 429 with Retry-After past %d a %s%s\n",
			limit.Requests+1, silent, r.Name, limit.Requests, window(limit.Window), per(limit))
	}
}

// curl is a command line that reaches the route.
func curl(l *policy.Listener, r *policy.BoundRoute) string {
	host := visible(l.Address)
	header := ""
	switch name := r.Hostnames[0]; {
	case slices.Contains(r.Hostnames, "localhost"):
		host = "localhost"
	case name == "*" || slices.Contains(r.Hostnames, host):
	default:
		header = " -H 'Host: " + strings.Replace(name, "*", "any", 1) + "'"
	}
	path := r.Match.Path.Value
	if r.Match.Path.Kind == policy.PathRegex || path == "" {
		path = "/"
	}
	method := ""
	if len(r.Match.Methods) > 0 && !slices.Contains(r.Match.Methods, "GET") {
		method = " -X " + r.Match.Methods[0]
	}
	return fmt.Sprintf("curl -i%s%s http://%s%s", method, header, net.JoinHostPort(host, strconv.Itoa(int(l.Port))), path)
}

// visible is an address that can be called.
func visible(address string) string {
	if ip := net.ParseIP(address); ip != nil && ip.IsUnspecified() {
		return "127.0.0.1"
	}
	return address
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

// demo tells whether the quickstart's test tokens are good for this policy.
func demo(m *policy.Model) bool {
	for _, a := range m.Auth {
		if j, ok := policy.Find[*jwt.JWT](a.Settings); ok && j.Issuer == examples.Issuer {
			return true
		}
	}
	return false
}

// tightest is the limit of a route that is reached first.
func tightest(m *policy.Model, r *policy.BoundRoute) (ratelimit.Limit, bool) {
	_, all := feature.Companions(m)
	own := slices.DeleteFunc(all, func(l ratelimit.Limit) bool { return !strings.HasPrefix(l.Name, "route/"+r.Name+"/") })
	if len(own) == 0 {
		return ratelimit.Limit{}, false
	}
	return slices.MinFunc(own, func(a, b ratelimit.Limit) int { return cmp.Compare(a.Requests, b.Requests) }), true
}

func window(d time.Duration) string {
	switch d {
	case time.Second:
		return "second"
	case time.Minute:
		return "minute"
	case time.Hour:
		return "hour"
	case 24 * time.Hour:
		return "day"
	}
	return d.String()
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
