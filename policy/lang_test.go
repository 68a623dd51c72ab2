package policy_test

import (
	"fmt"
	"strings"

	"github.com/legation/legation/policy"
)

// testLanguage has one small kind of each sort.
func testLanguage() *policy.Language {
	return policy.New(
		policy.Define[timeouts]("timeouts", policy.Layers, "# timeouts\nHow long things may take.").Layer4(),
		policy.Define[cors]("cors", policy.InDefaults|policy.InRoute, "Which origins may call."),
		policy.Define[limit]("rateLimit", policy.Layers, "How much is let through.").Stack(),
		policy.Define[plan]("plan", policy.Layers, "Whether a plan is needed."),
		policy.Define[access]("auth", policy.InDefaults|policy.InRoute, "Who may call."),
		policy.Define[redirect]("redirect", policy.InRoute, "Answers with another address."),
		policy.Define[balancer]("loadBalancer", policy.InService, "How an endpoint is picked."),
		policy.Define[codec]("codec", policy.InService, "What is spoken to a service.").ForApp(),
		policy.Define[jwt]("jwt", policy.InAuth, "Signed tokens."),
		policy.Define[refersToSecrets]("vaulted", policy.InAuth, "All that is kept as secrets."),
		policy.Define[apiKey]("apiKey", policy.InAuth, "Keys in a header."),
		policy.Define[keyList]("apiKeys", policy.InConsumer, "The consumer's keys."),
	)
}

// timeouts is merged.
type timeouts struct {
	Request policy.Duration `policy:"request" doc:"the whole request"`
	Backend policy.Duration `policy:"backendRequest" doc:"one attempt"`
}

func (t *timeouts) Check(c *policy.Check) {
	if t.Backend > t.Request && t.Request > 0 {
		c.Errorf("backendRequest", "longer than request")
	}
}

// cors has required keys.
type cors struct {
	AllowOrigins []string        `policy:"allowOrigins,required" doc:"the origins that may call"`
	AllowMethods []string        `policy:"allowMethods"`
	MaxAge       policy.Duration `policy:"maxAge"`
	Credentials  bool            `policy:"allowCredentials"`
	Expose       map[string]bool `policy:"expose"`
}

func (s *cors) Check(c *policy.Check) {
	if c.Route() != nil && len(s.AllowOrigins) == 0 {
		c.Errorf("allowOrigins", "name at least one origin, or \"*\"")
	}
}

// limit is stacked.
type limit struct {
	Rate    uint32         `policy:"rate,required" doc:"requests a minute"`
	By      string         `policy:"by"`
	Sampled policy.Percent `policy:"sampled"`
	Size    policy.Bytes   `policy:"size"`
	Replace bool           `policy:"replace"`
}

func (s *limit) Check(c *policy.Check) {
	if c.Route() != nil && s.By == "consumer" && !c.Route().Settings.Has("auth") {
		c.Errorf("by", "the route %s has no auth", c.Route().Name)
	}
}
func (s *limit) Replaces() bool { return s.Replace }

// codec holds for apps behind sidecars, too.
type codec string

func (codec) Values() []string     { return []string{"h1", "h2"} }
func (*codec) Check(*policy.Check) {}

// plan is a scalar.
type plan string

func (plan) Values() []string     { return []string{"none", "required"} }
func (*plan) Check(*policy.Check) {}

// access refers to entries.
type access []string

func (s *access) Check(c *policy.Check) {
	for i, name := range *s {
		if name != "none" {
			c.Ref(fmt.Sprintf("[%d]", i), "auth", name)
		}
	}
}

type redirect struct {
	To string `policy:"to,required"`
}

func (*redirect) Check(*policy.Check) {}
func (*redirect) Answers() bool       { return true }

type balancer string

func (balancer) Values() []string     { return []string{"roundRobin", "leastRequest"} }
func (*balancer) Check(*policy.Check) {}

// jwt has a key with several forms, one of which is a file.
type jwt struct {
	Issuer string `policy:"issuer,required"`
	JWKS   keySet `policy:"jwks"`
}

func (s *jwt) Check(c *policy.Check) {
	if s.JWKS.file == "" {
		return
	}
	if content, ok := c.File("jwks.file", s.JWKS.file); ok && !strings.HasPrefix(string(content), "{") {
		c.Errorf("jwks.file", "want a key set")
	}
}

type keySet struct {
	url, file string
}

func (k *keySet) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind == policy.Scalar {
		k.url = n.Text
		return
	}
	var doc struct {
		File string `policy:"file,required"`
	}
	if d.Decode(n, &doc) {
		k.file = doc.File
	}
}

func (*keySet) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"oneOf": []any{
		map[string]any{"type": "string"},
		map[string]any{
			"type": "object", "properties": map[string]any{"file": map[string]any{"type": "string"}},
			"required": []string{"file"}, "additionalProperties": false,
		},
	}}
}

type apiKey struct {
	Header string `policy:"header,required"`
}

func (*apiKey) Check(*policy.Check) {}

// refersToSecrets has one of each kind.
type refersToSecrets struct {
	Certificate policy.SecretName `policy:"certificate"`
	CA          policy.Authority  `policy:"ca"`
	Text        string            `policy:"text"`
}

func (s *refersToSecrets) Check(c *policy.Check) {
	if s.Certificate != "" {
		c.Certificate("certificate", string(s.Certificate))
	}
	c.Authority("ca", &s.CA)
	if s.Text != "" {
		c.Secret("text", s.Text)
	}
}

type keyList []struct {
	Secret string `policy:"secret,required"`
}

func (*keyList) Check(*policy.Check) {}
