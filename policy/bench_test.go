package policy_test

import (
	"bytes"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/legation/legation/policy"
)

func manyRoutes(n, perFile int) policy.Files {
	f := policy.Files{"edge.yaml": []byte(edge)}
	for from := 0; from < n; from += perFile {
		f[teamFile(from)] = team(from, min(n, from+perFile), perFile < n, "")
	}
	return f
}

func teamFile(from int) string { return fmt.Sprintf("team%d.yaml", from) }

// team is the file of a team: a service, and its routes from one number to another.
func team(from, to int, settings bool, more string) []byte {
	var b strings.Builder
	b.WriteString("services:\n")
	fmt.Fprintf(&b, "  s%d: {endpoints: [10.0.0.1:80]}\n", from)
	b.WriteString("routes:\n")
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "  r%05d:\n    hostnames: [h%d.example.com]\n    match: {path: /v1/r%d}\n    backends: {s%d: 1}\n", i, i%100, i, from)
		if settings {
			b.WriteString("    timeouts: {request: 5s}\n    cors: {allowOrigins: [\"*\"], maxAge: 10m}\n    rateLimit: {rate: 5}\n")
		}
	}
	b.WriteString(more)
	return []byte(b.String())
}

func BenchmarkLoad10k(b *testing.B) {
	for name, f := range map[string]policy.Files{"1file": manyRoutes(9_000, 9_000), "500files": manyRoutes(10_000, 20)} {
		b.Run(name, func(b *testing.B) {
			l := testLanguage()
			b.ReportAllocs()
			for b.Loop() {
				if _, problems := l.Load(f); problems.HasErrors() {
					b.Fatal(problems[0])
				}
			}
		})
	}
}

// edits are what is done to the file of one team, there and back; the file is in the middle of all.
var edits = map[string]func(from, perFile int) []byte{
	"route": func(from, perFile int) []byte {
		return bytes.Replace(team(from, from+perFile, true, ""), []byte("request: 5s"), []byte("request: 6s"), 1)
	},
	"endpoint": func(from, perFile int) []byte {
		return bytes.Replace(team(from, from+perFile, true, ""), []byte("10.0.0.1:80"), []byte("10.0.0.2:80"), 1)
	},
	"add": func(from, perFile int) []byte {
		return team(from, from+perFile, true, fmt.Sprintf("  added: {hostnames: [h.example.com], backends: {s%d: 1}}\n", from))
	},
}

// BenchmarkEdit loads what differs in one file from what was loaded before, the file read anew as all others are.
func BenchmarkEdit(b *testing.B) {
	for _, size := range []struct {
		name       string
		n, perFile int
	}{{"10k", 10_000, 20}, {"50k", 50_000, 20}} {
		for _, name := range slices.Sorted(maps.Keys(edits)) {
			b.Run(size.name+"/"+name, func(b *testing.B) {
				from := size.n / 2
				before, after := manyRoutes(size.n, size.perFile), manyRoutes(size.n, size.perFile)
				after[teamFile(from)] = edits[name](from, size.perFile)
				l := testLanguage().NewLoader()
				l.Load(before)
				runtime.GC()
				b.ReportAllocs()
				for b.Loop() {
					before, after = after, before
					if _, problems := l.Load(before); problems.HasErrors() {
						b.Fatal(problems[0])
					}
				}
			})
		}
	}
}

func BenchmarkIsolate10k(b *testing.B) {
	last := manyRoutes(10_000, 100)
	candidate := manyRoutes(10_000, 100)
	candidate["team100.yaml"] = []byte(broken)
	l := testLanguage()
	for b.Loop() {
		if _, m, _ := l.Isolate(candidate, last); m == nil {
			b.Fatal("nothing served")
		}
	}
}

