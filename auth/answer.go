package auth

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protowire"
)

// The numbers of the fields that an envoy.service.auth.v3.CheckResponse is written with.
const (
	responseStatus, responseDenied, responseOK, responseMetadata = 1, 2, 3, 4
	statusCode                                                   = 1 // google.rpc.Status and envoy.type.v3.HttpStatus
	deniedStatus, deniedHeaders, deniedBody                      = 1, 2, 3
	okHeaders, okRemove, okAdd, okRemoveQuery                    = 2, 5, 6, 8
	optionHeader, optionAction                                   = 1, 3 // envoy.config.core.v3.HeaderValueOption
	headerKey, headerText                                        = 1, 2
	structFields, entryKey, entryValue                           = 1, 1, 2 // google.protobuf.Struct
	valueText, valueStruct                                       = 3, 5
)

// appendTo appends the message of the answer.
func (d *decision) appendTo(b []byte) []byte {
	if d.deny != nil {
		return d.appendDenied(b)
	}
	return d.appendAllowed(b)
}

func (d *decision) appendAllowed(b []byte) []byte {
	b = protowire.AppendBytes(protowire.AppendTag(b, responseStatus, protowire.BytesType), nil) // code OK is 0
	b, ok := open(b, responseOK)
	b = append(b, d.grant.wire...)
	for i, g := range d.others {
		b = d.appendOther(b, g, d.others[:i])
	}
	b = d.appendHidden(b)
	for _, name := range d.rule.headers {
		// A client that sends a header itself that some provider of the rule could have set, and no grant does, must not be
		// believed.
		if !d.sets(name, d.others) {
			b = appendText(b, okRemove, name)
		}
	}
	b = d.appendLimitHeaders(b, okAdd)
	return d.appendMetadata(end(b, ok), "allow")
}

// appendOther appends the headers of a further grant that no earlier one sets: the first tells who calls.
func (d *decision) appendOther(b []byte, g *grant, before []*grant) []byte {
	for _, h := range g.headers {
		if !d.sets(h.name, before) {
			b = appendHeader(b, okHeaders, h.name, h.value)
		}
	}
	return b
}

// sets tells whether the caller's grant or one of the others sets a header.
func (d *decision) sets(name string, others []*grant) bool {
	is := func(h pair) bool { return h.name == name }
	return slices.ContainsFunc(d.grant.headers, is) ||
		slices.ContainsFunc(others, func(g *grant) bool { return slices.ContainsFunc(g.headers, is) })
}

// appendAnswer appends the answer that a provider, or the policy, gives in the place of ours.
func (d *decision) appendAnswer(b []byte) []byte {
	b, at := open(b, responseStatus)
	b = appendNumber(b, statusCode, uint64(d.deny.code))
	b, at = open(end(b, at), responseDenied)
	b, status := open(b, deniedStatus)
	b = end(appendNumber(b, statusCode, uint64(d.answer.status)), status)
	for i, h := range d.answer.headers {
		several := i > 0 && slices.ContainsFunc(d.answer.headers[:i], func(o pair) bool { return o.name == h.name })
		b = appendHeaderTo(b, deniedHeaders, h.name, h.value, several)
	}
	b = appendText(b, deniedBody, d.answer.body)
	return d.appendMetadata(end(b, at), "deny")
}

// appendVeto appends what callers are told that are known and may not pass.
func (d *decision) appendVeto(b []byte) []byte {
	b, at := open(b, responseStatus)
	b = appendNumber(b, statusCode, uint64(d.veto.code))
	b, at = open(end(b, at), responseDenied)
	b, status := open(b, deniedStatus)
	b = end(appendNumber(b, statusCode, uint64(d.veto.status)), status)
	b = d.veto.appendHeaders(b, strings.Join(d.rule.challenge, ", "), d.grpc)
	body := d.veto.body
	if d.grpc {
		b = appendHeader(b, deniedHeaders, "grpc-status", strconv.Itoa(int(d.veto.code)))
		body = d.veto.told
	}
	b = d.appendLimitHeaders(b, deniedHeaders)
	b = appendText(b, deniedBody, body)
	return d.appendMetadata(end(b, at), "deny")
}

// appendDenied never writes the "error response" of newer Envoys: failure_mode_allow would let that pass.
func (d *decision) appendDenied(b []byte) []byte {
	switch {
	case d.answer != nil:
		return d.appendAnswer(b)
	case d.veto != nil:
		return d.appendVeto(b)
	}
	b, at := open(b, responseStatus)
	b = appendNumber(b, statusCode, uint64(d.deny.code))
	b, at = open(end(b, at), responseDenied)
	b, status := open(b, deniedStatus)
	b = end(appendNumber(b, statusCode, uint64(d.deny.status)), status)
	b = appendHeader(b, deniedHeaders, "content-type", "application/json")
	b = appendHeader(b, deniedHeaders, "cache-control", "no-store")
	body := d.deny.body
	if d.grpc {
		// Envoy makes headers with grpc-status of a denial, and the body its grpc-message. Left to itself it makes the
		// status of the HTTP one, and UNAVAILABLE of 429, which clients try again at once.
		b = appendHeader(b, deniedHeaders, "grpc-status", strconv.Itoa(int(d.deny.code)))
		body = d.deny.told
	}
	if d.deny.status == 401 {
		if challenge := d.challenge(); challenge != "" { // for a login there is nothing to say
			b = appendHeader(b, deniedHeaders, "www-authenticate", challenge)
		}
	}
	b = d.appendLimitHeaders(b, deniedHeaders)
	b = appendText(b, deniedBody, body)
	return d.appendMetadata(end(b, at), "deny")
}

