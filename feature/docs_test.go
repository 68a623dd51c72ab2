package feature_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
)

const keysFile = "../docs/keys.md"

func TestReferenceOfKeysIsMadeOfTheFeatures(t *testing.T) {
	got := reference(readSchema(t))
	if flag.Lookup("update").Value.String() == "true" { // the flag of feature/golden
		if err := os.WriteFile(keysFile, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(keysFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), -update writes it:\n%s", keysFile, diff)
	}
}

// places are the entries that keys may stand in: their names in the schema, in the reference and in the features' docs.
var places = []struct {
	place                    policy.Place
	schema, heading, in, doc string
}{
	{policy.InGateway, "gateway", "gateways.NAME", "gateway", "a gateway"},
	{policy.InListener, "listener", "gateways.NAME.listeners.NAME", "listener", "a listener"},
	{policy.InDefaults, "defaults", "gateways.NAME.defaults", "`defaults`", "a gateway's `defaults`"},
	{policy.InService, "service", "services.NAME", "service", "a service"},
	{policy.InRoute, "route", "routes.NAME", "route", "a route"},
	{policy.InAuth, "auth", "auth.NAME", "entry of `auth`", "an entry of the section `auth`"},
	{policy.InConsumer, "consumer", "consumers.NAME", "consumer", "a consumer"},
	{policy.InPlan, "plan", "plans.NAME", "plan", "a plan"},
	{policy.InDomain, "domain", "rateLimits.NAME", "domain", "a domain"},
}

// parts are further entries, of what the keys of places stand in.
var parts = []struct {
	place                    policy.Place
	schema, heading, summary string
}{
	{policy.InGateway, "sidecar", "sidecars.NAME", "an Envoy beside an app; NAME is the service that the app is"},
	{policy.InRoute, "inbound", "sidecars.NAME.inbound", "the calls that a sidecar takes for its app, as a route"},
}

// object is a part of the JSON Schema.
type object = map[string]any

func readSchema(t *testing.T) object {
	t.Helper()
	var schema object
	if err := json.Unmarshal(feature.Language().Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	return schema
}

const introduction = `<!-- Made of the schema and of feature/*/doc.md by feature/docs_test.go: change it there, then run make docs. -->
# Every key of the policy language

[language.md](language.md) tells how sections, layers and files work together; here is what each key takes. A file holds
some of the sections ` + "`gateways`, `sidecars`, `services`, `routes`, `auth`, `consumers`, `plans` and `rateLimits`" + `; NAME stands for a name of your
own: up to 63 of a-z, 0-9, - and ., beginning and ending with a letter or digit.

`

// reference is docs/keys.md.
func reference(schema object) string {
	b := &strings.Builder{}
	b.WriteString(introduction)
	b.WriteString("| entry | what it is |\n| --- | --- |\n")
	for _, p := range places {
		fmt.Fprintf(b, "| [`%s`](#%s) | %s |\n", p.heading, slug(p.heading), summaries[p.place])
	}
	for _, p := range parts {
		fmt.Fprintf(b, "| [`%s`](#%s) | %s |\n", p.heading, slug(p.heading), p.summary)
	}
	b.WriteString("\n| key | stands in | what it does |\n| --- | --- | --- |\n")
	for _, k := range feature.All() {
		summary, _, _ := strings.Cut(k.Doc, "\n")
		fmt.Fprintf(b, "| [`%s`](#%s) | %s | %s |\n", k.Key, slug(title(k)), joined(k.Places, ", ", ", "), strings.TrimSuffix(said(k, summary), "."))
	}
	for _, p := range places {
		entry(b, schema, p.schema, p.heading, p.place)
	}
	for _, p := range parts {
		entry(b, schema, p.schema, p.heading, p.place)
	}
	for _, k := range feature.All() {
		fmt.Fprintf(b, "\n## %s\n\n%s\n", title(k), strings.TrimSpace(k.Doc))
	}
	return strings.ReplaceAll(b.String(), "\n\n\n", "\n\n")
}

var summaries = map[policy.Place]string{
	policy.InGateway:  "a group of Envoys that are served the same",
	policy.InListener: "a port that they listen on",
	policy.InDefaults: "layer 1 of the settings: every route of the gateway",
	policy.InService:  "what routes send requests to, by `endpoints` or `dns`; layer 2: every route to the service",
	policy.InRoute:    "which requests go where; layer 3: this route",
	policy.InAuth:     "a way to tell who calls: one key",
	policy.InConsumer: "a caller by a name of your own",
	policy.InPlan:     "what consumers may use",
	policy.InDomain:   "what Envoys that others configure may ask the rate limit service for; NAME is their domain",
}

// title is the heading of a key: its place too where the key means something else in another place, and of the parts of a
// plan, whose names are common ones.
func title(k *policy.Kind) string {
	shared := slices.ContainsFunc(feature.All(), func(other *policy.Kind) bool { return other.Key == k.Key && other != k })
	if !shared && k.Places != policy.InPlan {
		return k.Key
	}
	return k.Key + " in " + strings.NewReplacer("entry of `auth`", "auth", "consumer", "consumers", "plan", "plans").Replace(joined(k.Places, ", ", " and "))
}

// said is a summary without the key that it begins with.
func said(k *policy.Kind, summary string) string { return strings.TrimPrefix(summary, "`"+k.Key+"` ") }

func joined(of policy.Place, comma, last string) string {
	var names []string
	for _, p := range places {
		if of&p.place != 0 {
			names = append(names, p.in)
		}
	}
	return list(names, comma, last)
}

func list(names []string, comma, last string) string {
	n := len(names) - 1
	if n < 1 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:n], comma) + last + names[n]
}

