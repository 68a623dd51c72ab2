package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
			0, "rateLimits:\n  d:\n    descriptors:\n      - {entry: a}\n      - {entry: b}\n  d-2:\n    domain: D\n    descriptors: []\n", "",
		},
		{
			"an alias",
			[]string{write("i.yaml", "domain: d\ndescriptors: [{key: a, rate_limit: &l {unit: hour, requests_per_unit: 1}}, {key: b, rate_limit: *l}]\n")},
			0, "rateLimits:\n  d:\n    descriptors:\n      - {entry: a, rate: 1/hour}\n      - {entry: b, rate: 1/hour}\n", "",
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
		})
	}
}
