package control

import (
	"fmt"
	"strings"

	"github.com/legation/legation/policy"
)

// products are a few lines that stand for far more than they say: one thing for each of many others.
func products() []hostile {
	x := strings.Repeat
	return []hostile{
		{name: "routes for the same requests", files: one(oneGateway, oneService, "routes:\n", repeat(6_000, "  r%d: {hostnames: [a.test], backends: {a: 1}}\n"))},
		{name: "routes with the same headers", files: one(oneGateway, oneService, "routes:\n",
			repeat(3_000, "  r%[1]d: {hostnames: [a.test], match: {headers: {a: b, c: d, e: f}}, backends: {a: 1}}\n"))},
		{name: "redirects to themselves", files: one(oneGateway, "routes:\n", repeat(5_000, "  r%[1]d: {hostnames: [h%[1]d.test], redirect: {hostname: h%[1]d.test}}\n"))},
		{name: "mistakes in the defaults of routes", files: one(defaults("rateLimit: {rate: 1/second, by: consumer}"), oneService, routes(5_000, ""))},
		{name: "mirrors of routes", files: one(defaults("mirror: {service: b, percent: 5%}"), oneService, routes(4_000, ""))},
		{name: "origins for routes", files: one(defaults("cors: {allowOrigins: ["+repeat(1_000, "'https://a%d.test',")+"]}"), oneService, routes(4_000, ""))},
		{name: "headers of preflights for routes", files: one(defaults("cors: {allowOrigins: ['*'], allowHeaders: ["+repeat(30_000, "x-%d,")+"]}"), oneService, routes(3_000, ""))},
		{name: "ranges for routes", files: one(defaults("access: {deny: ["+repeat(1_000, "'fd00::%x',")+"]}"), oneService, routes(4_000, ""))},
		{name: "long headers for routes", want: "more than 128 MiB: this here stands in Envoy once for each route", files: one(defaults("headers: {request: {set: {"+repeat(100, "x-h%d: '"+x("v", 5_000)+"',")+"}}}"), oneService, routes(4_000, ""))},
		{name: "long parameters for routes", files: one(defaults("query: {set: {"+repeat(100, "h%d: '"+x("v", 4_000)+"',")+"}}"), oneService, routes(4_000, ""))},
		{name: "exceptions for routes", files: one(defaults("rateLimit: {rate: 1/second, by: {header: a}, overrides: {"+repeat(1_000, "v%d: unlimited,")+"}}"), oneService, routes(4_000, ""))},
		{name: "headers of one route in many tables", want: "more than 512 MiB: this here stands in Envoy once for each hostname", files: one("gateways: {e: {listeners: {", repeat(100, "h%d: {port: 1%[1]d},"), "}}}\n", oneService,
			"routes: {r: {hostnames: [", repeat(1_000, "h%d.test,"), "], backends: {a: 1}, headers: {request: {set: {", repeat(100, "x-h%d: '"+x("v", 5_000)+"',"), "}}}}}")},
		{name: "hosts and listeners", files: one("gateways: {e: {listeners: {", repeat(900, "h%d: {port: 1%[1]d},"), "}}}\n", oneService,
			"routes:\n", repeat(2_000, "  r%d: {hostnames: [h%[1]d], backends: {a: 1}}\n"))},
		{name: "hosts, listeners and gateways", want: "more than 1000000 times", files: one("gateways:\n", repeat(1_000, "  e%d: {listeners: {h: {port: 80}}}\n"), oneService,
			"routes: {r: {hostnames: [", repeat(3_000, "h%d.test,"), "], gateways: [", repeat(1_000, "e%d,"), "], backends: {a: 1}}}")},
		{name: "listeners of gateways", want: "more than 5000 listeners", files: one("gateways:\n", repeat(150, "  g%d: {listeners: {"+repeat(100, "h%d: {port: 1%[1]d},")+"}}\n"))},
		{name: "listeners at one port", files: one("gateways: {a: {listeners: {", repeat(20_000, "l%d: {port: 80},"), "}}}")},
		{name: "a mesh of all with all", want: "more than 15000 services", files: one("services:\n", repeat(200, "  s%d: {endpoints: ['10.0.0.1:15006']}\n"), "sidecars:\n",
			repeat(200, "  s%d: {"+inboundOf+"["+repeat(200, "s%d,")+"]}, outbound: {port: 15001, services: ["+repeat(200, "s%d,")+"]}}\n"))},
		{name: "sources of hosts", files: one(oneGateway, oneService, "routes:\n",
			repeat(2_000, "  r%[1]d: {hostnames: [h], match: {path: /%[1]d, source: ['::%[1]x', '1::%[1]x']}, backends: {a: 1}}\n"))},
	}
}

