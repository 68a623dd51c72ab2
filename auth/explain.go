package auth

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Explanation tells why a provider accepts a token, or not.
type Explanation struct {
	Provider string            `json:"entry"`
	Good     bool              `json:"good"`
	Steps    []Step            `json:"steps"`
	Identity string            `json:"identity,omitempty"`
	Consumer string            `json:"consumer,omitempty"`
	Plan     string            `json:"plan,omitempty"`
	Headers  map[string]string `json:"headers,omitempty"` // for the backend
	Expires  time.Time         `json:"expires,omitzero"`  // skew included
}

// Step is one thing that a token has to pass.
type Step struct {
	Check  string `json:"check"`
	Result string `json:"result"` // ok, bad, or unknown where it could not be looked at
	Detail string `json:"detail,omitempty"`
}

// Results of a Step.
const (
	StepOK      = "ok"
	StepBad     = "bad"
	StepUnknown = "unknown"
)

// Explain tells of each provider of signed tokens why it accepts the token, or not, in the order in which a request's
// token is judged and by the same code; unlike there, a step that goes wrong does not end it. Key sets behind URLs are
// fetched, each once. The table's rules are not needed.
func Explain(ctx context.Context, o Options, t Table, providers []Provider, raw string) ([]Explanation, error) {
	s := New(o)
	t.Rules = nil
	for _, p := range providers {
		if p.JWT != nil {
			t.Rules = append(t.Rules, Rule{Name: p.Name, Providers: []Provider{p}})
		}
	}
	if err := s.Load(t); err != nil {
		return nil, err
	}
	var group errgroup.Group
	group.SetLimit(8)
	for _, r := range s.fetched() {
		group.Go(func() error {
			_, _ = r.refresh(ctx) // what went wrong is in its health
			return nil
		})
	}
	_ = group.Wait() // none gives an error
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	table, now := s.table.Load(), time.Now()
	var all []Explanation
	for _, r := range t.Rules {
		all = append(all, table.explain(table.rules[r.Name].providers[0], raw, now))
	}
	return all, nil
}

// explain judges the token by one provider.
func (t *table) explain(p *provider, raw string, now time.Time) Explanation {
	e := Explanation{Provider: p.name}
	w, ok := p.way.(*tokens)
	if !ok {
		e.Steps = []Step{{"keys", StepUnknown, "the secret is not there, or too short"}}
		return e
	}
	u := e.gate(raw)
	if u == nil {
		return e
	}
	j := &judging{tokens: w, unverified: u}
	e.Good = true
	for _, h := range slices.Concat(atOnce, withKeys) {
		if h.name == "signature" && j.keys == nil {
			e.add(h.name, StepUnknown, "not looked at without keys")
			continue
		}
		err := h.run(j, now)
		result := StepOK
		switch {
		case undecided(err):
			result, e.Good = StepUnknown, false
		case err != nil:
			result, e.Good = StepBad, false
		}
		e.add(h.name, result, j.detail(h.name, err, now))
	}
	if j.grant != nil {
		who := t.consumer(j.grant.identity)
		e.Identity, e.Consumer, e.Plan, e.Expires = j.grant.identity, who.name, who.plan, j.grant.expires
		if e.Plan == "" {
			e.Plan = j.grant.plan
		}
		for _, h := range j.grant.headers {
			if e.Headers == nil {
				e.Headers = map[string]string{}
			}
			e.Headers[h.name] = h.value
		}
	}
	return e
}

func (e *Explanation) add(check, result, detail string) {
	e.Steps = append(e.Steps, Step{check, result, detail})
}

// gate passes the token through the gate; nil when it does not get through.
func (e *Explanation) gate(raw string) *unverified {
	var d decision
	u, err := d.parseToken(raw)
	if err == errMalformed || raw == "" {
		e.add("form", StepBad, malformed(raw))
		return nil
	}
	e.add("form", StepOK, fmt.Sprintf("%d bytes", len(raw)))
	switch err {
	case errHeader:
		e.add("header", StepBad, "may not hold "+strings.Join(refused, ", ")+" or cty, nor others under capitals of their own; typ and kid have to be texts")
	case errAlgorithm:
		e.add("header", StepOK, "")
		e.add("algorithm", StepBad, "missing, none, or one that nobody here knows")
	}
	if err != nil {
		return nil
	}
	kid := "no kid"
	if u.token.kid != "" {
		kid = fmt.Sprintf("kid %q", u.token.kid)
	}
	e.add("header", StepOK, kid)
	return u
}

