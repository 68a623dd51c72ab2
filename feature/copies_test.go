package feature_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
)

// Each route has its own copy of what a layer says, and thousands of routes may share a layer: what is a list there has a
// bound.
func TestListsOfLayersAreBounded(t *testing.T) {
	const defaults, listener = "gateways: {edge: {listeners: {http: {port: 80}}, defaults: {%s}}}", "gateways: {edge: {listeners: {http: {port: 80, %s}}}}"
	for _, tt := range []struct {
		place, setting, item string // the list stands at LIST
		most                 int
		want                 string
	}{
		{defaults, "headers: {request: {set: {LIST}}}", "x-h%d: v", 100, "request: 101 headers, more than 100"},
		{defaults, "headers: {response: {remove: [LIST]}}", "x-h%d", 100, "response: 101 headers, more than 100"},
		{defaults, "query: {set: {LIST}}", "q%d: v", 100, "query: 101 parameters, more than 100"},
		{defaults, "cors: {allowOrigins: [LIST]}", `"https://a%d.test"`, 1000, "allowOrigins: 1001 origins, more than 1000"},
		{defaults, "access: {deny: [LIST]}", "'fd00::%x'", 1000, "want at most 1000 ranges"},
		{defaults, "rateLimit: {rate: 1/second, by: {header: a}, mode: perEnvoy, exempt: [LIST]}", "v%d", 100, "exempt: 101 values, more than 100"},
		{defaults, "rateLimit: {rate: 1/second, by: {header: a}, overrides: {LIST}}", "v%d: unlimited", 1000, "overrides: 1001 values, more than 1000"},
		{listener, "proxyProtocol: {from: [LIST]}", "10.%d.0.0/16", 100, "want at most 100 ranges, got 101"},
	} {
		load := func(n int) (*policy.Model, policy.Problems) {
			items := make([]string, n)
			for i := range items {
				items[i] = fmt.Sprintf(tt.item, i)
			}
			text := fmt.Sprintf(tt.place, strings.Replace(tt.setting, "LIST", strings.Join(items, ", "), 1))
			return feature.Language().Load(policy.Files{"a.yaml": []byte(text)})
		}
		if m, problems := load(tt.most); m == nil {
			t.Errorf("%s, %d: got %v", tt.setting, tt.most, problems.Err())
		}
		m, problems := load(tt.most + 1)
		if m != nil || len(problems) != 1 || !strings.Contains(problems[0].Error(), tt.want) {
			t.Errorf("%s, one more: got %v, want only %q", tt.setting, problems, tt.want)
		}
	}
}

// A list that is too long is refused where it stands, and not looked at again for each of the routes that get it.
func TestLongListsCostLittle(t *testing.T) {
	var routes, headers strings.Builder
	for i := range 2_000 {
		fmt.Fprintf(&routes, "  r%[1]d: {hostnames: [a.test], match: {path: /%[1]d}, backends: {s: 1}}\n", i)
	}
	for i := range 5_000 {
		fmt.Fprintf(&headers, "x-h%d: v, ", i)
	}
	for _, setting := range []string{"headers: {request: {set: {LIST}}}", "query: {set: {LIST}}"} {
		text := "gateways: {edge: {listeners: {http: {port: 80}}, defaults: {" + strings.Replace(setting, "LIST", headers.String(), 1) +
			"}}}\nservices: {s: {dns: 's:80'}}\nroutes:\n" + routes.String()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		m, _ := feature.Language().Load(policy.Files{"a.yaml": []byte(text)})
		runtime.ReadMemStats(&after)
		if got := (after.TotalAlloc - before.TotalAlloc) >> 20; m != nil || got > 80 {
			t.Errorf("%s: taken: %t, %d MiB allocated", setting, m != nil, got)
		}
	}
}
