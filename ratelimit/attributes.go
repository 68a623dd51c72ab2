package ratelimit

import (
	"net/netip"
	"strings"
)

// Attributes are what a request can be counted by. Nil functions give the empty value.
type Attributes struct {
	// Anonymous is a request that auth refuses: only limits by IP and nothing else count it, so that callers without a
	// token don't use up what those with one share.
	Anonymous bool
	IP        netip.Addr
	Consumer  string
	Plan      string // what the consumer has; empty: none
	Plans     PlanUse
	Route     string
	Method    string
	Host      string
	Path      string // with the query
	Scheme    string
	Header    func(name string) string
	Claim     func(name string) string
}

// value is what the request has for a part.
func (a *Attributes) value(p *part) (string, netip.Addr) {
	switch p.Kind {
	case IP:
		return "", a.IP
	case Consumer:
		return a.Consumer, netip.Addr{}
	case Header:
		return a.header(p.Name), netip.Addr{}
	case Cookie:
		return cookie(a.header("cookie"), p.Name), netip.Addr{}
	case Claim:
		return a.claim(p.Name), netip.Addr{}
	case Path:
		return a.Path, netip.Addr{}
	case Route:
		return a.Route, netip.Addr{}
	case Method:
		return a.Method, netip.Addr{}
	case Host:
		return a.Host, netip.Addr{}
	case CEL:
		return a.expression(p.program), netip.Addr{}
	}
	return "", netip.Addr{}
}

func (a *Attributes) header(name string) string {
	if a.Header == nil {
		return ""
	}
	return a.Header(name)
}

func (a *Attributes) claim(name string) string {
	if a.Claim == nil {
		return ""
	}
	return a.Claim(name)
}

// cookie is the value of the first cookie with the name, without quotes around it. As for Envoy, only semicolons part cookies.
func cookie(header, name string) string {
	for pair := range strings.FieldsFuncSeq(header, func(r rune) bool { return r == ';' }) {
		key, value, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
		if strings.TrimRight(key, " \t") != name {
			continue
		}
		value = strings.Trim(value, " \t")
		if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
			value = value[1 : len(value)-1]
		}
		return value
	}
	return ""
}
