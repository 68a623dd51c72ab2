package auth

import (
	"net/netip"
	"strings"
	"time"

	"github.com/legation/legation/expr"
)

// decision is one request and what becomes of it.
type decision struct {
	request
	outcome
	ask               Ask
	facts             expr.Facts
	byHeader, byClaim func(string) string // of this decision, for its Caller
}

// outcome is what becomes of a request; all of it is forgotten when deciding panics.
type outcome struct {
	table   *table
	unread  bool // the message was no request
	grpc    bool // the caller speaks gRPC, and reads grpc-status
	rule    *rule
	deny    *denial // nil = allowed
	refusal *refusal
	answer  *response // goes before what deny says
	identification
	who     consumer
	veto    *veto    // what the route asks of callers doesn't hold
	missing []lookup // of its metadata: to be fetched before that can be told
	asks    bool     // the limits are asked
	verdict Verdict
}

func newDecision() *decision {
	d := new(decision)
	d.byHeader, d.byClaim = d.header, d.claim
	return d
}

func (d *decision) reset() {
	d.request.reset()
	d.outcome, d.ask, d.facts = outcome{}, Ask{}, expr.Facts{}
}

// begin finds the rule, and reads the credentials as far as that is cheap.
func (d *decision) begin(t *table, now time.Time) {
	d.table, d.grpc = t, d.isGRPC()
	id := d.ruleID()
	if id == "" {
		d.deny = denyNoRule
		return
	}
	if d.rule = t.rules[id]; d.rule == nil {
		d.deny = denyUnknown
		return
	}
	if !cleanHost(d.host) {
		d.deny = denyHost
		return
	}
	if several(d.header("authorization")) {
		d.deny = denyTwoTokens
		return
	}
	d.look(now)
}

// several tells whether the value holds more than one set of credentials: Envoy joins two headers with a comma. What
// follows a comma belongs to the same set only where it is a parameter, as in Digest a="b", c="d" (RFC 9110, 11.4).
// Whatever this says, no token has a comma.
func several(credentials string) bool {
	if strings.IndexByte(credentials, ',') < 0 {
		return false
	}
	_, rest, more := cutUnquoted(credentials)
	for more {
		var element string
		element, rest, more = cutUnquoted(rest)
		if element = strings.Trim(element, " \t"); element != "" && !parameter(element) {
			return true
		}
	}
	return false
}

// cutUnquoted cuts at the first comma outside double quotes.
func cutUnquoted(s string) (element, rest string, more bool) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ',' && !quoted:
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// parameter tells whether s is name=value; the value may stand in quotes.
func parameter(s string) bool {
	name, value, ok := strings.Cut(s, "=")
	value = strings.TrimLeft(value, " \t")
	return ok && httpToken(strings.TrimRight(name, " \t")) && (strings.HasPrefix(value, `"`) || httpToken(value))
}

func httpToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// identify tells who the caller is to limits and logs.
func (d *decision) identify(t *table) {
	if d.grant == nil {
		return
	}
	d.who = t.consumer(d.grant.identity)
	if name := d.grant.consumer; name != "" {
		d.who = t.named[name]
	}
	if d.who.plan == "" {
		d.who.plan = d.grant.plan
	}
}

// counts tells whether the Counter is to be asked. A request that is refused anyway (400, 401, or by what the rule asks of
// callers) counts too, by the address that it comes from and by nothing else; the limit's refusal stands before its own, so
// that guessing is slowed down.
func (d *decision) counts() bool {
	if d.rule == nil || d.deny != nil && d.deny.result == resultUnavailable {
		return false
	}
	return len(d.rule.limits) > 0 || d.rule.plan != NoPlan && d.grant != nil && d.deny == nil
}

// asked is what the Counter is asked.
func (d *decision) asked() *Ask {
	d.asks = true
	d.ask = Ask{Limits: d.rule.limits, Caller: Caller{
		Route: d.rule.name, Method: d.method, Host: d.host, Path: d.path, Scheme: d.scheme,
		IP: d.client(), Header: d.byHeader, Claim: d.byClaim,
	}}
	if d.grant != nil && d.deny == nil { // nobody else has a plan, or is told that one is needed
		d.ask.Plans = d.rule.plan
		d.ask.Caller.Identified, d.ask.Caller.Consumer, d.ask.Caller.Plan = true, d.who.name, d.who.plan
	}
	return &d.ask
}

// counted takes what the Counter says.
func (d *decision) counted(v Verdict) {
	d.verdict = v
	if v.Allowed {
		return
	}
	d.refusal, d.veto, d.answer = nil, nil, nil
	switch v.Status {
	case 503:
		d.deny = denyNoCount
	case 403:
		d.deny = denyNoPlan
	default:
		d.deny = denyLimited
	}
}

// claim is a claim of the caller as text.
func (d *decision) claim(path string) string {
	if d.grant == nil {
		return ""
	}
	if v := d.grant.claims.text(path); v != "" {
		return v
	}
	for _, g := range d.others {
		if v := g.claims.text(path); v != "" {
			return v
		}
	}
	return ""
}

// cleanHost tells whether a host is one that all readers understand alike: a name in ASCII, or an address.
func cleanHost(host string) bool {
	if len(host) > 300 {
		return false
	}
	if rest, ok := strings.CutPrefix(host, "["); ok {
		address, port, _ := strings.Cut(rest, "]")
		a, err := netip.ParseAddr(address)
		return err == nil && a.Is6() && a.Zone() == "" && strings.Contains(rest, "]") && cleanPort(port)
	}
	name, port := host, ""
	if i := strings.IndexByte(host, ':'); i >= 0 {
		name, port = host[:i], host[i:]
	}
	name = strings.TrimSuffix(name, ".")
	if name == "" || name[0] == '.' || strings.Contains(name, "..") || strings.HasSuffix(name, ".") || !cleanPort(port) {
		return false
	}
	return !strings.ContainsFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_'
	})
}

// cleanPort accepts nothing, or a colon and digits.
func cleanPort(port string) bool {
	if port == "" {
		return true
	}
	digits := port[1:]
	return port[0] == ':' && digits != "" && len(digits) <= 5 && strings.Trim(digits, "0123456789") == ""
}
