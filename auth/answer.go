package auth

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
)

func (d *decision) response() *authv3.CheckResponse {
	if d.deny != nil {
		return d.denied()
	}
	return d.allowed()
}

func (d *decision) allowed() *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers:              d.grant.headers,
			HeadersToRemove:      d.absent(),
			ResponseHeadersToAdd: d.limitHeaders(),
		}},
		DynamicMetadata: d.metadata("allow"),
	}
}

// absent are the headers that some provider of the rule could have set, and this grant does not: a client that sends
// them itself must not be believed.
func (d *decision) absent() []string {
	if len(d.grant.headers) == len(d.rule.headers) {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(d.rule.headers), func(name string) bool {
		return slices.ContainsFunc(d.grant.headers, func(h *corev3.HeaderValueOption) bool { return h.Header.Key == name })
	})
}

// denied is never the "error response" of newer Envoys: failure_mode_allow would let that pass.
func (d *decision) denied() *authv3.CheckResponse {
	body, err := json.Marshal(map[string]string{"error": d.deny.reason, "message": d.deny.message})
	if err != nil {
		body = []byte(`{"error":"internal"}`)
	}
	headers := []*corev3.HeaderValueOption{
		setHeader("content-type", "application/json"),
		setHeader("cache-control", "no-store"),
	}
	if d.grpc {
		// Envoy makes headers with grpc-status of a denial, and the body its grpc-message. Left to itself it makes the
		// status of the HTTP one, and UNAVAILABLE of 429, which clients try again at once.
		headers = append(headers, setHeader("grpc-status", strconv.Itoa(int(d.deny.code))))
		body = []byte(d.deny.message)
	}
	if d.deny.status == 401 {
		headers = append(headers, setHeader("www-authenticate", d.challenge()))
	}
	return &authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(d.deny.code)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(d.deny.status)},
			Headers: append(headers, d.limitHeaders()...),
			Body:    string(body),
		}},
		DynamicMetadata: d.metadata("deny"),
	}
}

// challenge names an error only where credentials were sent (RFC 6750, 3.1).
func (d *decision) challenge() string {
	if d.refusal == nil {
		return d.rule.challenge
	}
	return d.rule.challenge + `, error="invalid_token", error_description="` + d.refusal.text + `"`
}

// metadata is for Envoy's access log: %DYNAMIC_METADATA(envoy.filters.http.ext_authz:consumer)%.
func (d *decision) metadata(what string) *structpb.Struct {
	m := map[string]*structpb.Value{"decision": structpb.NewStringValue(what)}
	if d.rule != nil {
		m["rule"] = structpb.NewStringValue(d.rule.name)
	}
	if d.grant != nil {
		m["consumer"] = structpb.NewStringValue(d.consumer)
		m["provider"] = structpb.NewStringValue(d.grant.provider)
	}
	if d.deny != nil {
		m["reason"] = structpb.NewStringValue(d.deny.reason)
	}
	if d.verdict.Limit != "" {
		m["limit"] = structpb.NewStringValue(strings.ToValidUTF8(d.verdict.Limit, "?"))
	}
	return &structpb.Struct{Fields: m}
}

// limitHeaders leaves out what would not be a header.
func (d *decision) limitHeaders() []*corev3.HeaderValueOption {
	var all []*corev3.HeaderValueOption
	for _, h := range d.verdict.Headers {
		name := strings.ToLower(h[0])
		if headerName(name) && cleanValue(h[1]) && utf8.ValidString(h[1]) {
			all = append(all, setHeader(name, h[1]))
		}
	}
	return all
}

// setHeader replaces whatever the header held. Envoy's default is to append.
func setHeader(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

func panicType(p any) string { return fmt.Sprintf("%T", p) }
