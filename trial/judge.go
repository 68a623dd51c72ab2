package trial

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/legation/legation/policy"
)

// outcome is all that became of a request: what the client heard, what Envoy says, and what services got.
type outcome struct {
	*heard
	entry    *entry // nil where Envoy has said nothing
	route    string // of the policy; "" for none
	upstream string // the service that was asked; "" for none
	received []got  // by the upstream
	mirrored []got
	counted  bool // something counts the route's requests
}

// filterData is what a filter has left in the metadata of a request, as texts.
func (o *outcome) filterData(filter string) map[string]string {
	data := map[string]string{}
	if o.entry == nil {
		return data
	}
	for name, v := range o.entry.GetMetadata().GetFilterMetadata()[filter].GetFields() {
		data[name] = v.GetStringValue()
	}
	return data
}

const (
	authData  = "envoy.filters.http.ext_authz"
	limitData = "envoy.filters.http.ratelimit"
	tokenData = "envoy.filters.http.jwt_authn"
)

// limited is the reason of those who call too often.
const limited = "limited"

// judged is what was decided about who calls and how often.
type judged struct{ decision, entry, consumer, reason, name string }

// auth is who was let in, as Envoy tells it. A limit that the same call counts is none of it.
func (o *outcome) auth() judged {
	data := o.filterData(authData)
	j := judged{decision: none, entry: data["provider"], consumer: data["consumer"], reason: data["reason"]}
	switch {
	case data["decision"] == "deny" && data["reason"] == limited:
		j.decision, j.reason = "denied", "" // a stranger, who is counted by address
		if j.entry != "" {
			j.decision = "granted"
		}
	case data["decision"] == "deny":
		j.decision = "denied"
	case data["decision"] != "":
		j.decision = "granted"
	case o.entry != nil && strings.HasPrefix(o.entry.details, "ext_authz"):
		j.decision = "denied"
	case len(o.filterData(tokenData)) > 0:
		j.decision = "granted"
	}
	return j
}

// limit is how often was judged to be too often, as Envoy tells it.
func (o *outcome) limit() judged {
	auth, limit := o.filterData(authData), o.filterData(limitData)
	switch {
	case auth["decision"] == "deny" && auth["reason"] == limited:
		return judged{decision: limited, name: auth["limit"]}
	case limit["refusedBy"] != "":
		return judged{decision: limited, name: limit["refusedBy"]}
	case o.entry != nil && (o.entry.details == "request_rate_limited" || o.entry.details == "local_rate_limited"):
		return judged{decision: limited}
	}
	if _, told := o.remaining(); told || o.counted && o.passed() {
		return judged{decision: "allowed"}
	}
	return judged{decision: none}
}

// passed tells whether a request was refused neither at the door nor for who calls: then it is counted.
func (o *outcome) passed() bool {
	return o.entry != nil && !strings.HasPrefix(o.entry.details, "rbac_access_denied") && o.auth().decision != "denied"
}

var structured = regexp.MustCompile(`;r=(\d+)`)

// remaining is what the answer says is left.
func (o *outcome) remaining() (uint64, bool) {
	for _, name := range []string{"RateLimit-Remaining", "X-RateLimit-Remaining"} {
		if n, err := strconv.ParseUint(o.header.Get(name), 10, 64); err == nil {
			return n, true
		}
	}
	if m := structured.FindStringSubmatch(o.header.Get("RateLimit")); m != nil {
		n, err := strconv.ParseUint(m[1], 10, 64)
		return n, err == nil
	}
	return 0, false
}

// judge holds an outcome against what is expected, and tells every difference at its place.
func (e *Expect) judge(o *outcome) policy.Problems {
	j := &judging{at: e.node}
	j.answer(e, o)
	j.way(e, o)
	j.decisions(e, o)
	slices.SortStableFunc(j.problems, func(a, b *policy.Problem) int {
		return cmp.Or(cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Col, b.Pos.Col))
	})
	return j.problems
}

type judging struct {
	at       *policy.Node
	problems policy.Problems
}

// differ tells that what stands under a key is not so.
func (j *judging) differ(at *policy.Node, want, got string) {
	j.problems = append(j.problems, &policy.Problem{Pos: at.Pos, Path: at.Path(), Message: "want " + want + ", got " + got})
}

func (j *judging) text(at *policy.Node, m *match, got string, there bool) {
	if m == nil || m.holds(got, there) {
		return
	}
	what := "nothing"
	if there {
		what = shown(got)
	}
	j.differ(at, m.String(), what)
}

