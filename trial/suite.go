package trial

import (
	"strings"
	"time"

	"github.com/legation/legation/policy"
)

// Bounds of a test file, beside those of every file of the language.
const (
	maxCases = 5_000  // of all files
	maxSteps = 1_000  // of a case
	maxTimes = 10_000 // that a step is asked
)

// File is a test file.
type File struct {
	Base    string             `policy:"base" doc:"what stands before URLs that begin with /, such as http://localhost:10000"`
	Secrets map[string]*secret `policy:"secrets" doc:"what the policy's secrets hold in tests, by name: a text, or {users: {NAME: PASSWORD}}; certificates, and what is not named, are made"`
	Fetched map[string]value   `policy:"fetched" doc:"what the URLs answer, as JSON, that authorize asks about callers; all others answer 404"`
	Cases   cases              `policy:"cases,required" doc:"the cases, by what they show"`

	name string // as positions have it
	path string // from the working directory on
	doc  *policy.Document
	node *policy.Node
}

// DecodePolicy reads a test file, and notes where it stands.
func (f *File) DecodePolicy(d *policy.Decode, n *policy.Node) {
	f.node = n
	if key := policy.PolicyIn(n); key != nil && n.Get("cases") == nil {
		d.Errorf(n.Get(key.Text), "policy in a file of cases").Hintf("files that end in _test.yaml hold cases for legation test, and are not served: rename it")
		return
	}
	d.Decode(n, f)
}

// cases are those of a file, in the order written.
type cases []*Case

// DecodePolicy reads cases by their names.
func (c *cases) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind != policy.Map {
		d.Errorf(n, "want the cases by what they show").Hintf("write cases: {nobody gets in without a token: {request: GET http://…, expect: {status: 401}}}")
		return
	}
	for i, key := range n.Keys {
		one := &Case{Name: key.Text, key: key, Step: Step{node: n.Items[i]}}
		if strings.TrimSpace(key.Text) == "" || len(key.Text) > maxName || strings.ContainsFunc(key.Text, unprintable) {
			d.Errorf(key, "want a name of at most %d characters on one line", maxName)
		}
		if d.Decode(n.Items[i], one) {
			*c = append(*c, one)
		}
	}
}

// maxName is how long the name of a case may be.
const maxName = 200

func unprintable(r rune) bool { return r < ' ' || r == 0x7f }

// PolicySchema describes cases by their names.
func (*cases) PolicySchema(s *policy.Schemas) map[string]any {
	return map[string]any{"type": "object", "minProperties": 1, "additionalProperties": s.Of(new(Case))}
}

// Case is one thing that is shown: a request and what is expected of it, or several steps one after the other. For each
// case limits are full, nobody is logged in, nothing is revoked, and the samples behave.
type Case struct {
	Step
	Steps []*Step `policy:"steps" doc:"several requests, one after the other, in the place of request"`
	Skip  string  `policy:"skip" doc:"why the case is left out"`

	Name string
	key  *policy.Node
}

// Step is a request, and what is expected of it.
type Step struct {
	Request   *Request         `policy:"request" doc:"what is sent: METHOD URL, or a map"`
	Times     *uint32          `policy:"times" doc:"how often it is sent, each time with the same expectation; default: 1"`
	Expect    *Expect          `policy:"expect" doc:"what has to become of it"`
	Upstreams upstreams        `policy:"upstreams" doc:"how the samples behave that stand for services, by service: from this step on, to the end of the case"`
	Later     *policy.Duration `policy:"later" doc:"how much time passes before, by the clock that limits count by; it stands still otherwise"`

	node  *policy.Node
	asked asked // what is found out about it before anything is sent
}

// DecodePolicy reads a case.
func (c *Case) DecodePolicy(d *policy.Decode, n *policy.Node) {
	c.node = n
	if !d.Decode(n, c) {
		return
	}
	switch steps := n.Get("steps"); {
	case steps == nil:
		c.check(d)
	case len(c.Steps) == 0 || len(c.Steps) > maxSteps:
		d.Errorf(steps, "want 1 to %d steps, got %d", maxSteps, len(c.Steps))
	case c.Request != nil || c.Expect != nil || c.Times != nil:
		for _, name := range []string{"request", "expect", "times"} {
			if stray := n.Get(name); stray != nil {
				d.Errorf(stray, "stands beside steps").Hintf("write it into one of the steps")
				return
			}
		}
	}
}

// steps are those of a case, be they written as steps or not.
func (c *Case) steps() []*Step {
	if c.Steps != nil {
		return c.Steps
	}
	return []*Step{&c.Step}
}

