package authorize

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// Explain tells what is asked of the caller, one fact for each thing that has to hold, and how who may not pass is answered.
func (s *Setting) Explain(c envoy.ExplainContext) []envoy.Fact {
	var facts []envoy.Fact
	tell := func(at *policy.Node, text string) {
		fact := envoy.Fact{Stage: envoy.WhoCalls, Topic: Kind.Key, Text: text}
		if at != nil {
			fact.At = []policy.Pos{at.Pos}
		}
		facts = append(facts, fact)
	}
	otherwise := s.Deny.words("")
	if len(s.Scopes) > 0 {
		tell(c.Set.Node.Get("scopes"), "the scopes "+strings.Join(s.Scopes, " and ")+otherwise)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Claims)) {
		tell(c.Set.Node.Get("claims").Get(name), "the claim "+name+" is "+s.Claims[name].words(name)+otherwise)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Metadata)) {
		url, shown := policy.Show("url", s.Metadata[name].URL)
		if !shown {
			url = "elsewhere"
		}
		tell(c.Set.Node.Get("metadata").Get(name), "fetches metadata."+name+" from "+url+", where it is not cached")
	}
	for i, r := range s.Rules {
		tell(c.Set.Node.Get("rules").Items[i], r.words()+r.Deny.words(otherwise))
	}
	return facts
}

// words is the texts that a claim may have.
func (t Texts) words(claim string) string {
	var all []string
	for _, one := range t {
		text, shown := policy.Show(claim, one)
		if !shown {
			return "what is written"
		}
		all = append(all, text)
	}
	return strings.Join(all, " or ")
}

// mostRule is how many characters of a rule are shown: its place tells the rest.
const mostRule = 60

func (r Rule) words() string {
	text := []rune(strings.Join(strings.Fields(r.CEL), " "))
	if len(text) > mostRule {
		text = append(text[:mostRule-1], '…')
	}
	if r.Name != "" {
		return "rule " + r.Name + ": " + string(text)
	}
	return string(text)
}

// words is the answer to who may not pass; where none is written it is the outer one.
func (r *Reply) words(outer string) string {
	switch {
	case r == nil && outer != "":
		return outer
	case r == nil || r.Status == nil:
		return ", else 403 (default)"
	}
	return fmt.Sprintf(", else %d", *r.Status)
}
