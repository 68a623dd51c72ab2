package trial

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/legation/legation/policy"
)

// Expect is what has to become of a request. What is not written may be as it likes.
type Expect struct {
	Status   *statuses        `policy:"status" doc:"the status of the answer: 200, a class such as 2xx, or a list; 0 where the connection ends without one"`
	Route    *string          `policy:"route" doc:"the route that takes the request; none where no route does"`
	Upstream *names           `policy:"upstream" doc:"the service that answers; none where none is asked, a list where any of them may"`
	Headers  map[string]match `policy:"headers" doc:"headers of the answer: the exact text, {contains: …}, {regex: …} or {present: false}"`
	Location *match           `policy:"location" doc:"where the answer sends the client: the header location"`
	Body     *match           `policy:"body" doc:"the body of the answer: the exact text, {contains: …} or {regex: …}"`
	Received *Received        `policy:"received" doc:"what the service got, at the last attempt"`
	Attempts *uint32          `policy:"attempts" doc:"how many requests the services got, all retries counted"`
	Mirrored *names           `policy:"mirrored" doc:"the services that got a copy; none for nobody"`
	Auth     *authDecision    `policy:"auth" doc:"granted, denied, or none where nobody is asked who they are; or {decision: granted, consumer: acme}"`
	Limit    *limitDecision   `policy:"limit" doc:"allowed, limited, or none where nothing is counted; or {decision: allowed, remaining: 9}"`
	Details  *match           `policy:"details" doc:"what Envoy says of the answer: its response code details, such as via_upstream or upstream_response_timeout"`

	node *policy.Node
}

// DecodePolicy reads an expectation that says something.
func (e *Expect) DecodePolicy(d *policy.Decode, n *policy.Node) {
	e.node = n
	if d.Decode(n, e) && len(n.Keys) == 0 {
		d.Errorf(n, "nothing is expected").Hintf("write expect: {status: 200}")
	}
}

// Received is what a service has to have got.
type Received struct {
	Service string           `policy:"service" doc:"which one; default: whichever got it"`
	Method  *match           `policy:"method" doc:"the method"`
	Host    *match           `policy:"host" doc:"the host, as the service is told it"`
	Path    *match           `policy:"path" doc:"the path, with the query"`
	Headers map[string]match `policy:"headers" doc:"its headers: the exact text, {contains: …}, {regex: …} or {present: false}"`
	Body    *match           `policy:"body" doc:"the body"`

	node *policy.Node
}

// DecodePolicy reads what is expected of a request.
func (r *Received) DecodePolicy(d *policy.Decode, n *policy.Node) {
	r.node = n
	d.Decode(n, r)
}

// none is the word for nothing and nobody.
const none = "none"

// statuses is a status, a class of them, or a list of both.
type statuses struct{ any []string }

var statusForm = regexp.MustCompile(`^(0|[1-5]([0-9][0-9]|xx))$`)

// DecodePolicy reads one or a list.
func (s *statuses) DecodePolicy(d *policy.Decode, n *policy.Node) {
	items := []*policy.Node{n}
	if n.Kind == policy.List {
		items = n.Items
	}
	for _, item := range items {
		if item.Kind != policy.Scalar || !statusForm.MatchString(item.Text) {
			d.Errorf(item, "want a status").Hintf("write 200, a class such as 2xx, or a list of them")
			return
		}
		s.any = append(s.any, item.Text)
	}
	if len(items) == 0 {
		d.Errorf(n, "name at least one status")
	}
}

// PolicySchema describes all forms.
func (*statuses) PolicySchema(*policy.Schemas) map[string]any {
	one := map[string]any{"anyOf": []any{
		map[string]any{"type": "integer", "minimum": 0, "maximum": 599}, map[string]any{"type": "string", "pattern": statusForm.String()},
	}}
	return map[string]any{"anyOf": []any{one, map[string]any{"type": "array", "minItems": 1, "items": one}}}
}

func (s *statuses) holds(status int) bool {
	got := strconv.Itoa(status)
	return slices.ContainsFunc(s.any, func(want string) bool {
		return want == got || strings.HasSuffix(want, "xx") && len(got) == 3 && want[0] == got[0]
	})
}

func (s *statuses) String() string { return strings.Join(s.any, " or ") }

// match is how a text is compared.
type match struct {
	exact    *string
	contains *string
	regex    *regexp.Regexp // of the whole text
	source   string         // of the regex
	present  *bool
}

