package explain

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// This file makes policies and requests at random, such that requests come near the conditions of the routes.

func pick[T any](r *rand.Rand, all ...T) T { return all[r.IntN(len(all))] }

// chance holds once in n times.
func chance(r *rand.Rand, n int) bool { return r.IntN(n) == 0 }

var (
	hostnames = []string{"a.test", "b.a.test", `"*.a.test"`, `"*.b.a.test"`, `"*.test"`, "127.0.0.1", `"[::1]"`, "x-y_z.test"}
	segments  = []string{"a", "b", "ab", "A", "a.b", "a%20b", "~x", "v1", "..a", "%C3%A4", "a=b", "a+b", "a:b", "a|b", "(x)", "%7Ca", "...", "$a"}
	regexes   = []string{
		"/a/.*", "/[a-z]+", "/v[0-9]/(a|b)", "(?i)/A/b", "/a|/b/.*", ".*b", "/a/?", "/(?:a|ab)*", "/[^/]+/[^/]+", "/.*%20.*", "/a{1,2}", `/a\.b.*`, "/.",
	}
	templates = []string{
		"/{x}", "/a/{x}", "/{x}/b", "/{x=**}", "/a/**", "/*/b", "/a{x}", "/{x}.b", "/{x=a/*}", "/*", "/v{n}/{x=**}", "/{x}/{y}", "/a/*b", "/**",
	}
	values     = []string{"yes", "no", "a b", "a,b", "", "YES", "1", "ü"}
	valueRegex = []string{"y.*", ".*", "(?i)yes", "a,b", "[0-9]+", ".+", "yes|no", "a;? b", "[^a]*"}
	fields     = []string{"x-a", "x-b", "accept", "cookie", "user-agent", "x-forwarded-for", "x-forwarded-proto", "x-request-id", "connection", "upgrade", "x-envoy-a", "te", "content-type", "keep-alive"}
	parameters = []string{"q", "r", "q%20x", "Q", "a.b", "q[]"}
	methods    = []string{"GET", "POST", "PUT", "OPTIONS", "HEAD", "DELETE", "PATCH"}
)

func path(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(4) {
		b.WriteString("/" + pick(r, segments...))
	}
	if b.Len() == 0 || chance(r, 6) {
		b.WriteString("/")
	}
	return b.String()
}

func condition(r *rand.Rand) string {
	switch r.IntN(4) {
	case 0:
		return fmt.Sprintf("{present: %t}", chance(r, 2))
	case 1:
		return fmt.Sprintf("{regex: %q}", pick(r, valueRegex...))
	}
	return fmt.Sprintf("%q", pick(r, values...))
}