// hostile are files that must cost little to refuse, or to read.
var hostile = map[string]string{
	"flow list":        "routes: [" + strings.Repeat("a,", 49_000) + "]",
	"long flow list":   "routes: [" + strings.Repeat("a,", 500_000) + "]",
	"flow map":         "routes: {" + strings.Repeat("a,", 49_000) + "}",
	"dashes":           "routes:\n" + strings.Repeat("- \n", 90_000),
	"deep flow":        strings.Repeat("[", 1<<20),
	"deep block":       strings.Repeat("- ", 1<<19),
	"deep maps":        strings.Repeat("{a: ", 1<<18),
	"documents":        strings.Repeat("---\n", 1<<18),
	"few documents":    strings.Repeat("--- a\n", 1<<16),
	"comments":         "routes:\n" + strings.Repeat("  - b #x\n  #y\n", 1<<16),
	"fewer comments":   "routes:\n" + strings.Repeat("  - b #x\n  #y\n", 19_000),
	"fewer entries":    "routes:\n" + repeat(19_999, "  r%d: {hostnames: 1}\n"),
	"aliases":          "a: &a [x,x]\nb: [" + strings.Repeat("*a,", 90_000) + "]",
	"anchors":          "a: [" + strings.Repeat("&a a,", 90_000) + "]",
	"huge":             strings.Repeat("a", 1<<20+1),
	"long scalar":      "routes: " + strings.Repeat("x", 1<<20-8),
	"long key":         "routes: {" + strings.Repeat("x", 1<<20-16) + ": 1}",
	"nul":              strings.Repeat("\x00", 1<<20),
	"bad utf8":         strings.Repeat("\xff", 1<<20),
	"colons":           strings.Repeat(":", 1<<20),
	"brackets":         strings.Repeat("[]", 1<<19),
	"quotes":           "a: \"" + strings.Repeat(`\n`, 1<<19-4) + "\"",
	"unknown sections": repeat(70_000, "k%d: 1\n"),
	"unknown keys":     "routes:\n  a:\n" + repeat(70_000, "    k%d: 1\n"),
	"entries":          "routes:\n" + repeat(70_000, "  r%d: 1\n"),
	"dup keys":         "routes:\n" + strings.Repeat("  a: 1\n", 70_000),
	"backends":         "services: {a: {dns: 'a:80'}}\nroutes: {r: {hostnames: ['*'], backends: {" + repeat(40_000, "b%d: 1,") + "}}}",
	"hostnames":        "routes: {r: {hostnames: [" + repeat(80_000, "h%d,") + "]}}",
	"same hostname":    "routes: {r: {hostnames: [" + strings.Repeat("h,", 80_000) + "]}}",
	"names":            "services:\n" + repeat(15_000, "  service-number-%d: {dns: 'a:1'}\n") + "routes: {r: {hostnames: ['*'], backends: {" + repeat(15_000, "servicenumber-%d: 1,") + "}}}",
	"regexes":          "routes:\n" + repeat(300, "  r%d: {match: {path: {regex: '"+strings.Repeat("(a{1,999})", 99)+"'}}}\n"),
	"classes":          "routes:\n" + repeat(900, "  r%d: {match: {path: {regex: '(?i)["+strings.Repeat(`\pL`, 4)+strings.Repeat("Ā-ſ", 100)+"]'}}}\n"),
	"ascii classes":    "routes:\n" + repeat(900, "  r%d: {match: {path: {regex: '(?i)["+strings.Repeat(`\pL`, 4)+strings.Repeat(`\W`, 50)+"]'}}}\n"),
	"same requests":    "gateways: {e: {listeners: {h: {port: 1}}}}\nservices: {a: {dns: 'a:80'}}\nroutes:\n" + repeat(9_000, "  r%d: {hostnames: ['*'], backends: {a: 1}}\n"),
	"bad defaults":     "gateways: {e: {listeners: {h: {port: 1}}, defaults: {rateLimit: {rate: 1, by: consumer}}}}\nservices: {a: {dns: 'a:80'}}\nroutes:\n" + repeat(9_000, "  r%d: {hostnames: [h%[1]d], backends: {a: 1}}\n"),
	"endpoints":        "services: {a: {endpoints: [" + repeat(40_000, "'10.0.0.1:%d',") + "]}}",
	"endpoint maps":    "services: {a: {endpoints: [" + repeat(9_000, "{address: '10.0.0.1:%d', weight: 1, zone: a},") + "]}}",
	"their listeners":  "gateways: {a: {listeners: {" + repeat(5_000, "l%d: {port: 80},") + "}}}\n---\nroutes: {r: {hostnames: [" + repeat(30_000, "h%d,") + "], listeners: [" + repeat(5_000, "l%d,") + "]}}",
	"sources":          "routes: {r: {hostnames: ['*'], match: {source: [" + strings.Repeat("10.0.0.1,", 40_000) + "]}}}",
	"templates":        "routes:\n" + repeat(3_000, "  r%d: {match: {path: {template: '"+strings.Repeat("/{a}", 20)+"'}}}\n"),
	"other sources":    "routes: {r: {hostnames: ['*'], match: {source: [" + repeat(40_000, "'::%x',") + "]}}}",
	"all sources":      "gateways: {e: {listeners: {h: {port: 1}}}}\nservices: {a: {dns: 'a:80'}}\nroutes:\n" + repeat(2_000, "  r%[1]d: {hostnames: [h], match: {path: /%[1]d, source: ['::%[1]x', '1::%[1]x']}, backends: {a: 1}}\n"),
	"other listeners":  "gateways: {a: {listeners: {" + repeat(15_000, "l%[1]d: {port: %[1]d},") + "}}}",
	"crowd":            "gateways: {e: {listeners: {" + repeat(900, "l%d: {port: 1%[1]d},") + "}}}\nservices: {a: {dns: 'a:80'}}\nroutes:\n" + repeat(2_000, "  r%d: {hostnames: [h%[1]d], backends: {a: 1}}\n"),
	"listeners":        "gateways: {a: {listeners: {" + repeat(20_000, "l%d: {port: 80},") + "}}}",
}

