package auth

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// generated is the answer as the generated types make it.
func generated(d *decision, limits []*corev3.HeaderValueOption) *authv3.CheckResponse {
	meta := map[string]any{}
	for key, value := range map[string]string{"consumer": d.who.name, "plan": d.who.plan, "limit": strings.ToValidUTF8(d.verdict.Limit, "?")} {
		if value != "" {
			meta[key] = value
		}
	}
	meta["rule"], meta["provider"], meta["consumer"] = d.rule.name, d.grant.provider, d.who.name
	claims := map[string]any{}
	for _, path := range d.rule.metadata {
		if text := d.grant.claims.text(path); text != "" {
			claims[path] = text
		}
	}
	if len(d.rule.metadata) > 0 {
		meta["claims"] = claims
	}
	if d.deny == nil {
		ok := &authv3.OkHttpResponse{ResponseHeadersToAdd: limits}
		set := map[string]bool{}
		for _, h := range d.grant.headers {
			ok.Headers, set[h.name] = append(ok.Headers, option(h.name, h.value)), true
		}
		for _, name := range d.rule.headers {
			if !set[name] {
				ok.HeadersToRemove = append(ok.HeadersToRemove, name)
			}
		}
		meta["decision"] = "allow"
		return &authv3.CheckResponse{
			Status: &rpcstatus.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok}, DynamicMetadata: must(structpb.NewStruct(meta)),
		}
	}
	meta["decision"], meta["reason"] = "deny", d.deny.reason
	body := string(must(json.Marshal(map[string]string{"error": strings.ToLower(http.StatusText(d.deny.status)), "message": d.deny.told})))
	headers := []*corev3.HeaderValueOption{option("content-type", "application/json"), option("cache-control", "no-store")}
	if d.grpc {
		headers, body = append(headers, option("grpc-status", strconv.Itoa(int(d.deny.code)))), d.deny.told
	}
	if d.deny.status == 401 {
		headers = append(headers, option("www-authenticate", d.challenge()))
	}
	return &authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(d.deny.code)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: typev3.StatusCode(d.deny.status)}, Headers: append(headers, limits...), Body: body,
		}},
		DynamicMetadata: must(structpb.NewStruct(meta)),
	}
}

func option(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header: &corev3.HeaderValue{Key: name, Value: value}, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// FuzzAnswer writes decisions of all kinds. Texts that would make a message which Envoy can't read never come so far:
// names are checked when they are loaded, claims when tokens are read.
func FuzzAnswer(f *testing.F) {
	f.Add("edge/a", "idp", "acme", "gold", "alice", "l", "RateLimit-Limit", "10", uint8(0), true)
	f.Add("edge/a", "idp", "acme", "", "", "", "", "", uint8(200), false)
	for _, n := range []int{100, 127, 128, 129, 300, 4096, 20_000} { // around where lengths take a byte more
		f.Add("r", "p", strings.Repeat("c", n), strings.Repeat("p", n/2), strings.Repeat("v", n), strings.Repeat("l", n), "x", strings.Repeat("h", n), uint8(n), n%2 == 0)
	}
	f.Fuzz(func(t *testing.T, ruleName, providerName, consumerName, plan, claim, limit, header, value string, kind uint8, grpc bool) {
		for _, s := range []string{ruleName, providerName, consumerName, plan, claim} {
			if !utf8.ValidString(s) {
				return
			}
		}
		d := newDecision()
		d.rule = &rule{name: ruleName, headers: []string{"x-absent", "x-claim"}, metadata: []string{"claim", "none"}[:int(kind)%3], challenge: []string{"Bearer"}}
		d.grant = &grant{provider: providerName, claims: claims{"claim": claim}}
		d.who, d.grpc = consumer{consumerName, plan}, grpc
		if v := d.grant.claims.text("claim"); v != "" {
			d.grant.headers, d.grant.wire = []pair{{name: "x-claim", value: v}}, appendHeader(nil, okHeaders, "x-claim", v)
		}
		denials := []*denial{nil, denyHost, denyNoRule, denyAnonymous, denyLimited, denyNoPlan, denyNoCount, errExpired.deny}
		if d.deny = denials[int(kind)%len(denials)]; d.deny == errExpired.deny {
			d.refusal = errExpired
		}
		d.verdict = Verdict{Limit: limit, Headers: [][2]string{{header, value}, {"X-Second", "2"}}}
		limits := []*corev3.HeaderValueOption{option("x-second", "2")}
		if name := lowerASCII(header); headerName(name) && utf8.ValidString(value) && cleanValue(value) {
			limits = append([]*corev3.HeaderValueOption{option(name, value)}, limits...)
		}
		b := d.appendTo(nil)
		got := new(authv3.CheckResponse)
		if err := proto.Unmarshal(b, got); err != nil {
			t.Fatal(err)
		}
		if want := generated(d, limits); !proto.Equal(got, want) {
			t.Fatalf("got  %v\nwant %v", got, want)
		}
		if again := must(proto.Marshal(got)); len(again) != len(b) && value != "" { // they leave out empty texts
			t.Fatalf("%d bytes, the generated types write %d", len(b), len(again))
		}
	})
}

func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func TestLengthsOfMessages(t *testing.T) {
	for _, n := range []int{0, 1, 126, 127, 128, 129, 16_382, 16_383, 16_384, 16_385, 2_097_151, 2_097_152} {
		content := bytes.Repeat([]byte("a"), n)
		b, at := open([]byte("before"), 1)
		b = append(end(append(b, content...), at), "after"...)
		want := append(protowire.AppendBytes(protowire.AppendTag([]byte("before"), 1, protowire.BytesType), content), "after"...)
		if !bytes.Equal(b, want) {
			t.Errorf("a message of %d bytes is written wrong", n)
		}
	}
}