// entry writes the fields that an entry has of its own, and the keys that may stand in it.
func entry(b *strings.Builder, schema object, name, heading string, place policy.Place) {
	defined := dig(schema, "$defs", name)
	var keys []string
	own := maps.Clone(dig(defined, "properties"))
	for _, k := range feature.All() {
		if k.Places&place != 0 {
			keys = append(keys, fmt.Sprintf("[`%s`](#%s)", k.Key, slug(title(k))))
			delete(own, k.Key)
		}
	}
	fmt.Fprintf(b, "\n## %s\n\n", heading)
	if len(own) > 0 {
		table(b, schema, own, defined["required"])
	}
	if len(keys) > 0 {
		fmt.Fprintf(b, "Keys that may stand here: %s.\n", strings.Join(keys, ", "))
	}
	for _, field := range slices.Sorted(maps.Keys(own)) {
		to, _ := dig(own, field)["$ref"].(string)
		if inner := dig(schema, "$defs", strings.TrimPrefix(to, "#/$defs/")); to != "" && field != "defaults" && field != "inbound" {
			fmt.Fprintf(b, "\n### %s.%s\n\n", heading, field)
			table(b, schema, dig(inner, "properties"), inner["required"])
		}
	}
}

func table(b *strings.Builder, schema, fields object, required any) {
	needed, _ := required.([]any)
	b.WriteString("| field | meaning |\n| --- | --- |\n")
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		field := dig(fields, name)
		meaning, _ := field["description"].(string)
		if slices.Contains(needed, any(name)) {
			meaning += "; required"
		}
		if values, ok := field["enum"].([]any); ok {
			var all []string
			for _, v := range values {
				all = append(all, fmt.Sprintf("`%v`", v))
			}
			meaning += ". One of: " + strings.Join(all, ", ")
		}
		fmt.Fprintf(b, "| `%s` | %s |\n", name, strings.ReplaceAll(meaning, "|", `\|`))
	}
	b.WriteString("\n")
}

func dig(o object, path ...string) object {
	for _, name := range path {
		o, _ = o[name].(object)
	}
	return o
}

// slug is the anchor that a heading has on the pages of GitHub and its like.
func slug(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}

func TestDocsOfKeysNameEveryField(t *testing.T) {
	schema := readSchema(t)
	for _, k := range feature.All() {
		words := map[string]bool{}
		for _, p := range places {
			if k.Places&p.place != 0 {
				gather(schema, dig(schema, "$defs", p.schema, "properties", k.Key), words, map[string]bool{})
			}
		}
		tags(reflect.TypeOf(k.New()), words)
		code := strings.Join(codeOf(k.Doc), "\n")
		for word := range words {
			if !regexp.MustCompile(`(^|[^\w-])` + regexp.QuoteMeta(word) + `($|[^\w-])`).MatchString(code) {
				t.Errorf("the doc of %s does not name %q", title(k), word)
			}
		}
	}
}

// gather collects the names of fields and the words for values that a part of the schema knows.
func gather(schema object, part any, words, seen map[string]bool) {
	switch part := part.(type) {
	case []any:
		for _, item := range part {
			gather(schema, item, words, seen)
		}
	case object:
		if to, ok := part["$ref"].(string); ok && !seen[to] {
			seen[to] = true
			gather(schema, dig(schema, "$defs", strings.TrimPrefix(to, "#/$defs/")), words, seen)
		}
		for name := range dig(part, "properties") {
			words[name] = true
		}
		values, _ := part["enum"].([]any)
		for _, v := range append(values, part["const"]) {
			if word, ok := v.(string); ok && word != "off" {
				words[word] = true
			}
		}
		for _, inner := range part {
			gather(schema, inner, words, seen)
		}
	}
}

