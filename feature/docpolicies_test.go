package feature_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
	"go.yaml.in/yaml/v4"
)

// TestPoliciesInDocsAreTrue loads every block of YAML. What is fenced as "yaml envoy" is Envoy's own configuration, and
// "yaml settings" that of the process (legation.yaml), "yaml cases" is for legation test, whose own tests read it: these only
// have to be YAML. All else is policy: whole files, or keys, which are put into an entry that they may stand in (a route where they may).
// When a key stands in a block more than once, these are alternatives, each tried by itself. Services, auth entries
// and a gateway that a block refers to without writing them are added.
func TestPoliciesInDocsAreTrue(t *testing.T) {
	for name, text := range documents(t) {
		for _, b := range blocks(text) {
			switch {
			case b.info == "yaml envoy", b.info == "yaml settings", b.info == "yaml cases":
				var any any
				if err := yaml.Unmarshal([]byte(b.text), &any); err != nil {
					t.Errorf("%s:%d: %v", name, b.line, err)
				}
			case strings.HasPrefix(b.info, "yaml"):
				for _, alternative := range alternatives(b.text) {
					for _, problem := range tried(alternative) {
						t.Errorf("%s:%d: %s", name, b.line, problem)
					}
				}
			}
		}
	}
}

var topKey = regexp.MustCompile(`(?m)^([A-Za-z]+):`)

// alternatives is the block itself, or each of its keys by itself where one repeats.
func alternatives(text string) []string {
	keys := topKey.FindAllStringSubmatchIndex(text, -1)
	seen, repeated := map[string]bool{}, false
	for _, at := range keys {
		key := text[at[2]:at[3]]
		repeated = repeated || seen[key]
		seen[key] = true
	}
	if !repeated || strings.Contains(text, "\n---") {
		return []string{text}
	}
	var all []string
	for i, at := range keys {
		end := len(text)
		if i+1 < len(keys) {
			end = keys[i+1][0]
		}
		all = append(all, text[at[0]:end])
	}
	return all
}

// wrapped makes a policy file of a block.
func wrapped(text string) string {
	var top map[string]any
	sections := []string{"gateways", "sidecars", "services", "routes", "auth", "consumers", "plans", "rateLimits"}
	whole := yaml.Unmarshal([]byte(text), &top) == nil
	for key, value := range top {
		_, entries := value.(map[string]any)
		whole = whole && entries && slices.Contains(sections, key)
	}
	if whole || strings.Contains(text, "\n---") {
		return text
	}
	indented := func(text, by string) string { return by + strings.ReplaceAll(text, "\n", "\n"+by) }
	for key := range top {
		for _, k := range feature.All() {
			if k.Key == key && k.Places&policy.InRoute == 0 && k.Places&policy.InService != 0 {
				return "services:\n  docs:\n    endpoints: [\"127.0.0.1:80\"]\n" + indented(text, "    ")
			}
		}
	}
	auth := "    auth: [docs]\n"
	if top["auth"] != nil {
		auth = ""
	}
	return "plans:\n  docs: {rate: 1/second}\nroutes:\n  docs:\n    hostnames: [docs.test]\n    match: {path: /docs}\n    backends: {docs: 1}\n" + auth + indented(text, "    ")
}

var stubs = map[string]string{
	"gateways": "edge: {listeners: {http: {port: 80}}}",
	"services": `NAME: {endpoints: ["192.0.2.1:80"]}`,
	"auth":     `NAME: {jwt: {issuer: "https://id.test/", audiences: [docs], jwks: "https://id.test/keys.json", plan: plan}}`,
}

// tried loads a block as a policy, with what it refers to, and tells what is wrong with it.
func tried(text string) (wrong []string) {
	missing := map[string]map[string]bool{}
	if !slices.ContainsFunc(topKey.FindAllStringSubmatch(text, -1), func(key []string) bool { return key[1] == "gateways" }) {
		missing["gateways"] = map[string]bool{"edge": true}
	}
	for {
		stub := ""
		for section, names := range missing {
			stub += section + ":\n"
			for name := range names {
				stub += "  " + strings.ReplaceAll(stubs[section], "NAME", name) + "\n"
			}
		}
		model, problems := feature.Language().Load(policy.Files{"block.yaml": []byte(wrapped(text)), "stub.yaml": []byte(stub)})
		added := false
		for _, p := range problems {
			if p.Missing != nil && !missing[p.Missing.Section][p.Missing.Name] && stubs[p.Missing.Section] != "" {
				if missing[p.Missing.Section] == nil {
					missing[p.Missing.Section] = map[string]bool{}
				}
				missing[p.Missing.Section][p.Missing.Name] = true
				added = true
			}
		}
		if added {
			continue
		}
		for _, p := range problems {
			wrong = append(wrong, p.Error()+" "+p.Hint)
		}
		if model != nil {
			if _, err := envoy.Translate(model, feature.All()); err != nil {
				wrong = append(wrong, err.Error())
			}
		}
		return wrong
	}
}