func (j *judging) headers(at *policy.Node, want map[string]match, got http.Header) {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		m := want[name]
		lines := got[http.CanonicalHeaderKey(name)]
		if len(lines) > 1 && slices.ContainsFunc(lines, func(line string) bool { return m.holds(line, true) }) {
			continue // one of several lines, as of set-cookie
		}
		j.text(at.Get(name), &m, strings.Join(lines, ", "), lines != nil)
	}
}

// answer is what the client hears.
func (j *judging) answer(e *Expect, o *outcome) {
	if e.Status != nil && !e.Status.holds(o.status) {
		got := strconv.Itoa(o.status)
		if o.status == 0 {
			got = "no answer"
			if o.err != nil {
				got += " (" + o.err.Error() + ")"
			}
		}
		j.differ(j.at.Get("status"), e.Status.String(), got)
	}
	j.headers(j.at.Get("headers"), e.Headers, o.header)
	j.text(j.at.Get("location"), e.Location, o.header.Get("Location"), o.header["Location"] != nil)
	j.text(j.at.Get("body"), e.Body, string(o.body), len(o.body) > 0)
	details := ""
	if o.entry != nil {
		details = o.entry.details
	}
	j.text(j.at.Get("details"), e.Details, details, details != "")
}

// way is where the request went.
func (j *judging) way(e *Expect, o *outcome) {
	name := func(s string) string {
		if s == "" {
			return none
		}
		return s
	}
	if e.Route != nil && *e.Route != name(o.route) {
		j.differ(j.at.Get("route"), *e.Route, name(o.route))
	}
	if e.Upstream != nil && !slices.Contains(e.Upstream.values, name(o.upstream)) {
		j.differ(j.at.Get("upstream"), strings.Join(e.Upstream.values, " or "), name(o.upstream))
	}
	if e.Attempts != nil && int(*e.Attempts) != len(o.received) {
		j.differ(j.at.Get("attempts"), fmt.Sprint(*e.Attempts), strconv.Itoa(len(o.received)))
	}
	if e.Received != nil {
		j.received(e.Received, o)
	}
	if e.Mirrored != nil {
		got := []string{}
		for _, g := range o.mirrored {
			if !slices.Contains(got, g.service) {
				got = append(got, g.service)
			}
		}
		want := slices.DeleteFunc(slices.Clone(e.Mirrored.values), func(s string) bool { return s == none })
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			j.differ(j.at.Get("mirrored"), name(strings.Join(want, ", ")), name(strings.Join(got, ", ")))
		}
	}
}

func (j *judging) received(r *Received, o *outcome) {
	all := slices.Concat(o.received, o.mirrored)
	if r.Service != "" {
		all = slices.DeleteFunc(all, func(g got) bool { return g.service != r.Service })
	} else {
		all = o.received
	}
	if len(all) == 0 {
		j.differ(r.node, "a request at the service", "none")
		return
	}
	last := all[len(all)-1]
	j.text(r.node.Get("method"), r.Method, last.method, true)
	j.text(r.node.Get("host"), r.Host, last.host, true)
	j.text(r.node.Get("path"), r.Path, last.path, true)
	j.headers(r.node.Get("headers"), r.Headers, last.header)
	j.text(r.node.Get("body"), r.Body, last.body, last.body != "")
}

// decisions is what was said of who calls, and how often.
func (j *judging) decisions(e *Expect, o *outcome) {
	if a := e.Auth; a != nil {
		got, at := o.auth(), j.at.Get("auth")
		j.decided(at, string(a.Decision), got.decision, got.reason)
		j.text(under(at, "entry"), a.Entry, got.entry, got.entry != "")
		j.text(under(at, "consumer"), a.Consumer, got.consumer, got.consumer != "")
		j.text(under(at, "reason"), a.Reason, got.reason, got.reason != "")
	}
	l := e.Limit
	if l == nil {
		return
	}
	got, at := o.limit(), j.at.Get("limit")
	j.decided(at, string(l.Decision), got.decision, got.name)
	j.text(under(at, "name"), l.Name, got.name, got.name != "")
	if l.Remaining == nil {
		return
	}
	if n, told := o.remaining(); !told {
		j.differ(under(at, "remaining"), fmt.Sprint(*l.Remaining), "an answer that tells none")
	} else if n != *l.Remaining {
		j.differ(under(at, "remaining"), fmt.Sprint(*l.Remaining), fmt.Sprint(n))
	}
}

// decided holds a decision, for which there may be a reason, against the one that is expected.
func (j *judging) decided(at *policy.Node, want, got, why string) {
	if want == "" || want == got {
		return
	}
	if why != "" {
		got += " (" + why + ")"
	}
	j.differ(under(at, "decision"), want, got)
}

// under is what stands under a key of a map, or what stands in the map's place.
func under(n *policy.Node, key string) *policy.Node {
	if below := n.Get(key); below != nil {
		return below
	}
	return n
}
