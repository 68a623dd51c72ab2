package login

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// browser is what a request tells of the browser that sent it.
type browser struct {
	origin  string   // scheme and host; "" where a login can't be: over plain http from elsewhere than loopback
	prefix  string   // of the cookies' names: __Host- on https
	session string   // the cookie, when it is of ours; "" = none
	logins  []cookie // under way, the oldest first
	rest    string   // the Cookie header without ours
}

type cookie struct{ name, value string }

const (
	hostPrefix = "__Host-" // makes browsers hold the cookie to this host, and to https
	loginInfix = ".login." // between the base of a name and the tag of a login under way
	maxCookies = 64 << 10  // of a Cookie header, in bytes; Envoy lets fewer pass
)

// browser reads the request, and believes no cookie of a session that wasn't made here.
func (f *Flow) browser(q Request) browser {
	b := f.cookies(q)
	if !f.keys.made(b.session) {
		b.session = ""
	}
	return b
}

// cookies reads the request. A session's cookie that is there twice is not believed: only one of them can be ours.
func (f *Flow) cookies(q Request) browser {
	b := browser{origin: origin(q.Scheme, q.Host)}
	if q.Scheme == "https" {
		b.prefix = hostPrefix
	}
	header := q.Header("cookie")
	if len(header) > maxCookies {
		return b
	}
	if !strings.Contains(header, f.base) {
		b.rest = header
		return b
	}
	name := b.prefix + f.base
	var rest []string
	found := 0
	for pair := range strings.SplitSeq(header, ";") {
		pair = strings.Trim(pair, " \t")
		// Whatever may be taken for ours by some reader of cookies stays here.
		if !strings.Contains(pair, f.base+"=") && !strings.Contains(pair, f.base+loginInfix) {
			if pair != "" {
				rest = append(rest, pair)
			}
			continue
		}
		c := cookie{}
		c.name, c.value, _ = strings.Cut(pair, "=")
		switch {
		case c.name == name:
			b.session = c.value
			found++
		case strings.HasPrefix(c.name, name+loginInfix):
			b.logins = append(b.logins, c)
		}
	}
	b.rest = strings.Join(rest, "; ")
	if found != 1 || b.origin == "" {
		b.session = ""
	}
	return b
}

// Others is a Cookie header without what is ours, be it anybody's session or none: no backend gets to see that.
func (f *Flow) Others(header string) string {
	return f.cookies(Request{Header: func(string) string { return header }}).rest
}

// login finds the cookie of a login under way.
func (b *browser) login(name string) (value string, ok bool) {
	for _, c := range b.logins {
		if c.name == name {
			return c.value, true
		}
	}
	return "", false
}

// origin is where the browser believes to be, "" where it can't keep a secret.
func origin(scheme, host string) string {
	if host == "" || len(host) > 255 || strings.Trim(host, hostCharacters) != "" {
		return ""
	}
	if scheme != "https" && (scheme != "http" || !isLoopback(host)) {
		return ""
	}
	return scheme + "://" + host
}

const hostCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]"

// isLoopback tells whether browsers reach the host, which may have a port, without leaving the machine.
func isLoopback(host string) bool {
	name := host
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		name = host[:i]
	}
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(name, "["), "]"))
	return err == nil && a.Unmap().IsLoopback()
}

// setCookie is a header that has the browser keep a cookie for so long, or drop it when that is 0.
func (b *browser) setCookie(name, value string, lasts time.Duration) [2]string {
	text := name + "=" + value + "; Path=/; Max-Age=" + strconv.Itoa(int(lasts/time.Second)) + "; HttpOnly; SameSite=Lax"
	if b.prefix != "" {
		text += "; Secure"
	}
	return [2]string{"set-cookie", text}
}

// cookieRune lets pass what the name of a cookie may be made of.
func cookieRune(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
		return r
	}
	return '-'
}