// tags collects the names of the fields below a type, also those that a schema of its own hides.
func tags(typ reflect.Type, words map[string]bool) {
	switch typ.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		tags(typ.Elem(), words)
	case reflect.Struct:
		for i := range typ.NumField() {
			field := typ.Field(i)
			name, _, _ := strings.Cut(field.Tag.Get("policy"), ",")
			again := name != "" && field.Type.Kind() == reflect.Slice && field.Type.Elem() == typ // a tree
			if name != "" && name != "-" {
				words[name] = true
			}
			if field.IsExported() && field.Type != typ && !again {
				tags(field.Type, words)
			}
		}
	}
}

func TestDocsOfKeysAreLaidOutAlike(t *testing.T) {
	for _, k := range feature.All() {
		var names []string
		for _, p := range places {
			if k.Places&p.place != 0 {
				names = append(names, p.doc)
			}
		}
		where := "Stands in " + list(names, ", ", " and ")
		if len(names) > 1 {
			where = "May stand in " + list(names, ", ", " and ")
		}
		if text := strings.Join(strings.Fields(k.Doc), " "); !strings.Contains(text, where) {
			t.Errorf("the doc of %s does not say: %s", title(k), where)
		}
		for line := range strings.Lines(outsideFences(k.Doc)) {
			if strings.HasPrefix(line, "#") {
				t.Errorf("the doc of %s has the heading %q: it stands below one already", title(k), line)
			}
		}
	}
}

func TestTablesHaveWholeRows(t *testing.T) {
	for name, text := range documents(t) {
		columns := 0
		for line := range strings.Lines(outsideFences(text)) {
			if !strings.HasPrefix(line, "|") {
				columns = 0
				continue
			}
			cells := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|")
			if columns == 0 {
				columns = cells
			}
			if cells != columns || len(line) > 0 && !strings.HasSuffix(strings.TrimSpace(line), "|") {
				t.Errorf("%s: a row of %d cells in a table of %d: %s", name, cells-1, columns-1, line)
			}
		}
	}
}

// documents is the Markdown files by their path from the top.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"../*.md", "../docs/*.md", "../feature/*/*.md", "../examples/*.md", "../examples/*/*.md"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all[strings.TrimPrefix(filepath.ToSlash(name), "../")] = string(text)
		}
	}
	if len(all) < 20 {
		t.Fatalf("found %d documents only", len(all))
	}
	return all
}

// block is a fenced block of a document.
type block struct {
	line       int
	info, text string
}

func blocks(text string) (all []block) {
	var open *block
	for i, line := range strings.SplitAfter(text, "\n") {
		info, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open == nil:
			open = &block{line: i + 1, info: strings.TrimSpace(info)}
		case fence:
			all, open = append(all, *open), nil
		case open != nil:
			open.text += line
		}
	}
	return all
}

var fenced = regexp.MustCompile("(?ms)^```.*?^```\\s*?$")

func outsideFences(text string) string { return fenced.ReplaceAllString(text, "") }

var span = regexp.MustCompile("`([^`]+)`")

// codeOf is what a document sets as code: blocks other than YAML of Envoy's, and spans.
func codeOf(text string) (all []string) {
	for _, b := range blocks(text) {
		all = append(all, b.text)
	}
	for _, s := range span.FindAllStringSubmatch(outsideFences(text), -1) {
		all = append(all, s[1])
	}
	return all
}

// TestReadmeShowsAProblemAsItIs breaks the policy of the README as the README says.
func TestReadmeShowsAProblemAsItIs(t *testing.T) {
	readme := documents(t)["README.md"]
	for _, b := range blocks(readme) {
		if b.info != "yaml" {
			continue
		}
		files := policy.Files{"edge.yaml": []byte(strings.Replace(b.text, "100/minute", "100", 1))}
		_, problems := feature.Language().Load(files)
		var out bytes.Buffer
		if err := problems.Write(&out, files, false); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(readme, strings.TrimSpace(out.String())) {
			t.Errorf("README.md does not show what legation tells of rate: 100:\n%s", &out)
		}
		return
	}
	t.Error("README.md has no policy")
}

// foreignFlags are flags of other programs that the documents name.
var foreignFlags = map[string]string{
	"--file-flush-interval-msec": "envoy",
	"--disable-hot-restart":      "envoy",
	"--cert":                     "curl",
	"--resolve":                  "curl",
	"--now":                      "systemctl",
	"--system":                   "useradd",
	"--shell":                    "useradd",
}

var (
	verbs    = regexp.MustCompile(`(?m)^  ([a-z]+) +[A-Z]`)
	flags    = regexp.MustCompile(`--[a-z][a-z-]*`)
	command  = regexp.MustCompile(`(?:^|[\s(/=])legation ([a-z]+)([^|;&>)#\n]*)`)
	variable = regexp.MustCompile(`LEGATION_[A-Z][A-Z_]*`)
	target   = regexp.MustCompile(`(?m)(?:^|[$\s])make ([a-z]+)`)
	metric   = regexp.MustCompile(`legation_[a-z_]+`)
)