// match is the conditions of a route.
func match(r *rand.Rand) string {
	var parts []string
	switch r.IntN(8) {
	case 0:
		parts = append(parts, fmt.Sprintf("path: {regex: %q}", pick(r, regexes...)))
	case 1:
		parts = append(parts, fmt.Sprintf("path: {template: %q}", pick(r, templates...)))
	case 2, 3:
		parts = append(parts, fmt.Sprintf("path: {exact: %q, ignoreCase: %t}", path(r), chance(r, 3)))
	case 4:
	default:
		parts = append(parts, fmt.Sprintf("path: {prefix: %q, ignoreCase: %t}", path(r), chance(r, 3)))
	}
	if chance(r, 4) {
		parts = append(parts, "methods: ["+strings.Join(some(r, methods), ", ")+"]")
	}
	for _, kind := range []struct {
		key   string
		names []string
	}{{"headers", fields}, {"query", parameters}} {
		if !chance(r, 3) {
			continue
		}
		var all []string
		for _, name := range some(r, kind.names)[:1] {
			all = append(all, fmt.Sprintf("%q: %s", name, condition(r)))
		}
		parts = append(parts, kind.key+": {"+strings.Join(all, ", ")+"}")
	}
	if chance(r, 8) {
		parts = append(parts, "source: ["+strings.Join(some(r, []string{"127.0.0.1", "127.0.0.2/31", "127.0.0.0/8", "10.0.0.0/8", "::1"}), ", ")+"]")
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// some is at least one of all, each once.
func some[T any](r *rand.Rand, all []T) []T {
	var chosen []T
	for _, i := range r.Perm(len(all))[:1+r.IntN(min(3, len(all)))] {
		chosen = append(chosen, all[i])
	}
	return chosen
}

// front is three listeners: a table per host, one table, and one behind a proxy. backend is where those send to that don't
// answer by themselves.
func front(backend string) string {
	return `gateways:
  edge:
    listeners:
      hosts: {port: 10001, routeTables: perHost}
      one: {port: 10000}
      proxied: {port: 10002, trustedHops: 1}
services: {web: {endpoints: ["` + backend + `"]}}
routes:
`
}

// route makes one, on a line. What it answers has its name in a header; the age of its preflights is one more than its number.
func route(r *rand.Rand, number int) string {
	var b strings.Builder
	names, listeners := some(r, hostnames), ""
	if chance(r, 5) {
		names, listeners = []string{`"*"`}, ", listeners: [one, proxied]" // no table per host is for any
	}
	fmt.Fprintf(&b, "  r%d: {hostnames: [%s]%s, match: %s", number, strings.Join(names, ", "), listeners, match(r))
	fmt.Fprintf(&b, ", headers: {response: {set: {x-route: r%d}}}", number)
	switch r.IntN(6) {
	case 0:
		fmt.Fprintf(&b, `, backends: {web: 1}, cors: {allowOrigins: ["*"], maxAge: %ds}`, number+1)
	case 1:
		b.WriteString(", backends: {web: 1}")
	default:
		b.WriteString(", directResponse: {status: 200}")
	}
	if chance(r, 6) {
		b.WriteString(", upgrades: [websocket, h3]")
	}
	if chance(r, 4) {
		b.WriteString(", paths: lenient")
	}
	if chance(r, 8) {
		b.WriteString(", access: {" + pick(r, "allow: [127.0.0.1]", "deny: [127.0.0.2/31]", "allow: [127.0.0.0/8], deny: [127.0.0.3]") + "}")
	}
	return b.String() + "}\n"
}

// wire is a request as it is sent.
type wire struct {
	listener, client   string
	method, host, path string
	headers            []Header
}

// request makes one.
func request(r *rand.Rand) wire {
	w := wire{
		listener: pick(r, "one", "one", "hosts", "proxied"),
		client:   pick(r, "127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"),
		method:   pick(r, "GET", "GET", "GET", "OPTIONS", pick(r, methods...)),
		host: pick(r, "a.test", "a.test", "b.a.test", "x.a.test", "x.b.a.test", "x.y.b.a.test", "other.test", "127.0.0.1", "[::1]", "x-y_z.test",
			pick(r, "A.test", "a.test:80", "a.test.", "a.test.:8080", "[::1]:443", "xa.test", ".a.test", "a.test..", "a.test:", "a.test:80:80", "a.test:x", "a,b.test",
				"x@a.test", "elsewhere", "test", "b.A.test", "*.a.test", "a.test:99999999999", "a..test", "-a.test", "[::1", "[0:0::1]")),
	}
	if chance(r, 50) {
		w.method = pick(r, "TRACE", "PROPFIND", "PURGE")
	}
	w.path = requestPath(r) + requestQuery(r)
	for chance(r, 2) {
		w.headers = append(w.headers, Header{pick(r, fields...), pick(r, append(values, "h2c", "WebSocket", "upgrade, keep-alive", "x-a", "close", "keep-alive", "websocket", "trailers", "http", "https", "upgrade", "a; b", "10.0.0.1")...)})
	}
	if w.method == "OPTIONS" && !chance(r, 4) {
		w.headers = append(w.headers, Header{"Origin", pick(r, "https://a.test", "null", "")}, Header{"Access-Control-Request-Method", pick(r, "GET", "POST", "PUT", "")})
	}
	if chance(r, 30) {
		w.headers = append(w.headers, Header{pick(r, "X-A", "x_a", "X-Legation-Scope", "x-forwarded-host", "Proxy-Connection"), "yes"})
	}
	return w
}

// requestPath is mostly near the paths of routes, in forms that Envoy makes one of.
func requestPath(r *rand.Rand) string {
	odd := []string{
		"..", ".", "", "%2e%2e", "%2E", "a;x", "..;", ".;b", "%61", "%7e", "%2F", "%5c", "\\", "%25", "%zz", "%", "%a", "a%", "%00", "a%0a", "[a]", "{a}", "a\"b", "<a>", "a^b", "a`b",
		"%2", "..%2f", "a.", "a%20", "%c3%a4", "%C0%AF", "*", "a*b", "%41", "%2D", "%2e%2e%2e", ".%2e", "a/../..", "%252e", "'a'", "a,b", "%7C", "@", "!", "ä", "%5B",
	}
	var b strings.Builder
	for range r.IntN(5) {
		b.WriteString("/")
		switch {
		case chance(r, 6):
			b.WriteString(pick(r, odd...))
		case chance(r, 6):
			s := pick(r, segments...)
			b.WriteString(pick(r, strings.ToUpper(s), s+"x", strings.ToLower(s)))
		default:
			b.WriteString(pick(r, segments...))
		}
	}
	if b.Len() == 0 || chance(r, 8) {
		b.WriteString("/")
	}
	if chance(r, 30) {
		return "/" + b.String()
	}
	return b.String()
}

func requestQuery(r *rand.Rand) string {
	if !chance(r, 2) {
		return pick(r, "", "", "", "?")
	}
	var parts []string
	for range 1 + r.IntN(3) {
		name := pick(r, parameters...)
		switch r.IntN(6) {
		case 0:
			parts = append(parts, name)
		case 1:
			parts = append(parts, pick(r, "", "=", "=yes", "q=yes=no", "q==", "%71=yes", "x=/../a", "q=a%20b", "q=;", "q?q=yes", "q=yes?", "&"))
		default:
			parts = append(parts, name+"="+pick(r, "yes", "no", "YES", "1", "", "a,b", "a+b"))
		}
	}
	return "?" + strings.Join(parts, "&")
}