func malformed(raw string) string {
	switch parts := strings.Count(raw, ".") + 1; {
	case raw == "":
		return "it is empty"
	case len(raw) > maxToken:
		return fmt.Sprintf("%d bytes, more than %d", len(raw), maxToken)
	case parts == 5:
		return "5 parts: it is encrypted (JWE), and only signed tokens are read"
	case parts != 3:
		return fmt.Sprintf("%d %s with a point between, want 3: it is no signed token", parts, map[bool]string{true: "part", false: "parts"}[parts == 1])
	case !compactAlphabet(raw):
		return "a character that base64url does not have: maybe a space, a line end or padding"
	default:
		return "a part is empty, no strict base64url, or no strict JSON object (a name twice, or something behind it)"
	}
}

// detail tells what came out of a hurdle.
func (j *judging) detail(hurdle string, err error, now time.Time) string {
	wanted := func(got any, want []string) string {
		if err == nil {
			return fmt.Sprintf("%q", got)
		}
		return fmt.Sprintf("%q, want one of %q", got, want)
	}
	switch hurdle {
	case "type":
		if j.token.typ == "" && err == nil {
			return "no typ"
		}
		return wanted(j.token.typ, slices.DeleteFunc(slices.Clone(j.types), func(s string) bool { return s == "" }))
	case "algorithm":
		return wanted(j.token.alg, j.algorithms)
	case "issuer":
		return wanted(j.claims["iss"], j.issuers)
	case "keys":
		return describe(j.source, now)
	case "signature":
		return j.signatureDetail(err)
	case "audience":
		if err == errClaims {
			return "aud has to be a text or a list of texts, sub a text"
		}
		return wanted(j.claims["aud"], j.audiences)
	case "times":
		return j.timesDetail(err, now)
	default:
		if err == nil {
			return fmt.Sprintf("%q", j.grant.identity)
		}
		return fmt.Sprintf("the claim %q names nobody: want a text or a whole number, without control characters", j.reading.consumer)
	}
}

// describe tells where keys come from, and how old they are.
func describe(from keySource, now time.Time) string {
	r, ok := from.(*remote)
	if !ok {
		keys := from.keySet(now)
		if keys.keys[0].shared {
			return "the shared secret"
		}
		return fmt.Sprintf("%d of the policy", len(keys.keys))
	}
	h := r.health(now)
	if h.Error != "" {
		return h.URL + ": " + h.Error
	}
	return fmt.Sprintf("%d of %s, fetched %s ago", h.Keys, h.URL, span(now.Sub(h.Fetched)))
}

func (j *judging) signatureDetail(err error) string {
	var kids []string
	algs := map[string][]string{}
	for _, k := range j.keys.keys {
		kids = append(kids, k.kid)
		algs[k.kid] = k.algs
	}
	switch {
	case err == nil:
		return ""
	case err == errKey && j.token.kid != "":
		return fmt.Sprintf("there is no key %q, only %q", j.token.kid, kids)
	case err == errKey, err == errAlgorithm && len(algs[j.token.kid]) == 0: // a shared secret has no kid
		return "by none of the keys that its algorithm allows"
	case err == errAlgorithm:
		return fmt.Sprintf("the key %q is for %q", j.token.kid, algs[j.token.kid])
	default:
		return "not by this key: the token was changed, or another key of the same name signed it"
	}
}

func (j *judging) timesDetail(err error, now time.Time) string {
	exp, _, _ := j.claims.date("exp")
	switch err {
	case nil:
		return fmt.Sprintf("expires in %s", span(j.expires.Add(-j.skew).Sub(now)))
	case errExpired:
		return fmt.Sprintf("expired %s ago", span(now.Sub(exp)))
	case errEarly:
		for _, name := range []string{"nbf", "iat"} {
			if t, _, _ := j.claims.date(name); t.After(now.Add(j.skew)) {
				return fmt.Sprintf("%s lies %s ahead", name, span(t.Sub(now)))
			}
		}
	case errLifetime:
		iat, _, _ := j.claims.date("iat")
		return fmt.Sprintf("good for %s, more than %s", span(exp.Sub(iat)), span(j.maxLifetime))
	}
	return "exp is needed, and iat where there is a maxLifetime; exp, nbf and iat have to be seconds since 1970"
}

// span is a length of time for people: "3 minutes".
func span(d time.Duration) string {
	switch size := d.Abs(); {
	case size < time.Minute:
		return count(d, time.Second, "second")
	case size < 2*time.Hour:
		return count(d, time.Minute, "minute")
	case size < 48*time.Hour:
		return count(d, time.Hour, "hour")
	default:
		return count(d, 24*time.Hour, "day")
	}
}

func count(d, unit time.Duration, name string) string {
	n := int64(d.Round(unit) / unit)
	if n != 1 {
		name += "s"
	}
	return fmt.Sprintf("%d %s", n, name)
}
