package auth

import (
	"encoding/json"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
)

// denial is an answer that stops the request. It stands for all requests of its kind, so it holds nothing of theirs.
type denial struct {
	status  int
	code    codes.Code
	reason  string // for Envoy's access log and the decision log
	message string // for us
	told    string // to the client, which learns nothing of what was wrong beyond that
	result  result
	body    string // JSON: the words of the status, as in Envoy's own answers, and told
}

// Error is for us.
func (d *denial) Error() string { return d.message }

var (
	denyHost      = newDenial(400, codes.InvalidArgument, "bad_host", "the host is not acceptable", resultBadRequest)
	denyTwoTokens = newDenial(400, codes.InvalidArgument, "two_credentials", "the authorization header holds more than one value", resultBadRequest)
	denyNoRule    = newDenial(403, codes.PermissionDenied, "no_rule", "the route names no rule", resultForbidden)
	denyUnknown   = newDenial(503, codes.Unavailable, "unknown_rule", "the route's rule is not known here yet", resultUnavailable)
	denyNoKeys    = newDenial(503, codes.Unavailable, "no_keys", "the keys of the identity provider are not available", resultUnavailable)
	denyNoSecret  = newDenial(503, codes.Unavailable, "no_secret", "a secret that is needed to decide is not there", resultUnavailable)
	denyNoSession = newDenial(503, codes.Unavailable, "no_sessions", "whether somebody is logged in can't be told now", resultUnavailable)
	denyLate      = newDenial(503, codes.Unavailable, "timeout", "what the decision waited for did not come in time", resultUnavailable)
	denyInternal  = newDenial(503, codes.Unavailable, "internal", "the request could not be decided", resultUnavailable)
	denyAnswered  = newDenial(401, codes.Unauthenticated, "answered", "the request was answered by the login", resultAnswered)
	denyTwoKeys   = newDenial(400, codes.InvalidArgument, "two_credentials", "the request holds more than one API key", resultBadRequest)
	denyNoBoard   = newDenial(503, codes.Unavailable, "no_key_store", "the API keys are not known here yet", resultUnavailable)
	denyBusy      = newDenial(503, codes.Unavailable, "busy", "too many passwords are being checked", resultUnavailable)
	denyAnonymous = newDenial(401, codes.Unauthenticated, "no_credentials", "credentials are needed", resultUnauthenticated).tell("credentials are needed")
	denyLimited   = newDenial(429, codes.ResourceExhausted, "limited", "too many requests", resultLimited)
	denyNoPlan    = newDenial(403, codes.PermissionDenied, "no_plan", "a plan is needed", resultForbidden).tell("a plan is needed")
	denyNoCount   = newDenial(503, codes.Unavailable, "limit_unavailable", "the request could not be counted", resultUnavailable)
)

func newDenial(status int, code codes.Code, reason, message string, result result) *denial {
	d := &denial{status: status, code: code, reason: reason, message: message, result: result}
	return d.tell(coarse[result])
}

// coarse is what clients are told of each result. Which key, claim, rule or part of ours it was is for the logs: it would
// tell how to come closer.
var coarse = [results]string{
	resultBadRequest:      "the request is not acceptable",
	resultUnauthenticated: "the credentials are not accepted",
	resultForbidden:       "this is not allowed",
	resultLimited:         "too many requests",
	resultUnavailable:     "the request could not be decided",
	resultAnswered:        "credentials are needed",
}

// tell has the client told text.
func (d *denial) tell(text string) *denial {
	body, err := json.Marshal(map[string]string{"error": strings.ToLower(http.StatusText(d.status)), "message": text})
	if err != nil {
		panic(err) // texts only: cannot happen
	}
	d.told, d.body = text, string(body)
	return d
}
