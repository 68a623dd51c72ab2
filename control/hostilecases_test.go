package control

import (
	"fmt"
	"strings"

	"github.com/legation/legation/policy"
)

// hostile is files that are made to cost more than they are worth, or that are merely large.
type hostile struct {
	name  string
	files func() policy.Files
	want  string // that the first problem says
	taken bool   // it is a good policy: what it costs goes by what Envoy gets of it
	most  int    // MiB that may be allocated; 0: affordable
}

// parsers is allowed for lists within many others: the YAML parser makes so much garbage of these, and holds little of it at
// once.
const parsers = 180

// Parts of policies.
const (
	oneGateway = "gateways: {e: {listeners: {h: {port: 80}}}}\n"
	oneService = "services: {a: {dns: 'a:80'}}\n"
	oneAuth    = "auth: {k: {apiKey: {header: x}}}\n"
	inboundOf  = "app: '127.0.0.1:8080', certificate: a/b, ca: {secret: mesh/ca}, inbound: {port: 15006, peers: "
)

// repeat writes a format n times, each with its number.
func repeat(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// one is a policy of one file.
func one(parts ...string) func() policy.Files { return beside("", "", parts...) }

// beside is a policy of one file and another file beside it.
func beside(name, content string, parts ...string) func() policy.Files {
	return func() policy.Files {
		f := policy.Files{"a.yaml": []byte(strings.Join(parts, ""))}
		if name != "" {
			f[name] = []byte(content)
		}
		return f
	}
}

// many is n policy files that all say the same.
func many(n int, text string) func() policy.Files {
	return func() policy.Files {
		f := make(policy.Files, n)
		for i := range n {
			f[fmt.Sprintf("f%05d.yaml", i)] = []byte(text)
		}
		return f
	}
}

// routes is n routes of one host with further settings.
func routes(n int, more string) string {
	return "routes:\n" + repeat(n, "  r%[1]d: {hostnames: [a.test], match: {path: /%[1]d}, backends: {a: 1}"+more+"}\n")
}

// alone is the only route, with further settings.
func alone(more string) string {
	return "routes: {r: {hostnames: [a.test], backends: {a: 1}, " + more + "}}\n"
}

// defaults is a gateway whose routes all get these settings.
func defaults(settings string) string {
	return "gateways: {e: {listeners: {h: {port: 80}}, defaults: {" + settings + "}}}\n"
}

// rule is a route's demand for one condition in CEL.
func rule(expression string) string {
	return ", auth: [k], authorize: {rules: [\"" + expression + "\"]}"
}

// texts are files that are no policy, whatever they say: of the wrong bytes, too deep, too long, or too much YAML.
func texts() []hostile {
	x := strings.Repeat
	return []hostile{
		{name: "a file of a megabyte and a byte", files: one(x("a", 1<<20+1))},
		{name: "NUL", files: one(x("\x00", 1<<20))},
		{name: "bad UTF-8", files: one(x("\xff", 1<<20))},
		{name: "bad UTF-8 at the end", files: one("routes: ", x("x", 1<<20-9), "\xff")},
		{name: "UTF-16", files: one("\xff\xfe", x("r\x00", 1<<19-1))},
		{name: "byte order marks", files: one(x("\ufeff", 300_000))},
		{name: "marks of writing direction", files: one("routes: {a: '", x("\u202e", 300_000), "'}")},
		{name: "control characters", files: one("routes: {a: \"", x("\x1b[2J", 200_000), "\"}")},
		{name: "carriage returns", files: one(x("a: 1\r", 200_000))},
		{name: "aliases", files: one("a: &a [x,x]\nb: [", x("*a,", 90_000), "]")},
		{name: "alias bomb", files: one("a: &a [x,x,x,x,x,x,x,x,x]\n", repeat(9, "b%[1]d: &b%[1]d [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"))},
		{name: "anchors", files: one("a: [", x("&a a,", 90_000), "]")},
		{name: "merge keys", files: one("routes:\n", repeat(20_000, "  r%d: {<<: {a: 1}}\n"))},
		{name: "tags", files: one("routes: [", x("!!binary x,", 40_000), "]")},
		{name: "deep lists", files: one(x("[", 1<<20))},
		{name: "deep block lists", files: one(x("- ", 1<<19))},
		{name: "deep maps", files: one(x("{a: ", 1<<18))},
		{name: "documents", files: one(x("---\n", 1<<18))},
		{name: "documents with values", files: one(x("--- a\n", 1<<16))},
		{name: "comments", files: one("routes:\n", x("  - b #x\n  #y\n", 19_000))},
		{name: "colons", files: one(x(":", 1<<20))},
		{name: "a scalar of a megabyte", files: one("routes: ", x("x", 1<<20-8))},
		{name: "a key of a megabyte", files: one("routes: {", x("x", 1<<20-16), ": 1}")},
		{name: "a block scalar of lines", files: one("routes: |\n", x("  x\n", 250_000))},
		{name: "escapes", files: one("a: \"", x(`\n`, 1<<19-4), "\"")},
		{name: "quotes that never close", files: one("a: \"", x("x ", 500_000))},
		{name: "the same key", files: one("routes:\n", x("  a: 1\n", 70_000))},
		{name: "unknown sections", files: one(repeat(70_000, "k%d: 1\n"))},
		{name: "unknown keys", files: one("routes:\n  a:\n", repeat(70_000, "    k%d: 1\n"))},
		{name: "entries of the wrong shape", files: one("routes:\n", repeat(19_000, "  r%d: 1\n"))},
		{name: "names that can't be", files: one("routes: {", repeat(20_000, "%d!: 1, "), x(" ", 500_000), "}")},
		{name: "problems far out in one line", files: one("routes: {a: {hostnames: [", repeat(30_000, "h%d.test,"), "], ", repeat(15_000, "k%d: 1,"), "}}")},
		{name: "a list for a map", files: one("routes: [", x("a,", 49_000), "]")},
	}
}

// settings are single entries that hold more than makes sense.
func settings() []hostile {
	x := strings.Repeat
	return []hostile{
		{name: "hostnames", files: one(oneGateway, oneService, "routes: {r: {hostnames: [", repeat(80_000, "h%d,"), "]}}")},
		{name: "the same hostname", files: one(oneGateway, oneService, "routes: {r: {hostnames: [", x("h,", 80_000), "]}}")},
		{name: "backends", files: one(oneGateway, oneService, "routes: {r: {hostnames: ['*'], backends: {", repeat(40_000, "b%d: 1,"), "}}}")},
		{name: "names that are nearly there", files: one(oneGateway, "services:\n", repeat(15_000, "  service-number-%d: {dns: 'a:1'}\n"),
			"routes: {r: {hostnames: ['*'], backends: {", repeat(900, "servicenumber-%d: 1,"), "}}}")},
		{name: "listeners that are nearly there", files: one("gateways: {e: {listeners: {", repeat(100, "listener-%d: {port: 1%[1]d},"), "}}}\n", oneService,
			"routes:\n", repeat(3_000, "  r%[1]d: {hostnames: [a.test], listeners: ["+repeat(10, "listne-%d,")+"], backends: {a: 1}}\n"))},
		{name: "endpoints", files: one("services: {a: {endpoints: [", repeat(40_000, "'10.0.0.1:%d',"), "]}}")},
		{name: "ranges of clients", files: one(oneGateway, oneService, alone("match: {source: ["+x("10.0.0.1,", 40_000)+"]}"))},
		{name: "ranges that may not come", files: one(oneGateway, oneService, alone("access: {deny: ["+repeat(40_000, "10.0.%d.0/24,")+"]}"))},
		{name: "origins", files: one(oneGateway, oneService, alone("cors: {allowOrigins: ["+repeat(40_000, "'https://*.a%d.test',")+"]}"))},
		{name: "headers to remove", files: one(oneGateway, oneService, alone("headers: {request: {remove: ["+repeat(40_000, "x-%d,")+"]}}"))},
		{name: "headers to set", files: one(oneGateway, oneService, alone("headers: {request: {set: {"+repeat(30_000, "x-%d: v,")+"}}}"))},
		{name: "limits in a list", files: one(oneGateway, oneService, alone("rateLimit: ["+x("{rate: 1/second},", 20_000)+"]"))},
		{name: "statuses to retry", files: one(oneGateway, oneService, alone("retry: {attempts: 2, retryOn: ["+repeat(30_000, "'5%02d',")+"]}"))},
		{name: "regexes", files: one("routes:\n", repeat(300, "  r%d: {match: {path: {regex: '"+x("(a{1,999})", 99)+"'}}}\n"))},
		{name: "a regex that grows", files: one(oneGateway, oneService, "routes:\n",
			repeat(900, "  r%[1]d: {hostnames: [a.test], match: {path: {regex: '/%[1]d"+x("(", 8)+"a"+x("{9})", 8)+"'}}, backends: {a: 1}}\n"))},
		{name: "classes of Unicode", files: one("routes:\n", repeat(900, "  r%d: {match: {path: {regex: '(?i)["+x(`\pL`, 4)+x("Ā-ſ", 100)+"]'}}}\n"))},
		{name: "nested stars", files: one(oneGateway, oneService, "routes:\n",
			repeat(900, "  r%[1]d: {hostnames: [a.test], match: {path: {regex: '/%[1]d"+x("(", 300)+"a"+x("*)", 300)+"'}}, backends: {a: 1}}\n"))},
		{name: "templates", files: one("routes:\n", repeat(3_000, "  r%d: {match: {path: {template: '"+x("/{a}", 20)+"'}}}\n"))},
		{name: "long conditions", want: "too long together", files: one(oneGateway, oneService, oneAuth, routes(200, rule(x("request.path == '%[1]d' || ", 150)+"true")))},
		{name: "conditions that nest", files: one(oneGateway, oneService, oneAuth, routes(4_000, rule(x("(", 60)+"'%[1]d' == 'a'"+x(")", 60))))},
		{name: "conditions that nest too deep", files: one(oneGateway, oneService, oneAuth, routes(200, rule(x("(", 2_000)+"true"+x(")", 2_000))))},
		{name: "conditions that loop", files: one(oneGateway, oneService, oneAuth, routes(1_000, rule(x("[1,2,%[1]d].all(x, ", 8)+"true"+x(")", 8))))},
		{name: "conditions over long lists", files: one(oneGateway, oneService, oneAuth, routes(150, rule("%[1]d in ["+x("1,", 1_900)+"1]")))},
		{name: "conditions that don't parse", files: one(oneGateway, oneService, oneAuth, routes(6_000, rule("a +")))},
		{name: "patterns in conditions", files: one(oneGateway, oneService, oneAuth, routes(900, rule("request.path.matches('(a{1,900}){1,900}%[1]d')")))},
		{name: "conditions in one list", files: one(oneGateway, oneService, oneAuth, alone("auth: [k], authorize: {rules: ["+repeat(20_000, "\"request.method == 'GET%d'\",")+"]}"))},
		{name: "expressions to count by", files: one(oneGateway, oneService, routes(900, ", rateLimit: {rate: 1/second, by: {cel: \""+x("request.path + ", 40)+"'%[1]d'\"}}"))},
		{name: "levels of descriptors", most: parsers, files: one(
			"rateLimits: {d: {descriptors: [", x("{entry: a, descriptors: [", 14), repeat(9_000, "{entry: a, value: v%d, rate: 1/second},"), x("]}", 14), "]}}")},
		{name: "descriptors with patterns", want: "more than 1000 ranges and values with *", files: one("rateLimits: {d: {descriptors: [", repeat(9_000, "{entry: a, value: '*a*b*%d*', rate: 1/second},"), "]}}")},
		{name: "commands of a log", want: "bytes, more than 4096", files: one("gateways: {e: {listeners: {h: {port: 80}}, accessLog: [{format: {text: '", x("%REQ(x-a)%", 100_000), "'}}]}}\n", oneService, routes(1, ""))},
		{name: "logs", want: "200 logs, more than 16", files: one("gateways: {e: {listeners: {", repeat(100, "h%d: {port: 1%[1]d},"), "}, accessLog: [",
			repeat(200, "{path: /a%d, format: {"+repeat(40, "a%d: '%%%%REQ(x)%%%%',")+"}},"), "]}}\n", oneService, routes(1, ""))},
		{name: "fields of a log", want: "40000 fields, more than 100", most: parsers, files: one("gateways: {e: {listeners: {h: {port: 80}}, accessLog: [{format: {", repeat(40_000, "a%d: b,"), "}}]}}\n", oneService, routes(1, ""))},
		{name: "statuses of a log", want: "40000 statuses, more than 100", most: parsers, files: one("gateways: {e: {listeners: {h: {port: 80}}, accessLog: [{filter: {statuses: [", x("404,", 40_000), "]}}]}}\n", oneService, routes(1, ""))},
		{name: "unknown fields in a patch", files: one(oneGateway, oneService, alone("envoy: {route: {"+repeat(30_000, "k%d: 1,")+"}}"))},
		{name: "a deep patch", files: one(oneGateway, oneService, alone("envoy: {route: "+x("{route: ", 25)+"1"+x("}", 25)+"}"))},
		{name: "locked keys", files: one("gateways: {e: {listeners: {h: {port: 80}}, defaults: {locked: [", repeat(30_000, "k%d,"), "]}}}\n", oneService, routes(1, ""))},
		{name: "entries that Envoy verifies", want: "more than 32 entries", files: one(oneGateway, oneService, "auth:\n",
			repeat(3_000, "  k%[1]d: {jwt: {issuer: 'https://a%[1]d', audiences: any, jwks: 'https://a%[1]d.test/k', verify: envoy}}\n"), routes(1, ", auth: [k1]"))},
		{name: "keys in the policy", files: one(oneGateway, oneService, "auth: {k: {jwt: {issuer: 'https://a', audiences: any, jwks: {keys: [",
			x("{kty: RSA, e: AQAB, n: AAAA},", 9_000), "]}}}}\n", routes(1, ", auth: [k]"))},
		{name: "consumers of one identity", files: one(oneGateway, oneService, oneAuth, "consumers:\n", repeat(9_000, "  c%[1]d: {identities: {k: a%[1]d}}\n"), routes(1, ", auth: [k]"))},
		{name: "consumers of one key", files: one(oneGateway, oneService, oneAuth, "consumers:\n",
			repeat(6_000, "  c%[1]d: {apiKeys: [{id: abcdefgh23, hash: 'sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'}]}\n"), routes(1, ", auth: [k]"))},
		{name: "peers that are not there", files: one("services:\n", repeat(200, "  s%d: {endpoints: ['10.0.0.1:15006']}\n"), "sidecars:\n",
			repeat(200, "  s%d: {"+inboundOf+"["+repeat(400, "t%d,")+"]}}\n"))},
	}
}
