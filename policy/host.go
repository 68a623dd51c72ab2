package policy

import (
	"net/netip"
	"strings"
)

// hostname is one of a route's hostnames: a name, *.name, *, or an IP address.
type hostname string

// DecodePolicy reads a hostname.
func (h *hostname) DecodePolicy(d *Decode, n *Node) {
	if n.Kind != Scalar {
		d.Errorf(n, "want a hostname, got %s", n.shape())
		return
	}
	name := strings.ToLower(n.Text)
	if why := badHostname(name); why != "" {
		d.Errorf(n, "%s is no hostname: %s", n.shape(), why)
		return
	}
	*h = hostname(name)
}

// PolicySchema describes a hostname.
func (*hostname) PolicySchema(*Schemas) map[string]any {
	return map[string]any{
		"type": "string", "minLength": 1, "maxLength": 255, "pattern": `^(\*|(\*\.)?[^*/:\s]+|\[[0-9a-fA-F:.]+\])$`,
		"description": "a name, *.name for all below it, * for any, or an IP address",
	}
}

// badHostname says why Envoy could never find name in the Host header, or "".
func badHostname(name string) string {
	if name == "*" {
		return ""
	}
	if inner, ok := strings.CutPrefix(name, "["); ok {
		if ip, err := netip.ParseAddr(strings.TrimSuffix(inner, "]")); err != nil || !strings.HasSuffix(inner, "]") || !ip.Is6() || ip.Zone() != "" {
			return "brackets go around an IPv6 address, with no port after them"
		}
		return ""
	}
	if _, err := netip.ParseAddr(name); err == nil {
		if strings.Contains(name, ":") {
			return "write an IPv6 address in brackets"
		}
		return ""
	}
	switch {
	case strings.Contains(name, "://"):
		return "leave out the scheme and the path"
	case strings.Contains(name, ":"):
		return "leave out the port; a hostname counts for all ports"
	case strings.Contains(name, "/"):
		return "leave out the path; it goes under match"
	}
	return badHost(strings.TrimPrefix(name, "*."))
}

// badServerName says why no client could ask for name in its TLS hello, or "". It is in lower case, and not *.
func badServerName(name string) string {
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return "clients ask for names only, never for an IP address"
	}
	return badHostname(name)
}

// badHost says what is wrong with a name of labels, or "".
func badHost(name string) string {
	const most = 253
	switch {
	case name == "":
		return "it is empty"
	case len(name) > most:
		return "it is longer than 253 characters"
	case strings.Contains(name, "*"):
		return "a wildcard stands for whole names below a domain: *.example.com"
	case strings.HasSuffix(name, "."):
		return "leave out the last dot"
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return "two dots have nothing between them"
		case len(label) > 63:
			return "a part between dots is longer than 63 characters"
		case label[0] == '-' || label[len(label)-1] == '-':
			return "a part between dots begins or ends with -"
		}
		for _, c := range label {
			switch {
			case c > 0x7f:
				return "write other than ASCII letters as punycode (xn--…)"
			case !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c == '-' || c == '_'):
				return "only letters, digits, - and . can be in it"
			}
		}
	}
	return ""
}
