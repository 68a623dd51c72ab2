package headers

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/legation/legation/policy"
)

// plainCommands are Envoy's commands that stand without arguments: what is known of the client, the connection and the
// route. What only Envoy, its machine or other filters know (files, secrets, variables, metadata) is not among them.
var plainCommands = []string{
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
	"DOWNSTREAM_LOCAL_PORT",
	"DOWNSTREAM_PEER_DNS_SAN",
	"DOWNSTREAM_PEER_FINGERPRINT_256",
	"DOWNSTREAM_PEER_SERIAL",
	"DOWNSTREAM_PEER_SUBJECT",
	"DOWNSTREAM_PEER_URI_SAN",
	"DOWNSTREAM_REMOTE_ADDRESS",
	"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
	"DOWNSTREAM_REMOTE_PORT",
	"DOWNSTREAM_TLS_CIPHER",
	"DOWNSTREAM_TLS_VERSION",
	"PROTOCOL",
	"REQUESTED_SERVER_NAME",
	"ROUTE_NAME",
	"START_TIME",
}

// answerCommands are those that are known once the backend has answered.
var answerCommands = []string{"RESPONSE_CODE", "UPSTREAM_CLUSTER", "UPSTREAM_HOST"}

// The forms of commands with arguments.
const (
	reqForm  = "REQ(NAME)"
	respForm = "RESP(NAME)"
	timeForm = "START_TIME(FORMAT)"
)

// commands lists what values of a side may hold.
func commands(side string) string {
	all := append(slices.Clone(plainCommands), reqForm, timeForm)
	if side == response {
		all = append(append(all, answerCommands...), respForm)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

var (
	// command is a command at the beginning of a text: name, arguments, length, and the percent sign at its end.
	command = regexp.MustCompile(`^%([A-Z0-9_]+)(\(([^()]*)\))?(:([0-9]{1,4}))?%`)
	// timeFormat is strftime's, without line ends, and Envoy's %f with a number of digits.
	timeFormat = regexp.MustCompile(`^([A-Za-z0-9 ,.:/_+-]|%([aAbBdDeFHIjmMpRsSTuUyYzZ]|[1-9]?f))+$`)
)

// secrets are the request headers that prove who the caller is; a copy under another name is easily logged or passed on.
var secrets = []string{"authorization", "proxy-authorization", "cookie"}

// call is one command in a value.
type call struct {
	name, argument string
	has            bool // there are parentheses
	bounded        bool // there is a length, as in %REQ(NAME):64%
}

// calls finds the commands in a value; false for a percent sign that is neither doubled nor around a command.
func calls(value string) ([]call, bool) {
	var found []call
	for {
		i := strings.IndexByte(value, '%')
		switch {
		case i < 0:
			return found, true
		case strings.HasPrefix(value[i:], "%%"):
			value = value[i+2:]
			continue
		}
		m := command.FindStringSubmatch(value[i:])
		if m == nil {
			return found, false
		}
		found = append(found, call{m[1], m[3], m[2] != "", m[4] != ""})
		value = value[i+len(m[0]):]
	}
}

// checkCommands refuses percent signs that stand alone, and commands that are not for the side.
func checkCommands(c *policy.Check, path, value, side string) {
	found, ok := calls(value)
	for _, one := range found {
		if why, hint := one.wrong(side); why != "" {
			c.Errorf(path, "%s", why).Hint = hint
		}
	}
	if !ok {
		c.Errorf(path, "a percent sign stands alone in %q", value).
			Hintf("write %%%% for the sign itself, or a command between two, such as %%PROTOCOL%%")
	}
}

// wrong says why values of a side cannot hold the command, and what they can.
func (k call) wrong(side string) (why, hint string) {
	named := k.name == "REQ" || k.name == "RESP"
	answer := slices.Contains(answerCommands, k.name) || k.name == "RESP"
	switch {
	case answer && side != response:
		return k.name + " is not known before the backend has answered", "it can stand in headers.response"
	case k.bounded && !named:
		return k.name + " takes no length", "REQ and RESP do"
	case k.has && named:
		return wrongNames(k.name, k.argument), ""
	case k.has && k.name == "START_TIME" && !timeFormat.MatchString(k.argument):
		return fmt.Sprintf("START_TIME knows no format %q", k.argument), "such as %Y-%m-%dT%H:%M:%S.%3fZ, or %s for seconds"
	case k.has && k.name == "START_TIME":
		return "", ""
	case k.has || !slices.Contains(plainCommands, k.name) && !slices.Contains(answerCommands, k.name):
		return fmt.Sprintf("values cannot hold %s", k), "want one of " + commands(side)
	}
	return "", ""
}

// String is the command as written, without its length.
func (k call) String() string {
	if k.has {
		return k.name + "(" + k.argument + ")"
	}
	return k.name
}

// wrongNames says why the argument is not the name of a header, or two with a question mark between them: the second
// where the first is missing.
func wrongNames(command, argument string) string {
	for name := range strings.SplitSeq(argument, "?") {
		lower := strings.ToLower(name)
		pseudo := command == "REQ" && slices.Contains([]string{":path", ":method", ":authority", ":scheme"}, lower)
		switch {
		case slices.Contains(secrets, lower) || lower == "set-cookie":
			return fmt.Sprintf("the value of %s is a secret, which is not copied", lower)
		case !pseudo && !policy.IsToken(name):
			return fmt.Sprintf("%q is not a header name", name)
		}
	}
	if strings.Count(argument, "?") > 1 {
		return command + " takes one header, or two with a question mark between them"
	}
	return ""
}
