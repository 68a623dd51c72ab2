package envoy

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// forever: a listener without its routes would answer 404 to everybody, so it rather does not open yet (or the one
// before it goes on serving).
var forever = durationpb.New(0)

// connectionManager is the HTTP half of a listener, before settings, filters and the headers that it removes. Where it
// differs from Envoy's defaults, those let a request through that a backend may read as another one than auth has seen.
func connectionManager(l *policy.Listener) *hcmv3.HttpConnectionManager {
	manager := &hcmv3.HttpConnectionManager{
		StatPrefix:                l.Name,
		RouteSpecifier:            rds(l.Name),
		CommonHttpProtocolOptions: commonHTTP(),
		Http2ProtocolOptions:      http2(),

		// Paths: what is matched, authorized and forwarded is one and the same normal form.
		NormalizePath:                wrapperspb.Bool(true),
		MergeSlashes:                 true,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_REJECT_REQUEST,

		// Hosts: a port or a dot behind the name must not lead to another virtual host.
		StripPortMode:        &hcmv3.HttpConnectionManager_StripAnyHostPort{StripAnyHostPort: true},
		StripTrailingHostDot: true,

		// Clients: the peer is the client; behind n proxies a setting says so.
		UseRemoteAddress:         wrapperspb.Bool(true),
		XffNumTrustedHops:        0,
		ForwardClientCertDetails: hcmv3.HttpConnectionManager_SANITIZE,

		// Nobody needs to know that this is Envoy; a backend's own header goes away with the response headers.
		ServerHeaderTransformation: hcmv3.HttpConnectionManager_PASS_THROUGH,
		LocalReplyConfig:           localReplies(),

		// Slow clients: Envoy by itself gives them any time for the headers and for the request as a whole.
		MaxRequestHeadersKb:   wrapperspb.UInt32(32),
		RequestHeadersTimeout: durationpb.New(10 * time.Second),
		RequestTimeout:        durationpb.New(5 * time.Minute),
		StreamIdleTimeout:     durationpb.New(5 * time.Minute),
	}
	if l.Trusted {
		// Who the client is has been settled where it came in: the last address of x-forwarded-for, and the peer where
		// there is none. Nothing is added to it, and the request ID is kept.
		manager.UseRemoteAddress = wrapperspb.Bool(false)
		manager.ForwardClientCertDetails = hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY
	}
	return manager
}

func commonHTTP() *corev3.HttpProtocolOptions {
	return &corev3.HttpProtocolOptions{
		IdleTimeout:                  durationpb.New(time.Hour),
		MaxHeadersCount:              wrapperspb.UInt32(100),
		HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_REJECT_REQUEST, // x_auth_user is x-auth-user to CGI
	}
}

// http2 is Envoy's advice for edges: by itself it lets one connection have 1,024 streams of 16 MiB and 24 MiB in all.
func http2() *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{
		MaxConcurrentStreams:        wrapperspb.UInt32(100),
		InitialStreamWindowSize:     wrapperspb.UInt32(64 << 10),
		InitialConnectionWindowSize: wrapperspb.UInt32(1 << 20),
	}
}
