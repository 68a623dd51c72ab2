package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/netip"
	"strings"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
)

// denial is an answer that stops the request. It stands for all requests of its kind, so it holds nothing of theirs.
type denial struct {
	status  int
	code    codes.Code
	reason  string // for the access log, and the "error" of the body
	message string
	result  string // of the metric, one of those in newMetrics
}

var (
	denyHost      = &denial{400, codes.InvalidArgument, "bad_host", "the host is not acceptable", "bad_request"}
	denyTwoTokens = &denial{400, codes.InvalidArgument, "two_credentials", "the authorization header holds more than one value", "bad_request"}
	denyNoRule    = &denial{403, codes.PermissionDenied, "no_rule", "the route names no rule", "forbidden"}
	denyUnknown   = &denial{503, codes.Unavailable, "unknown_rule", "the route's rule is not known here yet", "unavailable"}
	denyNoKeys    = &denial{503, codes.Unavailable, "no_keys", "the keys of the identity provider are not available", "unavailable"}
	denyInternal  = &denial{503, codes.Unavailable, "internal", "the request could not be decided", "unavailable"}
	denyAnonymous = &denial{401, codes.Unauthenticated, "no_credentials", "a bearer token is needed", "unauthenticated"}
	denyLimited   = &denial{429, codes.ResourceExhausted, "limited", "too many requests", "limited"}
	denyNoCount   = &denial{503, codes.Unavailable, "limit_unavailable", "the request could not be counted", "unavailable"}
)

var errNoKeys = errors.New("no keys")

// decision is what becomes of one request.
type decision struct {
	rule     *rule
	deny     *denial // nil = allowed
	refusal  *refusal
	grant    *grant
	consumer string
	verdict  Verdict
	grpc     bool // the caller speaks gRPC, and reads grpc-status
}

// Check answers Envoy. The error is always nil: what goes wrong is a 503 that Envoy passes on.
func (s *Service) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	start := time.Now()
	d := s.decideSafely(ctx, req, start)
	result := "allow"
	if d.deny != nil {
		result = d.deny.result
	}
	s.metrics.decisions[result].Inc()
	s.metrics.seconds.Observe(time.Since(start).Seconds())
	return d.response(), nil
}

// decideSafely turns a panic, ours, a library's or the counter's, into a denial: a crash would let nobody in anywhere.
func (s *Service) decideSafely(ctx context.Context, req *authv3.CheckRequest, now time.Time) (d decision) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("check panicked", "type", panicType(p)) // its text might hold a token
			d = decision{deny: denyInternal}
		}
	}()
	return s.decide(ctx, req, now)
}

func (s *Service) decide(ctx context.Context, req *authv3.CheckRequest, now time.Time) decision {
	id := req.GetAttributes().GetContextExtensions()[RuleExtension]
	q := request{req.GetAttributes()}
	if id == "" {
		return decision{deny: denyNoRule, grpc: q.grpc()}
	}
	t := s.table.Load()
	r := t.rules[id]
	if r == nil {
		return decision{deny: denyUnknown, grpc: q.grpc()}
	}
	d := decision{rule: r, grpc: q.grpc()}
	if cleanHost(q.host()) {
		d.authenticate(q, now)
	} else {
		d.deny = denyHost
	}
	if d.grant != nil {
		d.consumer = t.consumer(d.grant.identity)
	}
	if len(r.limits) > 0 && (d.deny == nil || d.deny.status < 500) {
		d.count(s.counter, q)
	}
	return d
}

func (t *table) consumer(identity string) string {
	if name, ok := t.consumers[identity]; ok {
		return name
	}
	return identity
}

