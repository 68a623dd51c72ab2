package policy_test

import (
	"bytes"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/legation/legation/policy"
)

func compileSchema(t *testing.T, l *policy.Language) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(l.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("policy.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("policy.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// TestSchemaAgreesWithLoad holds the schema against what Load takes and refuses for its shape.
func TestSchemaAgreesWithLoad(t *testing.T) {
	l := testLanguage()
	schema := compileSchema(t, l)
	base := "gateways: {edge: {listeners: {http: {port: 80}}}}\n"
	route := base + "services: {s: {endpoints: ['10.0.0.1:80']}}\nauth: {a: {apiKey: {header: x}}}\nroutes: {r: {hostnames: ['*'], backends: {s: 1}, "
	for _, tt := range []struct {
		name, policy string
		good         bool
	}{
		{"edge", edge, true},
		{"orders", edge + orders, true},
		{"empty section", base + "routes:\n", true},
		{"unknown section", base + "rutes: {}\n", false},
		{"unknown key", route + "corz: {}}}", false},
		{"unknown key of a setting", route + "timeouts: {rekwest: 5s}}}", false},
		{"off", route + "timeouts: off}}", true},
		{"off leaf", route + "timeouts: {request: off}}}", true},
		{"no unit", route + "timeouts: {request: 5}}}", false},
		{"unit", route + "timeouts: {request: 1m30s}}}", true},
		{"list for map", route + "timeouts: [5s]}}", false},
		{"map for list", route + "cors: {allowOrigins: {a: b}}}}", false},
		{"number as text", route + "cors: {allowOrigins: [80]}}}", true},
		{"enum", route + "plan: required}}", true},
		{"not of the enum", route + "plan: requird}}", false},
		{"stacked, required missing", route + "rateLimit: {by: ip}}}", false},
		{"stacked", route + "rateLimit: {rate: 5, sampled: 0.5%, size: 64KiB}}}", true},
		{"percent without sign", route + "rateLimit: {rate: 5, sampled: 5}}}", false},
		{"too large", route + "rateLimit: {rate: 4294967296}}}", false},
		{"path", route + "match: {path: /v1, methods: [GET], headers: {x-a: b, x-b: {present: true}}}}}", true},
		{"path exact", route + "match: {path: {exact: /v1}, query: {a: {regex: 'x.*'}}}}}", true},
		{"path without slash", route + "match: {path: v1}}}", false},
		{"path of two kinds", route + "match: {path: {exact: /v1, prefix: /v1}}}}", false},
		{"lower method", route + "match: {methods: [get]}}}", false},
		{"no methods", route + "match: {methods: []}}}", false},
		{"backend as list", base + "services: {s: {dns: 'a:80'}}\nroutes: {r: {hostnames: ['*'], backends: [s]}}", false},
		{"no hostnames", base + "services: {s: {dns: 'a:80'}}\nroutes: {r: {backends: {s: 1}}}", false},
		{"empty hostnames", base + "services: {s: {dns: 'a:80'}}\nroutes: {r: {hostnames: [], backends: {s: 1}}}", false},
		{"endpoints and dns", base + "services: {s: {dns: 'a:80', endpoints: ['10.0.0.1:80']}}", false},
		{"no endpoints", base + "services: {s: {}}", false},
		{"two ways of auth", base + "auth: {a: {apiKey: {header: x}, jwt: {issuer: x}}}", false},
		{"key in the wrong place", base + "services: {s: {dns: 'a:80', cors: {allowOrigins: ['*']}}}", false},
		{"bad name", base + "services: {S: {dns: 'a:80'}}", false},
		{"port 0", "gateways: {edge: {listeners: {http: {port: 0}}}}", false},
		{"port 65536", "gateways: {edge: {listeners: {http: {port: 65536}}}}", false},
		{"quoted port", "gateways: {edge: {listeners: {http: {port: '80'}}}}", false},
		{"no listeners", "gateways: {edge: {listeners: {}}}", false},
		{"locked", "gateways: {edge: {listeners: {http: {port: 80}}, defaults: {locked: [timeouts]}}}", true},
		{"locked unknown", "gateways: {edge: {listeners: {http: {port: 80}}, defaults: {locked: [timeout]}}}", false},
		{"protocol", "gateways: {edge: {listeners: {http: {port: 80, protocol: TCP}}}}", true},
		{"not a protocol", "gateways: {edge: {listeners: {http: {port: 80, protocol: UDP}}}}", false},
		{"certificates", "gateways: {edge: {listeners: {https: {port: 443, protocol: HTTPS, certificates: [{hostname: '*.a.test', secret: tls/a}, {secret: b}]}}}}", true},
		{"certificate without a secret", "gateways: {edge: {listeners: {https: {port: 443, protocol: HTTPS, certificates: [{hostname: a}]}}}}", false},
		{"secret that is no name", "gateways: {edge: {listeners: {https: {port: 443, protocol: HTTPS, certificates: [{secret: ../a}]}}}}", false},
		{"redirect", "gateways: {edge: {listeners: {http: {port: 80, httpsRedirect: true}}}}", true},
		{"redirect to a port", "gateways: {edge: {listeners: {http: {port: 80, httpsRedirect: {port: 8443}}}}}", true},
		{"redirect to no port", "gateways: {edge: {listeners: {http: {port: 80, httpsRedirect: {}}}}}", false},
		{"redirect to port 0", "gateways: {edge: {listeners: {http: {port: 80, httpsRedirect: {port: 0}}}}}", false},
		{"listeners of a route", route + "listeners: [http]}}", true},
		{"no listeners of a route", route + "listeners: []}}", false},
		{"path in any case", route + "match: {path: {prefix: /v1, ignoreCase: true}}}}", true},
		{"regex in any case", route + "match: {path: {regex: /v1, ignoreCase: true}}}}", false},
		{"template", route + "match: {path: {template: '/u/{id}'}}}}", true},
		{"template in any case", route + "match: {path: {template: '/u/{id}', ignoreCase: true}}}}", false},
		{"grpc", route + "match: {grpc: {service: a.B, method: Get}}}}", true},
		{"grpc without service", route + "match: {grpc: {method: Get}}}}", false},
		{"grpc path", route + "match: {grpc: {service: /a.B}}}}", false},
		{"source", route + "match: {source: [10.0.0.0/8, '::1']}}}", true},
		{"no source", route + "match: {source: []}}}", false},
		{"source that is a name", route + "match: {source: [localhost]}}}", false},
		{"endpoints with more", base + "services: {s: {endpoints: ['10.0.0.1:80', {address: '10.0.0.2:80', weight: 2, zone: a, priority: 1}]}}", true},
		{"endpoint without address", base + "services: {s: {endpoints: [{weight: 2}]}}", false},
		{"weight 0", base + "services: {s: {endpoints: [{address: '10.0.0.2:80', weight: 0}]}}", false},
		{"dns with more", base + "services: {s: {dns: {name: 'a:80', type: logical, refresh: 5s}}}", true},
		{"dns type", base + "services: {s: {dns: {name: 'a:80', type: weak}}}", false},
		{"dns without name", base + "services: {s: {dns: {type: strict}}}", false},
		{"authority", base + "auth: {a: {vaulted: {ca: system}}, b: {vaulted: {ca: {secret: x}}}}", true},
		{"authority of two kinds", base + "auth: {a: {vaulted: {ca: {secret: x, file: y}}}}", false},
		{"authority by itself", base + "auth: {a: {vaulted: {ca: x}}}", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, problems := l.Load(policy.Files{"a.yaml": []byte(tt.policy)})
			if got := !problems.HasErrors(); got != tt.good {
				t.Errorf("Load takes it: %t, want %t: %v", got, tt.good, problems.Err())
			}
			var doc any
			if err := yaml.Unmarshal([]byte(tt.policy), &doc); err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(doc); (err == nil) != tt.good {
				t.Errorf("the schema takes it: %t, want %t: %v", err == nil, tt.good, err)
			}
		})
	}
}