// DecodePolicy reads a step.
func (s *Step) DecodePolicy(d *policy.Decode, n *policy.Node) {
	s.node = n
	if d.Decode(n, s) {
		s.check(d)
	}
}

func (s *Step) check(d *policy.Decode) {
	if s.Request == nil {
		d.Errorf(s.node, "a request is missing").Hintf("write request: GET http://localhost:10000/")
	}
	if s.Expect == nil {
		d.Errorf(s.node, "nothing is expected: whatever becomes of the request, the case holds").Hintf("write expect: {status: 200}")
	}
	if s.Times != nil && (*s.Times == 0 || *s.Times > maxTimes) {
		d.Errorf(s.node.Get("times"), "want 1 to %d, got %d", maxTimes, *s.Times)
	}
	if s.Later != nil && *s.Later > maxLater {
		d.Errorf(s.node.Get("later"), "want at most %s, got %s", maxLater, s.Later)
	}
}

// maxLater is how much time may pass before a step: beyond the longest of periods that are counted.
const maxLater = policy.Duration(400 * 24 * time.Hour)

// times is how often the request is sent.
func (s *Step) times() int {
	if s.Times == nil {
		return 1
	}
	return int(*s.Times)
}

// secret is what a secret of the policy holds in tests.
type secret struct {
	text  string
	users map[string]string // passwords by name
	node  *policy.Node
}

// DecodePolicy reads a text, or users.
func (s *secret) DecodePolicy(d *policy.Decode, n *policy.Node) {
	s.node = n
	if n.Kind != policy.Map {
		if d.Decode(n, &s.text); s.text == "" {
			d.Errorf(n, "want what the secret holds, or {users: {NAME: PASSWORD}}")
		}
		return
	}
	var doc struct {
		Users map[string]string `policy:"users,required"`
	}
	if !d.Decode(n, &doc) {
		return
	}
	if s.users = doc.Users; len(s.users) == 0 || len(s.users) > maxUsers {
		d.Errorf(n.Get("users"), "want 1 to %d users", maxUsers)
	}
	for name, password := range s.users {
		if password == "" || len(password) > maxPassword {
			d.Errorf(n.Get("users").Get(name), "want a password of 1 to %d bytes", maxPassword)
		}
	}
}

// Bounds of the passwords of a secret: each is hashed, by what knows no longer ones.
const (
	maxUsers    = 20
	maxPassword = 72 // bytes
)

// PolicySchema describes both forms.
func (*secret) PolicySchema(*policy.Schemas) map[string]any {
	text := map[string]any{"type": "string", "minLength": 1}
	return map[string]any{"oneOf": []any{text, policy.OnlyKey("users", map[string]any{"type": "object", "additionalProperties": text})}}
}

// value is any JSON.
type value struct{ json any }

// DecodePolicy takes whatever is written.
func (v *value) DecodePolicy(_ *policy.Decode, n *policy.Node) { v.json = plain(n) }

// PolicySchema says that all is fine.
func (*value) PolicySchema(*policy.Schemas) map[string]any { return map[string]any{} }

// plain is a node as JSON has it.
func plain(n *policy.Node) any {
	switch n.Kind {
	case policy.Null:
		return nil
	case policy.List:
		list := make([]any, len(n.Items))
		for i, item := range n.Items {
			list[i] = plain(item)
		}
		return list
	case policy.Map:
		object := make(map[string]any, len(n.Keys))
		for i, key := range n.Keys {
			object[key.Text] = plain(n.Items[i])
		}
		return object
	}
	if !n.Quoted {
		switch {
		case n.Text == "true" || n.Text == "false":
			return n.Text == "true"
		case number.MatchString(n.Text):
			return jsonNumber(n.Text)
		}
	}
	return n.Text
}

// The schemas of what is read with a place are those of its fields.

// PolicySchema describes a case.
func (c *Case) PolicySchema(s *policy.Schemas) map[string]any { return s.Of(c) }

// PolicySchema describes a step.
func (s *Step) PolicySchema(of *policy.Schemas) map[string]any { return of.Of(s) }

// PolicySchema describes expectations.
func (e *Expect) PolicySchema(s *policy.Schemas) map[string]any { return s.Of(e) }

// PolicySchema describes what a service has to have got.
func (r *Received) PolicySchema(s *policy.Schemas) map[string]any { return s.Of(r) }

// PolicySchema describes how a sample answers.
func (b *Behaviour) PolicySchema(s *policy.Schemas) map[string]any { return s.Of(b) }

// Schema is the JSON Schema of test files, for editors.
func Schema() []byte { return policy.DocumentSchema("Legation test file", new(File)) }