// authenticate reads the credentials and asks the providers. Tokens seen before are looked for first, in all.
func (d *decision) authenticate(q request, now time.Time) {
	credentials := q.header("authorization")
	if several(credentials) {
		d.deny = denyTwoTokens
		return
	}
	scheme, raw, _ := strings.Cut(credentials, " ")
	if !strings.EqualFold(scheme, "bearer") {
		d.deny = denyAnonymous
		return
	}
	if len(raw) > maxToken {
		d.refuse(errMalformed)
		return
	}
	sum := sha256.Sum256([]byte(raw))
	for _, p := range d.rule.providers {
		if d.grant = p.cached(&sum, now); d.grant != nil {
			return
		}
	}
	t, err := parseToken(raw)
	if err != nil {
		d.refuse(err)
		return
	}
	c, err := strictObject(t.payload)
	if err != nil {
		d.refuse(errMalformed)
		return
	}
	d.verify(t, c, sum, now)
}

// several tells whether the value holds more than one set of credentials: Envoy joins two headers with a comma. What
// follows a comma belongs to the same set only where it is a parameter, as in Digest a="b", c="d" (RFC 9110, 11.4).
// Whatever this says, no token has a comma.
func several(credentials string) bool {
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

// verify asks each provider. Of several refusals the one that came furthest is told: a wrong issuer says least.
func (d *decision) verify(t *token, c claims, sum [sha256.Size]byte, now time.Time) {
	var why error = errIssuer
	for _, p := range d.rule.providers {
		g, err := p.verify(t, c, sum, now)
		if err == nil {
			d.grant, d.deny, d.refusal = g, nil, nil
			return
		}
		if why == errIssuer || err == errNoKeys {
			why = err
		}
	}
	d.refuse(why)
}

func (d *decision) refuse(err error) {
	if r, ok := errors.AsType[*refusal](err); ok {
		d.deny = &denial{401, codes.Unauthenticated, r.code, r.text, "unauthenticated"}
		d.refusal = r
		return
	}
	d.deny = denyInternal
	if err == errNoKeys {
		d.deny = denyNoKeys
	}
}

// count asks the limits. A request that is refused anyway (400, 401) counts by the address that it comes from and by
// nothing else; the limit's refusal stands before its own, so that guessing is slowed down.
func (d *decision) count(counter Counter, q request) {
	c := Caller{IP: q.client(), Header: q.header, Claim: func(string) string { return "" }}
	if d.grant != nil {
		c.Identified, c.Consumer, c.Claim = true, d.consumer, d.grant.claims.text
	}
	ask := &Ask{Limits: d.rule.limits, Plans: d.rule.plan, Caller: c}
	counter.Count([]*Ask{ask})
	d.verdict = ask.Verdict
	switch {
	case d.verdict.Allowed:
	case d.verdict.Status == 503:
		d.deny, d.refusal = denyNoCount, nil
	default:
		d.deny, d.refusal = denyLimited, nil
	}
}

// request reads what Envoy tells about a request.
type request struct{ a *authv3.AttributeContext }

func (q request) host() string { return q.a.GetRequest().GetHttp().GetHost() }

// header returns a header's values, joined by commas as Envoy does itself unless it is told to send raw headers.
func (q request) header(name string) string {
	http := q.a.GetRequest().GetHttp()
	if http.GetHeaderMap() == nil {
		return http.GetHeaders()[name]
	}
	var values []string
	for _, h := range http.GetHeaderMap().GetHeaders() {
		if strings.EqualFold(h.GetKey(), name) {
			values = append(values, h.GetValue()+string(h.GetRawValue()))
		}
	}
	return strings.Join(values, ",")
}

// grpc tells whether Envoy takes the request for gRPC.
func (q request) grpc() bool {
	rest, ok := strings.CutPrefix(q.header("content-type"), "application/grpc")
	return ok && (rest == "" || rest[0] == '+')
}

// client is the address of the client. Envoy tells the TCP peer as the source even where it trusts a balancer's
// header, so its own conclusion comes first.
func (q request) client() netip.Addr {
	peer := q.a.GetSource().GetAddress().GetSocketAddress().GetAddress()
	for _, text := range []string{q.header("x-envoy-external-address"), peer} {
		if a, err := netip.ParseAddr(text); err == nil {
			return a.WithZone("").Unmap()
		}
	}
	return netip.Addr{}
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