// challenge tells what credentials are taken, and names an error only where some were sent (RFC 6750, 3.1).
func (d *decision) challenge() string {
	if d.refusal == nil {
		return strings.Join(d.rule.challenge, ", ")
	}
	told := false
	var list []string
	for _, c := range d.rule.challenge {
		if !told && strings.HasPrefix(c, "Bearer ") {
			told = true
			c += `, error="invalid_token", error_description="` + d.refusal.deny.told + `"`
		}
		list = append(list, c)
	}
	return strings.Join(list, ", ")
}

// appendMetadata is for Envoy's access log, %DYNAMIC_METADATA(envoy.filters.http.ext_authz:consumer)%, and for what
// Envoy itself counts by.
func (d *decision) appendMetadata(b []byte, what string) []byte {
	b, at := open(b, responseMetadata)
	b = appendEntry(b, "decision", what)
	if d.rule != nil {
		b = appendEntry(b, "rule", d.rule.name)
	}
	if d.grant != nil {
		b = appendEntry(b, "consumer", d.who.name)
		b = appendEntry(b, "provider", d.grant.provider)
		if d.who.plan != "" {
			b = appendEntry(b, "plan", d.who.plan)
		}
		b = d.appendClaims(b)
	}
	if d.deny != nil {
		b = appendEntry(b, "reason", d.deny.reason)
	}
	if d.veto != nil && d.veto.by != "" {
		b = appendEntry(b, "authorization", d.veto.by)
		if d.veto.rule != "" {
			b = appendEntry(b, "condition", d.veto.rule)
		}
	}
	if d.verdict.Limit != "" {
		b = appendEntry(b, "limit", strings.ToValidUTF8(d.verdict.Limit, "?"))
	}
	if d.verdict.Shadow != "" {
		b = appendEntry(b, "shadow", strings.ToValidUTF8(d.verdict.Shadow, "?"))
	}
	return end(b, at)
}

// appendClaims appends the claims that the rule names and the token has, as "claims", with their paths as the keys.
func (d *decision) appendClaims(b []byte) []byte {
	if len(d.rule.metadata) == 0 {
		return b
	}
	b, entry := open(b, structFields)
	b = appendText(b, entryKey, "claims")
	b, value := open(b, entryValue)
	b, claims := open(b, valueStruct)
	for _, path := range d.rule.metadata {
		if text := d.claim(path); text != "" {
			b = appendEntry(b, path, text)
		}
	}
	return end(end(end(b, claims), value), entry)
}

// appendLimitHeaders leaves out what would not be a header.
func (d *decision) appendLimitHeaders(b []byte, field protowire.Number) []byte {
	var room [64]byte
	for _, h := range d.verdict.Headers {
		name := appendLower(room[:0], h[0])
		if headerName(view(name)) && utf8.ValidString(h[1]) && cleanValue(h[1]) {
			b = appendHeader(b, field, view(name), h[1])
		}
	}
	return b
}

func appendLower(b []byte, s string) []byte {
	for _, c := range []byte(s) {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

// appendHeader appends a header that replaces whatever there was under its name. Envoy's default is to append.
func appendHeader(b []byte, field protowire.Number, name, value string) []byte {
	return appendHeaderTo(b, field, name, value, false)
}

// appendHeaderTo appends a header that replaces those under its name, or stands beside them: a second set-cookie.
func appendHeaderTo(b []byte, field protowire.Number, name, value string, beside bool) []byte {
	action := corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
	if beside {
		action = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
	}
	b, option := open(b, field)
	b, header := open(b, optionHeader)
	b = appendText(b, headerKey, name)
	b = end(appendText(b, headerText, value), header)
	return end(appendNumber(b, optionAction, uint64(action)), option)
}

// appendEntry appends a field of a google.protobuf.Struct that is a text.
func appendEntry(b []byte, key, text string) []byte {
	b, entry := open(b, structFields)
	b = appendText(b, entryKey, key)
	b, value := open(b, entryValue)
	return end(end(appendText(b, valueText, text), value), entry)
}

func appendText(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func appendNumber(b []byte, field protowire.Number, n uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), n)
}

// open begins a message within the message; end sets its length.
func open(b []byte, field protowire.Number) (_ []byte, start int) {
	b = append(protowire.AppendTag(b, field, protowire.BytesType), 0) // most lengths take one byte
	return b, len(b)
}

func end(b []byte, start int) []byte {
	n := len(b) - start
	if n < 0x80 {
		b[start-1] = byte(n)
		return b
	}
	var room [10]byte
	length := protowire.AppendVarint(room[:0], uint64(n))
	return slices.Replace(b, start-1, start, length...)
}
