package ratelimit

import (
	"fmt"
	"strconv"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	networkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/ratelimit"
)

// action is what makes one entry of a descriptor.
type action = routev3.RateLimit_Action

// limitMetadata is where the filter of [values] puts what it has read.
const limitMetadata = "legation.limit"

// entry gives the entry of a descriptor for a part of the value, as the request has it. Where there is none, such as a
// header that was not sent, the entry is left out, and the companion takes it for the empty value. Left to itself Envoy
// would leave out the whole descriptor, and so not count the request.
func entry(by ratelimit.By, route string) *action {
	key := by.Entry()
	switch by.Kind {
	case ratelimit.IP:
		return clientIP(key)
	case ratelimit.Consumer:
		return envoy.MetadataEntry(key, envoy.AuthMetadata, "consumer")
	case ratelimit.Claim:
		return envoy.MetadataEntry(key, envoy.AuthMetadata, "claims", by.Name)
	case ratelimit.Header:
		return header(key, by.Name)
	case ratelimit.Cookie:
		return envoy.MetadataEntry(key, limitMetadata, key)
	case ratelimit.Path:
		return envoy.ExpressionEntry(key, "request.url_path", true)
	case ratelimit.Route:
		return constant(key, route)
	case ratelimit.Method:
		return header(key, ":method")
	case ratelimit.Host:
		return header(key, ":authority")
	case ratelimit.CEL:
		return envoy.ExpressionEntry(key, by.Name, true)
	}
	panic("no such part: " + by.Kind.String()) // all kinds are above
}

// optional tells whether a request may have no such entry.
func optional(by ratelimit.By) bool {
	switch by.Kind {
	case ratelimit.Claim, ratelimit.Header, ratelimit.Cookie, ratelimit.CEL:
		return true
	}
	return false
}

// entries are those of a limit. What is given back later is read from where it will be read then: else a client that sends
// a header twice could have one bucket charged and another one refunded.
func entries(l counted, route string) []*action {
	var all []*action
	for _, by := range l.By {
		if l.written.Refund != nil && kept(by) {
			all = append(all, envoy.MetadataEntry(by.Entry(), limitMetadata, by.Entry()))
			continue
		}
		all = append(all, entry(by, route))
	}
	return all
}

// refundEntry gives the entry of a part as the request had it, when the answer is there. By then the router has written
// the backend's path, host and headers into the request, so these are read from what [values] has kept. What that didn't
// keep, since it is too long, gives no descriptor at all: rather no refund than that of another value.
func refundEntry(by ratelimit.By, route string) *action {
	if !kept(by) {
		return entry(by, route)
	}
	all := `metadata.filter_metadata["` + limitMetadata + `"]`
	key, none := strconv.Quote(by.Entry()), strconv.Quote(without(by))
	return envoy.ExpressionEntry(by.Entry(), fmt.Sprintf(`%[1]s in %[2]s ? %[2]s[%[1]s] : %[3]s in %[2]s ? "" : %[2]s[%[1]s]`, key, all, none), false)
}

func constant(key, value string) *action {
	return &action{ActionSpecifier: &routev3.RateLimit_Action_GenericKey_{
		GenericKey: &routev3.RateLimit_Action_GenericKey{DescriptorKey: key, DescriptorValue: value},
	}}
}

// clientIP is the client's address, behind trusted proxies the one that they name. The matcher's input is taken
// because its name is the entry's key: remote_address and masked_remote_address have fixed keys, and the masked value
// ("10.0.0.1/32") is not what a limit that auth counts has. The companion masks IPv6 addresses.
func clientIP(key string) *action {
	return &action{ActionSpecifier: &routev3.RateLimit_Action_Extension{
		Extension: envoy.Extension(key, &networkv3.SourceIPInput{}),
	}}
}

// header is the values of a request header, joined by commas.
func header(key, name string) *action {
	return &action{ActionSpecifier: &routev3.RateLimit_Action_RequestHeaders_{
		RequestHeaders: &routev3.RateLimit_Action_RequestHeaders{HeaderName: name, DescriptorKey: key, SkipIfAbsent: true},
	}}
}