func repeat(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// costsLittle loads files that have to be refused, and bounds what that may tell and allocate.
func costsLittle(t *testing.T, l *policy.Language, files policy.Files) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, problems := l.Load(files)
	runtime.ReadMemStats(&after)
	if !problems.HasErrors() {
		t.Error("taken")
	}
	if len(problems) > 250 {
		t.Errorf("%d problems told", len(problems))
	}
	if got := (after.TotalAlloc - before.TotalAlloc) >> 20; got > 80 {
		t.Errorf("%d MiB allocated", got)
	}
}

// TestManyServicesReadOneFileOnce: a file of endpoints is read once, whoever names it, and good for so many services only.
func TestManyServicesReadOneFileOnce(t *testing.T) {
	const head = "gateways: {edge: {listeners: {http: {port: 80}}}}\nservices:\n"
	l := testLanguage()
	for name, file := range map[string]string{"bad": strings.Repeat("1.1.1.1:0\n", 9_000), "good": repeat(9_000, "1.1.1.1:1%04d\n")} {
		f := policy.Files{"p.yaml": []byte(head + repeat(15_000, "  s%d: {endpoints: {file: s.endpoints}}\n")), "s.endpoints": []byte(file)}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, problems := l.Load(f)
		runtime.ReadMemStats(&after)
		if !problems.HasErrors() {
			t.Errorf("%s: taken", name)
		}
		if got := (after.TotalAlloc - before.TotalAlloc) >> 20; got > 250 {
			t.Errorf("%s: %d MiB allocated", name, got)
		}
	}
}

func BenchmarkHostile(b *testing.B) {
	l := testLanguage()
	for name, content := range hostile {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l.Load(policy.Files{"a.yaml": []byte(content)})
			}
		})
	}
}
