package accesslog

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// command is one of Envoy's substitutions: %NAME%, %NAME(argument)% or %NAME(argument):LENGTH%.
var command = regexp.MustCompile(`^%([A-Z][A-Z0-9_]*)(?:\((.*?)\))?(:[0-9]+)?%`)

// argument is what a command takes in parentheses.
type argument struct {
	form     *regexp.Regexp // nil for none
	required bool
	cut      bool   // a length may follow
	example  string // of the command with it
}

func takes(form, example string) argument {
	return argument{form: regexp.MustCompile(`^(?:` + form + `)$`), example: example}
}

func needs(form, example string) argument {
	a := takes(form, example)
	a.required = true
	return a
}

func (a argument) orCut() argument {
	a.cut = true
	return a
}

const (
	token = `:?[!#$&'*+.^_|~0-9A-Za-z-]+`
	point = `(?:DS_RX_BEG|DS_RX_END|US_CX_BEG|US_CX_END|US_HS_END|US_TX_BEG|US_TX_END|US_RX_BEG|US_RX_END|DS_TX_BEG|DS_TX_END)`
)

// commands is what may be logged. What is missing could hold secrets (environment variables, other filter state, expressions)
// or is a whole certificate.
var commands = func() map[string]argument {
	all := map[string]argument{
		"REQ":                   needs(token+`(?:\?`+token+`)?`, "%REQ(user-agent)%").orCut(),
		"RESP":                  needs(token+`(?:\?`+token+`)?`, "%RESP(content-type)%").orCut(),
		"TRAILER":               needs(token+`(?:\?`+token+`)?`, "%TRAILER(grpc-message)%").orCut(),
		"PATH":                  takes(`(?:WQ|NQ)(?::(?:ORIG|PATH|ORIG_OR_PATH))?`, pathOnly).orCut(),
		"QUERY_PARAM":           needs(`[^()%]+`, "%QUERY_PARAM(page)%").orCut(),
		"QUERY_PARAMS":          takes(`ORIG|DECODED`, "%QUERY_PARAMS(ORIG)%").orCut(),
		"DYNAMIC_METADATA":      needs(`[^()%]+`, "%DYNAMIC_METADATA("+authMetadata+":consumer)%").orCut(),
		"METADATA":              needs(`(?:ROUTE|CLUSTER|UPSTREAM_HOST|LISTENER):[^()%]+`, "%METADATA(ROUTE:legation:route)%").orCut(),
		"FILTER_STATE":          needs(regexp.QuoteMeta(envoy.ConnectionLabel)+`:PLAIN`, revisionOfConnection),
		"COMMON_DURATION":       needs(point+`:`+point+`:(?:ms|us|ns)`, "%COMMON_DURATION(US_TX_BEG:US_RX_BEG:ms)%"),
		"GRPC_STATUS":           takes(`CAMEL_STRING|SNAKE_STRING|NUMBER`, "%GRPC_STATUS(SNAKE_STRING)%"),
		"RESPONSE_CODE_DETAILS": takes(`ALLOW_WHITESPACES`, "%RESPONSE_CODE_DETAILS%"),
	}
	for _, name := range []string{"START_TIME", "START_TIME_LOCAL", "EMIT_TIME", "EMIT_TIME_LOCAL"} {
		all[name] = takes(`[^()]+`, "%"+name+"(%Y-%m-%dT%H:%M:%S.%3fZ)%")
	}
	for name := range strings.FieldsSeq(plain) {
		all[name] = argument{example: "%" + name + "%"}
	}
	return all
}()

const plain = `
PROTOCOL UPSTREAM_PROTOCOL RESPONSE_CODE RESPONSE_FLAGS RESPONSE_FLAGS_LONG CONNECTION_TERMINATION_DETAILS GRPC_STATUS_NUMBER
BYTES_RECEIVED BYTES_SENT REQUEST_HEADERS_BYTES RESPONSE_HEADERS_BYTES RESPONSE_TRAILERS_BYTES
UPSTREAM_WIRE_BYTES_SENT UPSTREAM_WIRE_BYTES_RECEIVED UPSTREAM_HEADER_BYTES_SENT UPSTREAM_HEADER_BYTES_RECEIVED
DOWNSTREAM_WIRE_BYTES_SENT DOWNSTREAM_WIRE_BYTES_RECEIVED DOWNSTREAM_HEADER_BYTES_SENT DOWNSTREAM_HEADER_BYTES_RECEIVED
DURATION REQUEST_DURATION REQUEST_TX_DURATION RESPONSE_DURATION RESPONSE_TX_DURATION DOWNSTREAM_HANDSHAKE_DURATION
UPSTREAM_REQUEST_ATTEMPT_COUNT UPSTREAM_HOST UPSTREAM_HOST_NAME UPSTREAM_CLUSTER UPSTREAM_CONNECTION_ID
UPSTREAM_LOCAL_ADDRESS UPSTREAM_REMOTE_ADDRESS UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT UPSTREAM_REMOTE_PORT
UPSTREAM_TRANSPORT_FAILURE_REASON UPSTREAM_TLS_VERSION UPSTREAM_TLS_CIPHER UPSTREAM_PEER_SUBJECT
DOWNSTREAM_REMOTE_ADDRESS DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_PORT
DOWNSTREAM_DIRECT_REMOTE_ADDRESS DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_DIRECT_REMOTE_PORT
DOWNSTREAM_LOCAL_ADDRESS DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_PORT DOWNSTREAM_TRANSPORT_FAILURE_REASON
DOWNSTREAM_TLS_VERSION DOWNSTREAM_TLS_CIPHER DOWNSTREAM_PEER_SUBJECT DOWNSTREAM_PEER_ISSUER DOWNSTREAM_PEER_SERIAL
DOWNSTREAM_PEER_URI_SAN DOWNSTREAM_PEER_DNS_SAN DOWNSTREAM_PEER_IP_SAN DOWNSTREAM_PEER_FINGERPRINT_256
DOWNSTREAM_PEER_CERT_V_START DOWNSTREAM_PEER_CERT_V_END
REQUESTED_SERVER_NAME HOSTNAME CONNECTION_ID STREAM_ID UNIQUE_ID TRACE_ID SPAN_ID ROUTE_NAME FILTER_CHAIN_NAME ACCESS_LOG_TYPE
`

