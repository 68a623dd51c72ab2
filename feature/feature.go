// Package feature is the table of the policy language: every key that a policy may hold, one folder each. control
// loads policies with it, the command line prints its schema, and docs/keys.md is made of its documentation.
package feature

import (
	companionauth "github.com/legation/legation/auth"
	"github.com/legation/legation/feature/access"
	"github.com/legation/legation/feature/accesslog"
	"github.com/legation/legation/feature/auth"
	"github.com/legation/legation/feature/authorize"
	"github.com/legation/legation/feature/circuitbreakers"
	"github.com/legation/legation/feature/compression"
	"github.com/legation/legation/feature/connections"
	"github.com/legation/legation/feature/cors"
	"github.com/legation/legation/feature/credentials"
	"github.com/legation/legation/feature/delivery"
	"github.com/legation/legation/feature/directresponse"
	"github.com/legation/legation/feature/fault"
	"github.com/legation/legation/feature/grpcweb"
	"github.com/legation/legation/feature/headers"
	"github.com/legation/legation/feature/healthcheck"
	"github.com/legation/legation/feature/identities"
	"github.com/legation/legation/feature/jwt"
	"github.com/legation/legation/feature/limits"
	"github.com/legation/legation/feature/loadbalancer"
	"github.com/legation/legation/feature/mirror"
	"github.com/legation/legation/feature/oidc"
	"github.com/legation/legation/feature/outlierdetection"
	"github.com/legation/legation/feature/overload"
	"github.com/legation/legation/feature/patch"
	"github.com/legation/legation/feature/paths"
	"github.com/legation/legation/feature/plan"
	"github.com/legation/legation/feature/protocol"
	"github.com/legation/legation/feature/proxyprotocol"
	"github.com/legation/legation/feature/query"
	"github.com/legation/legation/feature/ratelimit"
	"github.com/legation/legation/feature/redirect"
	"github.com/legation/legation/feature/requestbody"
	"github.com/legation/legation/feature/retry"
	"github.com/legation/legation/feature/rewrite"
	"github.com/legation/legation/feature/sample"
	"github.com/legation/legation/feature/sessionpersistence"
	"github.com/legation/legation/feature/timeouts"
	"github.com/legation/legation/feature/tls"
	"github.com/legation/legation/feature/tracing"
	"github.com/legation/legation/feature/trustedhops"
	"github.com/legation/legation/feature/upgrades"
	"github.com/legation/legation/policy"
	companionlimit "github.com/legation/legation/ratelimit"
)

// All is every key. A new one gets a folder and a line here.
func All() []*policy.Kind {
	return []*policy.Kind{
		access.Kind,
		accesslog.Kind,
		accesslog.RouteKind,
		credentials.AnonymousKind,
		credentials.APIKeyKind,
		credentials.KeysKind,
		auth.Kind,
		authorize.Kind,
		credentials.BasicKind,
		plan.BurstKind,
		circuitbreakers.Kind,
		compression.Kind,
		connections.Kind,
		cors.Kind,
		delivery.Kind,
		ratelimit.DescriptorsKind,
		directresponse.Kind,
		ratelimit.DomainKind,
		patch.ListenerKind,
		patch.RouteKind,
		patch.ServiceKind,
		fault.Kind,
		grpcweb.Kind,
		headers.Kind,
		plan.HeadersKind,
		healthcheck.Kind,
		identities.Kind,
		jwt.IntrospectionKind,
		identities.JWTKind,
		jwt.Kind,
		limits.Kind,
		loadbalancer.Kind,
		mirror.Kind,
		plan.ModeKind,
		credentials.MTLSKind,
		oidc.Kind,
		outlierdetection.Kind,
		overload.Kind,
		paths.Kind,
		plan.Kind,
		plan.ConsumerKind,
		protocol.Kind,
		proxyprotocol.Kind,
		query.Kind,
		plan.QuotaKind,
		plan.RateKind,
		ratelimit.Kind,
		redirect.Kind,
		plan.RefundKind,
		requestbody.Kind,
		retry.Kind,
		rewrite.Kind,
		sample.Kind,
		sessionpersistence.Kind,
		plan.TimeZoneKind,
		timeouts.Kind,
		tls.ListenerKind,
		tls.ServiceKind,
		tracing.Kind,
		tracing.RouteKind,
		trustedhops.Kind,
		upgrades.Kind,
	}
}

// Language is what policies are written in.
func Language() *policy.Language { return policy.New(All()...) }

// Companions is what the policy asks of the companion services. Envoy's half is made of the same settings.
func Companions(m *policy.Model) (companionauth.Table, companionlimit.Table) {
	return new(Tables).Companions(m)
}

// Tables makes the companions' tables of models that come one after the other: what comes of entries that are the very
// same as in the model before, by their pointers, is not made again. A list of a table in which nothing has changed is
// the very same, too: nobody may change one.
type Tables struct {
	auth   auth.Tables
	limits ratelimit.Tables
	plans  policy.Following[*policy.Plan, companionlimit.Plan]
}

// Companions is [Companions] of the next model.
func (t *Tables) Companions(m *policy.Model) (companionauth.Table, companionlimit.Table) {
	plans, _, _ := t.plans.Next(m.Plans, plan.Companion)
	return t.auth.Table(m), companionlimit.Table{Limits: t.limits.Limits(m), Plans: plans, Domains: t.limits.Domains(m)}
}