// besides are files that policy refers to.
func besides() []hostile {
	x := strings.Repeat
	keys := func(content string) func() policy.Files {
		return beside("k.json", content, oneGateway, oneService, "auth: {k: {jwt: {issuer: 'https://a', audiences: any, jwks: {file: k.json}}}}\n", routes(1, ", auth: [k]"))
	}
	authorities := func(content string) func() policy.Files {
		return beside("ca.pem", content, oneGateway, "services:\n", repeat(5_000, "  s%d: {dns: 'a:1', tls: {ca: {file: ca.pem}}}\n"),
			"routes: {r: {hostnames: [a.test], backends: {s1: 1}}}")
	}
	endpoints := func(content string) func() policy.Files {
		return beside("s.endpoints", content, oneGateway, "services:\n", repeat(5_000, "  s%d: {endpoints: {file: s.endpoints}}\n"))
	}
	return []hostile{
		{name: "keys, far too many", files: keys(`{"keys":[` + x(`{"kty":"oct"},`, 70_000) + `{}]}`)},
		{name: "keys that nest", files: keys(x(`{"keys":[`, 110_000))},
		{name: "a key of a megabyte", files: keys(`{"keys":[{"kty":"RSA","e":"AQAB","n":"` + x("A", 1<<20-60) + `"}]}`)},
		{name: "keys that are no JSON", files: keys(x("\x00", 1<<20))},
		{name: "authorities without a certificate", files: authorities(x("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 16_000))},
		{name: "authorities that only begin", files: authorities(x("-----BEGIN CERTIFICATE-----\n", 37_000))},
		{name: "authorities that are no PEM", files: authorities(x("A", 1<<20))},
		{name: "lines of endpoints", files: endpoints(x("1.1.1.1:0\n", 100_000))},
		{name: "one line of words", files: endpoints("1.1.1.1:1" + x(" w", 500_000))},
		{name: "a deep list of endpoints", files: endpoints(`["` + `",` + x("[", 1<<19))},
		{name: "an alias bomb of endpoints", files: endpoints("[&a [x,x,x,x], " + x("*a, ", 90_000) + "1]")},
		{name: "names and passwords", files: beside("k.txt", repeat(10_000, "user%d:$2y$10$abcdefghijklmnopqrstuvABCDEFGHIJKLMNOPQRSTUV0123456789abcde\n"),
			oneGateway, oneService, "auth:\n", repeat(3_000, "  k%d: {basic: {file: k.txt}}\n"), routes(1, ", auth: [k1]"))},
		{name: "pages that are too long", files: beside("b.html", x("x", 1<<20),
			oneGateway, "routes:\n", repeat(5_000, "  r%[1]d: {hostnames: [a.test], match: {path: /%[1]d}, directResponse: {file: b.html}}\n"))},
		{name: "files that are not there", files: func() policy.Files {
			f := one(oneGateway, "services:\n", repeat(5_000, "  s%d: {endpoints: {file: x%[1]d.endpoints}}\n"))()
			for i := range policy.MaxFiles {
				f[fmt.Sprintf("y%d.endpoints", i)] = []byte("10.0.0.1:1")
			}
			return f
		}},
	}
}

// directories are files that are too much together: each of them may be read, or refused, for itself. They cost by their
// number and size.
func directories() []hostile {
	x := strings.Repeat
	return []hostile{
		{name: "files, more than there may be", files: many(policy.MaxFiles+1, "routes: {}")},
		{name: "files of more than 64 MiB", files: many(65, "routes: "+x("x", 1<<20-8))},
		{name: "files of values", want: "more than about 2000000 values", files: many(60, "routes: ["+x("a,", 49_000)+"]"), most: 8},
		{name: "files of unknown keys", files: many(60, "routes:\n  a:\n"+repeat(70_000, "    k%d: 1\n")), most: 8},
		{name: "files with a problem each", files: many(policy.MaxFiles, "x: ["), most: 128},
		{name: "files with many problems each", files: many(1_000, "routes: {r: {"+repeat(300, "k%d: 1,")+"}}"), most: 260},
	}
}

// large are good policies that are as large as somebody may want them, or as a bound lets them be.
func large() []hostile {
	x := strings.Repeat
	return []hostile{
		{name: "10,000 routes in 500 files", taken: true, most: 300, files: func() policy.Files {
			f := policy.Files{"edge.yaml": []byte(oneGateway)}
			for i := range 500 {
				f[fmt.Sprintf("team%d.yaml", i)] = []byte(fmt.Sprintf("services: {s%d: {endpoints: ['10.0.0.1:80']}}\nroutes:\n", i) + repeat(20, fmt.Sprintf(
					"  r%[1]d-%%[1]d: {hostnames: [h%[1]d.test], match: {path: /%%[1]d}, backends: {s%[1]d: 1}, timeouts: {request: 5s}, rateLimit: {rate: 5/second}}\n", i)))
			}
			return f
		}},
		{name: "4,000 routes in one file", taken: true, files: one(oneGateway, oneService, routes(4_000, ""))},
		{name: "one condition for 2,000 routes", taken: true, files: one(defaults("auth: [k], authorize: {rules: [\"request.method == 'GET' || 'admin' in identity.roles\"]}"),
			oneService, oneAuth, routes(2_000, ""))},
		{name: "400 conditions", taken: true, files: one(oneGateway, oneService, oneAuth, routes(400, rule("request.method == 'GET' || identity.team == 't%[1]d'")))},
		{name: "900 ranges for 1,500 routes", taken: true, most: 600, files: one(defaults("access: {deny: ["+repeat(900, "'fd00::%x',")+"]}"), oneService, routes(1_500, ""))},
		{name: "100 listeners of 4,900 hosts", taken: true, most: 320, files: one("gateways: {e: {listeners: {", repeat(100, "h%d: {port: 1%[1]d},"), "}}}\n", oneService,
			"routes: {r: {hostnames: [", repeat(4_900, "h%d.test,"), "], backends: {a: 1}}}")},
		{name: "1,000 gateways", taken: true, most: 200, files: one(repeat(999, "---\ngateways: {e%d: {listeners: {h: {port: 80}}}}\n"))},
		{name: "9,000 certificates", taken: true, most: 96, files: one("gateways: {e: {listeners: {h: {port: 1, protocol: HTTPS, certificates: [",
			repeat(9_000, "{hostname: a%[1]d.test, secret: a/b%[1]d},"), "]}}}}\n", oneService, routes(1, ""))},
		{name: "a mesh of 100 services", taken: true, most: 300, files: one("services:\n", repeat(100, "  s%d: {endpoints: ['10.0.0.1:15006']}\n"), "sidecars:\n",
			repeat(100, "  s%d: {"+inboundOf+"["+repeat(100, "s%d,")+"]}, outbound: {port: 15001, services: ["+repeat(100, "s%d,")+"]}}\n"))},
		{name: "a page in 900 routes", taken: true, most: 160, files: beside("b.html", x("x", 64<<10),
			oneGateway, "routes:\n", repeat(900, "  r%[1]d: {hostnames: [a.test], match: {path: /%[1]d}, directResponse: {file: b.html}}\n"))},
		{name: "3,000 patches", taken: true, files: one(oneGateway, oneService, routes(3_000, ", envoy: {route: {statPrefix: a%[1]d}}"))},
		{name: "9,000 descriptors", taken: true, most: 80, files: one("rateLimits: {d: {descriptors: [", repeat(9_000, "{entry: a, value: v%d, rate: 1/second},"), "]}}")},
	}
}
