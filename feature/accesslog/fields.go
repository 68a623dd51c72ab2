package accesslog

import (
	"strings"

	"github.com/legation/legation/envoy"
)

// What Envoy writes of a path as the client sent it; NQ leaves out the query.
const (
	pathOnly     = "%PATH(NQ:ORIG_OR_PATH)%"
	pathAndQuery = "%PATH(WQ:ORIG_OR_PATH)%"
)

// authMetadata is where Envoy keeps what the auth service tells of its decision.
const authMetadata = "envoy.filters.http.ext_authz"

// limitMetadata is where Envoy keeps what the rate limit service tells, which counts where auth doesn't.
const limitMetadata = "envoy.filters.http.ratelimit"

// What the labels have written down of the policy's revision: see [envoy.Labels].
const (
	revisionOfRequest    = "%DYNAMIC_METADATA(" + envoy.Metadata + ":" + envoy.LabelKey + ")%"
	revisionOfConnection = "%FILTER_STATE(" + envoy.ConnectionLabel + ":PLAIN)%"
)

// first is the substitution of the first of these that there is, each metadata's name and key.
func first(metadata ...string) string {
	operators := make([]string, len(metadata))
	for i, m := range metadata {
		operators[i] = `{"command":"DYNAMIC_METADATA","param":"` + m + `"}`
	}
	return `%COALESCE({"operators":[` + strings.Join(operators, ",") + `]})%`
}

// ofRequests is what is logged of a request. What the client asked for is logged, not what rewrites made of it: those
// keep it in x-envoy-original- headers.
var ofRequests = defaults{
	fields: map[string]string{
		"time":      "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
		"requestId": "%REQ(X-REQUEST-ID)%",
		"traceId":   "%TRACE_ID%", // where there is tracing
		"method":    "%REQ(:METHOD)%",
		"host":      "%REQ(X-ENVOY-ORIGINAL-HOST?:AUTHORITY)%",
		"path":      pathOnly,
		"protocol":  "%PROTOCOL%",
		"client":    "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
		"userAgent": "%REQ(USER-AGENT)%",

		"status":        "%RESPONSE_CODE%",
		"details":       "%RESPONSE_CODE_DETAILS%",
		"flags":         "%RESPONSE_FLAGS%",
		"bytesReceived": "%BYTES_RECEIVED%",
		"bytesSent":     "%BYTES_SENT%",
		"durationMs":    "%DURATION%",
		"backendMs":     "%COMMON_DURATION(US_TX_BEG:US_RX_BEG:ms)%", // of the last try

		"revision":     revisionOfRequest,
		"route":        "%METADATA(ROUTE:legation:route)%",
		"routeVersion": "%METADATA(ROUTE:legation:version)%",
		"service":      "%UPSTREAM_CLUSTER%",
		"endpoint":     "%UPSTREAM_HOST%",
		"attempts":     "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",

		"consumer": "%DYNAMIC_METADATA(" + authMetadata + ":consumer)%",
		"provider": "%DYNAMIC_METADATA(" + authMetadata + ":provider)%",
		"decision": "%DYNAMIC_METADATA(" + authMetadata + ":decision)%",
		"reason":   "%DYNAMIC_METADATA(" + authMetadata + ":reason)%",
		"limit":    first(authMetadata+":limit", limitMetadata+":refusedBy"), // that refused
		"shadow":   first(authMetadata+":shadow", limitMetadata+":shadow"),
		"rule":     "%DYNAMIC_METADATA(" + authMetadata + ":rule)%",
	},
	withQuery: map[string]string{"path": pathAndQuery},
	line: `[%START_TIME%] "%REQ(:METHOD)% ` + pathOnly + ` %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% ` +
		`%BYTES_RECEIVED% %BYTES_SENT% %DURATION% "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%" "%REQ(USER-AGENT)%" ` +
		`"%REQ(X-REQUEST-ID)%" "%REQ(X-ENVOY-ORIGINAL-HOST?:AUTHORITY)%" "%UPSTREAM_HOST%" ` + revisionOfRequest,
	body: "%REQ(:METHOD)% " + pathOnly + " %RESPONSE_CODE%",
}

// ofConnections is what is logged of a connection on a listener of TCP or TLS.
var ofConnections = defaults{
	fields: map[string]string{
		"time":          "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
		"client":        "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
		"sni":           "%REQUESTED_SERVER_NAME%",
		"details":       "%CONNECTION_TERMINATION_DETAILS%",
		"flags":         "%RESPONSE_FLAGS%",
		"bytesReceived": "%BYTES_RECEIVED%",
		"bytesSent":     "%BYTES_SENT%",
		"durationMs":    "%DURATION%",
		"revision":      revisionOfConnection,
		"service":       "%UPSTREAM_CLUSTER%",
		"endpoint":      "%UPSTREAM_HOST%",
		"attempts":      "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
	},
	line: `[%START_TIME%] "%REQUESTED_SERVER_NAME%" %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ` +
		`"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%" "%UPSTREAM_CLUSTER%" "%UPSTREAM_HOST%" ` + revisionOfConnection,
	body: "connection to %UPSTREAM_CLUSTER% %RESPONSE_FLAGS%",
}