// DecodePolicy reads the exact text, or a map.
func (m *match) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind == policy.Scalar {
		m.exact = new(n.Text)
		return
	}
	var doc struct {
		Contains *string `policy:"contains"`
		Regex    *string `policy:"regex"`
		Present  *bool   `policy:"present"`
	}
	if !d.Decode(n, &doc) {
		return
	}
	if len(n.Keys) != 1 {
		d.Errorf(n, "want one of contains, regex and present").Hintf(`write the exact text, {contains: text}, {regex: "a|b"} or {present: false}`)
		return
	}
	m.contains, m.present = doc.Contains, doc.Present
	if doc.Regex == nil {
		return
	}
	var err error
	if len(*doc.Regex) > maxRegex {
		err = fmt.Errorf("longer than %d bytes", maxRegex)
	} else if _, err = regexp.Compile(*doc.Regex); err == nil {
		m.source = *doc.Regex
		m.regex, err = regexp.Compile(`^(?s:` + m.source + `)$`)
	}
	if err != nil {
		d.Errorf(n.Get("regex"), "this is no regex of RE2: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
}

// maxRegex is how many bytes a regex may have.
const maxRegex = 4 << 10

// PolicySchema describes all forms.
func (*match) PolicySchema(*policy.Schemas) map[string]any {
	text := map[string]any{"type": []string{"string", "number", "boolean"}}
	return map[string]any{"oneOf": []any{
		text, policy.OnlyKey("contains", text), policy.OnlyKey("regex", text), policy.OnlyKey("present", map[string]any{"type": "boolean"}),
	}}
}

// holds tells whether a text is as it has to be; there tells whether there is any.
func (m *match) holds(got string, there bool) bool {
	switch {
	case m.present != nil:
		return *m.present == there
	case !there:
		return false
	case m.exact != nil:
		return got == *m.exact
	case m.contains != nil:
		return strings.Contains(got, *m.contains)
	}
	return m.regex.MatchString(got)
}

func (m *match) String() string {
	switch {
	case m.present != nil && *m.present:
		return "any"
	case m.present != nil:
		return "nothing"
	case m.exact != nil:
		return shown(*m.exact)
	case m.contains != nil:
		return "something with " + shown(*m.contains)
	}
	return "something like " + shown(m.source)
}

// shown is a text as a message repeats it.
func shown(s string) string {
	const most = 200
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strconv.Quote(s)
}

// authDecision is what has to be said of who calls.
type authDecision struct {
	Decision grant  `policy:"decision" doc:"granted, denied, or none where nobody is asked"`
	Entry    *match `policy:"entry" doc:"the auth entry that knows the caller"`
	Consumer *match `policy:"consumer" doc:"the consumer, or ENTRY/NAME where no consumer lists the caller"`
	Reason   *match `policy:"reason" doc:"why nobody gets in, as the decision log says it, such as token_expired"`
}

type grant string

// Values are the decisions.
func (grant) Values() []string { return []string{"granted", "denied", none} }

// DecodePolicy reads a word or a map.
func (a *authDecision) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind == policy.Scalar {
		d.Decode(n, &a.Decision)
		return
	}
	d.Decode(n, a)
}

// PolicySchema describes both forms.
func (a *authDecision) PolicySchema(s *policy.Schemas) map[string]any {
	return map[string]any{"oneOf": []any{s.Of(new(grant)), s.Of(a)}}
}

// limitDecision is what has to be said of how often somebody calls.
type limitDecision struct {
	Decision  verdict `policy:"decision" doc:"allowed, limited, or none where nothing is counted"`
	Name      *match  `policy:"name" doc:"the limit that refuses, as legation limits list names it"`
	Remaining *uint64 `policy:"remaining" doc:"what is left of the limit that is nearest to its end, as the answer's headers tell"`
}

type verdict string

// Values are the decisions.
func (verdict) Values() []string { return []string{"allowed", "limited", none} }

// DecodePolicy reads a word or a map.
func (l *limitDecision) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind == policy.Scalar {
		d.Decode(n, &l.Decision)
		return
	}
	d.Decode(n, l)
}

// PolicySchema describes both forms.
func (l *limitDecision) PolicySchema(s *policy.Schemas) map[string]any {
	return map[string]any{"oneOf": []any{s.Of(new(verdict)), s.Of(l)}}
}