// TestCommandLinesInDocsExist holds verbs, flags and variables in the documents against the built program's help.
func TestCommandLinesInDocsExist(t *testing.T) {
	help := helps(t)
	every := strings.Join(slices.Collect(maps.Values(help)), "\n") +
		" --changes --domain --entry --for --grpc-timeout --legation --list --pid --promises --rounds --run --seconds --target --variant" // of go run ./bench and below, and ./soak
	known := func(flag, text string) bool { return slices.Contains(flags.FindAllString(text, -1), flag) }
	for name, text := range documents(t) {
		for _, code := range codeOf(text) {
			code = strings.ReplaceAll(code, "\\\n", "")
			for _, c := range command.FindAllStringSubmatch(code, -1) {
				if help[c[1]] == "" {
					t.Errorf("%s: there is no verb in %q", name, strings.TrimSpace(c[0]))
				}
				for _, flag := range flags.FindAllString(c[2], -1) {
					if !known(flag, help[c[1]]) {
						t.Errorf("%s: legation %s has no flag %s", name, c[1], flag)
					}
				}
			}
			for _, flag := range flags.FindAllString(code, -1) {
				if foreignFlags[flag] == "" && !known(flag, every) {
					t.Errorf("%s: nothing has the flag %s", name, flag)
				}
			}
			for _, v := range variable.FindAllString(code, -1) {
				flag := "--" + strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(v, "LEGATION_"), "_", "-"))
				if strings.HasPrefix(v, "LEGATION_SECRET_") { // a secret, by a name of the policy
					continue
				}
				if !known(flag, every) {
					t.Errorf("%s: %s stands for no flag", name, v)
				}
			}
		}
	}
}

// helps is what the built program tells of each of its verbs.
func helps(t *testing.T) map[string]string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "legation")
	run := func(name string, args ...string) string {
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	run("go", "build", "-buildvcs=false", "-o", binary, "../cmd/legation")
	all := map[string]string{}
	_, commands, _ := strings.Cut(run(binary, "--help"), "Available Commands:")
	for _, verb := range verbs.FindAllStringSubmatch(commands, -1) {
		all[verb[1]] = run(binary, verb[1], "--help")
		_, below, _ := strings.Cut(all[verb[1]], "Available Commands:")
		for _, further := range verbs.FindAllStringSubmatch(below, -1) {
			all[verb[1]] += run(binary, verb[1], further[1], "--help")
		}
	}
	return all
}

func TestNamesInDocsExist(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	source := sources(t)
	for name, text := range documents(t) {
		for _, code := range codeOf(text) {
			for _, m := range target.FindAllStringSubmatch(code, -1) {
				if !strings.Contains(string(makefile), "\n"+m[1]+":") {
					t.Errorf("%s: the Makefile has no target %s", name, m[1])
				}
			}
			for _, m := range metric.FindAllString(code, -1) {
				if !strings.Contains(source, `"`+m) {
					t.Errorf("%s: nothing is called %s", name, m)
				}
			}
		}
	}
}

// sources is the program's own text, where its metrics are named.
func sources(t *testing.T) string {
	t.Helper()
	names, err := filepath.Glob("../*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	named   = regexp.MustCompile(`^[a-z0-9]+(/[a-z0-9_*-]+)*(/|/[a-z0-9_*-]+\.[a-z]+)$`)
)

func TestLinksInDocsLead(t *testing.T) {
	all := documents(t)
	for name, text := range all {
		for _, l := range link.FindAllStringSubmatch(outsideFences(text), -1) {
			to, anchor, _ := strings.Cut(l[1], "#")
			if strings.Contains(to, "://") {
				continue
			}
			at := name
			if to != "" {
				at = filepath.ToSlash(filepath.Join(filepath.Dir(name), to))
			}
			if _, err := os.Stat(filepath.Join("..", at)); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", name, l[1])
			}
			if anchor != "" && !slices.Contains(anchors(all[at]), anchor) {
				t.Errorf("%s: the link to %s leads to no heading", name, l[1])
			}
		}
		for _, code := range codeOf(text) {
			first, _, _ := strings.Cut(code, "/")
			if _, err := os.Stat(filepath.Join("..", first)); err != nil || !named.MatchString(code) || strings.HasSuffix(code, "/") {
				continue
			}
			if found, err := filepath.Glob(filepath.Join("..", code)); err != nil || len(found) == 0 {
				t.Errorf("%s: there is no file %s", name, code)
			}
		}
	}
}

func anchors(text string) (all []string) {
	for _, h := range heading.FindAllStringSubmatch(outsideFences(text), -1) {
		all = append(all, slug(strings.ReplaceAll(h[1], "`", "")))
	}
	return all
}
