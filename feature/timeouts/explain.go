package timeouts

import (
	"fmt"
	"strings"
	"time"

	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Explain tells what Envoy was told, whoever wrote it or left it out.
func (s *Setting) Explain(c envoy.ExplainContext) []envoy.Fact {
	action := c.Served.GetRoute()
	if action == nil {
		return nil
	}
	var parts []string
	add := func(what string, d *durationpb.Duration, written *policy.Duration, instead string) {
		switch {
		case d == nil && instead == "":
		case d == nil:
			parts = append(parts, what+" "+instead)
		case written == nil:
			parts = append(parts, fmt.Sprintf("%s %s (default)", what, span(d)))
		default:
			parts = append(parts, what+" "+span(d))
		}
	}
	stream := action.GetMaxStreamDuration().GetMaxStreamDuration()
	if stream == nil {
		add("request", action.Timeout, s.Request, "")
	}
	add("stream", stream, s.Stream, "")
	add("one try", action.GetRetryPolicy().GetPerTryTimeout(), s.BackendRequest, "")
	add("idle", action.IdleTimeout, s.Idle, "")
	fact := envoy.Fact{Stage: envoy.SentOn, Topic: Kind.Key, Text: strings.Join(parts, ", "), At: c.Set.Node.Places()}
	return []envoy.Fact{fact}
}

// ExplainWithout tells the defaults.
func (s *Setting) ExplainWithout(c envoy.ExplainContext) []envoy.Fact { return s.Explain(c) }

func span(d *durationpb.Duration) string {
	if d.AsDuration() == 0 {
		return "without bound"
	}
	return policy.Duration(d.AsDuration().Round(time.Millisecond)).String()
}