// checkSubstitutions reports what Envoy would not understand of a text, and what must not be logged.
func checkSubstitutions(c *policy.Check, path, text string, query bool) {
	if len(text) > maxText {
		c.Errorf(path, "%d bytes, more than %d", len(text), maxText)
		return
	}
	for {
		at := strings.IndexByte(text, '%')
		if at < 0 {
			return
		}
		text = text[at:]
		if after, literal := strings.CutPrefix(text, "%%"); literal {
			text = after
			continue
		}
		m := command.FindStringSubmatch(text)
		if m == nil {
			c.Errorf(path, "a percent sign begins a command such as %%PROTOCOL%%, but none stands here: %q", "%"+start(text[1:])).
				Hintf("write %%%% for a percent sign")
			return
		}
		checkCommand(c, path, m, query)
		text = text[len(m[0]):]
	}
}

// start is as much of a text as a message repeats.
func start(text string) string {
	if len(text) <= 20 {
		return text
	}
	return strings.ToValidUTF8(text[:20], "") + "…"
}

// checkCommand looks at a whole command, its name, its argument and its length.
func checkCommand(c *policy.Check, path string, m []string, query bool) {
	whole, name, arg, length := m[0], m[1], m[2], m[3]
	known, ok := commands[name]
	switch {
	case !ok:
		c.Errorf(path, "%%%s%% is not among the commands that may be logged", name).Hintf("%s", similar(name))
	case known.form == nil && (strings.Contains(whole, "(") || length != ""):
		c.Errorf(path, "%%%s%% takes no argument and no length", name).Hintf("write %s", known.example)
	case known.required && arg == "":
		c.Errorf(path, "%%%s%% needs an argument", name).Hintf("write %s", known.example)
	case arg != "" && !known.form.MatchString(arg):
		c.Errorf(path, "%%%s%% does not take %q", name, start(arg)).Hintf("write %s", known.example)
	case length != "" && !known.cut:
		c.Errorf(path, "%%%s%% takes no length", name).Hintf("write %s", known.example)
	default:
		checkSecrets(c, path, name, strings.ToLower(arg), query)
	}
}

// similar is a hint for who means some other command: the shortest that has the name in it.
func similar(name string) string {
	best := ""
	for _, known := range slices.Sorted(maps.Keys(commands)) {
		if strings.Contains(known, name) && (best == "" || len(known) < len(best)) {
			best = known
		}
	}
	if best == "" {
		return "such as %RESPONSE_CODE%, %DURATION% or %REQ(user-agent)%"
	}
	return "did you mean " + commands[best].example + "?"
}

// checkSecrets refuses what is a secret, and what has a query unless queries are asked for.
func checkSecrets(c *policy.Check, path, name, arg string, query bool) {
	var names []string
	hasQuery := name == "QUERY_PARAMS" || name == "PATH" && !strings.HasPrefix(arg, "nq")
	switch name {
	case "REQ", "RESP", "TRAILER":
		names = strings.Split(arg, "?")
		hasQuery = slices.ContainsFunc(names, envoy.QueryHeader)
	case "QUERY_PARAM":
		names = []string{arg}
	}
	for _, n := range names {
		if envoy.SecretHeader(n) {
			c.Errorf(path, "%s is a secret, and logs are read by many", n).Hintf("leave it out")
		} else if envoy.SecretName(n) {
			c.Warnf(path, "%s looks like a secret, and logs are read by many", n)
		}
	}
	if hasQuery && !query {
		c.Errorf(path, "%%%s%% has the query, which may hold secrets", name).
			Hintf("write %s, or query: true beside format", pathOnly)
	}
}
