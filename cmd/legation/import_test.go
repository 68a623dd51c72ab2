package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
)

const foreign = `# who may send
domain: Messages/out
descriptors:
  # few to one number
  - key: message_type
    value: marketing
    descriptors:
      - key: to_number
        rate_limit: {unit: DAY, requests_per_unit: 5}
  - key: to_number
    rate_limit: {unit: month, requests_per_unit: 100, name: number}
  - key: to_number
    value: 0123
    rate_limit: {unit: second, requests_per_unit: 0, replaces: [{name: number}]}
  - key: path
    value: /files/*
    share_threshold: true
    detailed_metric: true
    value_to_metric: true
    rate_limit: {unit: week, requests_per_unit: 7}
    shadow_mode: true
  - key: free
    rate_limit: {unlimited: true}
`

const imported = `rateLimits:
  # who may send
  messages-out:
    domain: Messages/out
    descriptors:
      # few to one number
      - entry: message_type
        value: marketing
        descriptors:
          - {entry: to_number, rate: 5/day}
      - entry: to_number
        quota: 100/month # import: by the calendar, in UTC
        name: number
      - {entry: to_number, value: "0123", deny: true, replaces: [number]}
      - entry: path
        value: /files/*
        rate: 7/168h
        shadow: true
        shared: true
        perValue: true
      - {entry: free, unlimited: true}
`

// idle is full of keys that the software takes where they mean nothing.
const idle = `domain: d
descriptors:
  - key: tenant
    value_to_metric: true
    shadow_mode: true
    share_threshold: true
    descriptors:
      - {key: path, rate_limit: {unit: hour, requests_per_unit: 1}}
      - {key: host, metadata: {a: b}, detailed_metric: true}
  - {key: exact, value: v, share_threshold: true, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: free, quota_mode: true, shadow_mode: true, rate_limit: {unlimited: true}}
  - {key: none, shadow_mode: true, rate_limit: {unit: hour, requests_per_unit: 0}}
  - {key: gone, rate_limit: {unit: hour, requests_per_unit: 1, name: n, replaces: [{name: m}]}}
`

const idleImported = `rateLimits:
  d:
    descriptors:
      - entry: tenant
        descriptors:
          - {entry: path, rate: 1/hour, perValue: true}
          - {entry: host}
      - {entry: exact, value: v, rate: 1/hour}
      - {entry: free, unlimited: true}
      # import: 0 requests, but in shadow: nobody is refused
      - {entry: none, unlimited: true}
      # import: no limit of this domain is called "m"
      - {entry: gone, rate: 1/hour, name: n}
`

func TestImportRateLimit(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, row := range []struct {
		name   string
		files  []string
		status int
		out    string // all of it
		errs   string // a part
	}{
		{"all there is", []string{write("a.yaml", foreign)}, 0, imported, ""},
		{
			"two files of one domain",
			[]string{write("b.yaml", "domain: d\ndescriptors: [{key: a}]\n"), write("c.yaml", "domain: d\ndescriptors: [{key: b}]\n---\ndomain: D\n")},
			0, "# import: the domain \"D\" has no descriptors\nrateLimits:\n  d:\n    descriptors:\n      - {entry: a}\n      - {entry: b}\n", "",
		},
		{
			"an alias",
			[]string{write("i.yaml", "domain: d\ndescriptors: [{key: a, rate_limit: &l {unit: hour, requests_per_unit: 1}}, {key: b, rate_limit: *l}]\n")},
			0, "rateLimits:\n  d:\n    descriptors:\n      - {entry: a, rate: 1/hour}\n      - {entry: b, rate: 1/hour}\n", "",
		},
		{"what does nothing", []string{write("j.yaml", idle)}, 0, idleImported, ""},
		{"our own domain", []string{write("k.yaml", "domain: legation\ndescriptors: [{key: a}]\n")}, 1, "", "k.yaml:1:9: the Envoys of this system ask"},
		{
			"one that replaces itself",
			[]string{write("l.yaml", "domain: d\ndescriptors: [{key: a, rate_limit: {unit: hour, requests_per_unit: 1, name: n, replaces: [{name: n}]}}]\n")},
			1, "", "can't replace itself",
		},
		{"an unknown key", []string{write("d.yaml", "domain: d\ndescriptors:\n  - {key: a, shadow: true}\n")}, 1, "", `d.yaml:3:14: unknown key "shadow"`},
		{"no domain", []string{write("e.yaml", "# nothing\n")}, 1, "", "e.yaml: holds no domain"},
		{"a bad unit", []string{write("f.yaml", "domain: d\ndescriptors: [{key: a, rate_limit: {unit: fortnight, requests_per_unit: 1}}]\n")}, 1, "", `got "fortnight"`},
		{"not YAML", []string{write("g.yaml", "domain: [\n")}, 1, "", "g.yaml"},
		{"too deep", []string{write("h.yaml", "domain: d\n"+strings.Repeat("descriptors: [{key: a, ", 40)+strings.Repeat("}]", 40))}, 1, "", "deeper than 32"},
		{"a file that isn't there", []string{filepath.Join(dir, "none.yaml")}, 2, "", "none.yaml"},
		{"no file", nil, 2, "", "name the configuration files"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			status := run(append([]string{"import", "ratelimit"}, row.files...), &out, &errs)
			if status != row.status || out.String() != row.out || !strings.Contains(errs.String(), row.errs) {
				t.Errorf("got %d\n%s%s\nwant %d\n%s%s", status, out.String(), errs.String(), row.status, row.out, row.errs)
			}
			if row.status != 0 {
				return
			}
			if _, problems := feature.Language().Load(policy.Files{"a.yaml": out.Bytes()}); len(problems) > 0 {
				t.Errorf("what was imported: %v", problems)
			}
		})
	}
}
