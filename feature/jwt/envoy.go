package jwt

import (
	"cmp"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Verifier says who verifies tokens first.
type Verifier string

const (
	byCompanion Verifier = "companion"
	byEnvoy     Verifier = "envoy"
)

// Values are the words that may be written.
func (Verifier) Values() []string { return []string{string(byCompanion), string(byEnvoy)} }

const (
	// defaultSkew is the companion's; Envoy's own is a minute.
	defaultSkew = 30 * time.Second
	// keysFor is how long Envoy keeps fetched keys before it fetches again; fetchTimeout bounds a fetch.
	keysFor      = 5 * time.Minute
	fetchTimeout = 5 * time.Second
	// cachedTokens is how many verified tokens each of Envoy's workers remembers, of up to cachedSize bytes each.
	cachedTokens = 1000
	cachedSize   = 8 << 10
	// maxFilters is how many entries Envoy may verify itself: each is a filter, and a cache, of every listener.
	maxFilters = 32
)

// checkVerify refuses what Envoy can't do, and warns of what it doesn't.
func (j *JWT) checkVerify(c *policy.Check) {
	if j.Verify != byEnvoy {
		return
	}
	if !reflect.ValueOf(j.beyondEnvoy()).IsZero() {
		c.Errorf("verify", "Envoy can't do all that stands here beside one issuer, audiences, jwks (not discover), consumer, plan and skew").
			Hintf("leave the rest out, or verify: companion")
	}
	if !firstOf(c, maxFilters) {
		c.Errorf("verify", "more than %d entries say verify: envoy: each is a filter of every listener", maxFilters).Hintf("write verify: companion")
		return
	}
	c.Warnf("verify", "Envoy accepts good tokens without asking the companion: revoked ones until they expire, and a few forms that it would refuse").
		Hintf("what is not checked stands in the documentation of jwt; verify: companion checks all")
}

// verifying is the entries that say verify: envoy, each with its number in the order of their names.
type verifying map[string]int

// firstOf tells whether an entry is among the first n that Envoy is to verify.
func firstOf(c *policy.Check, n int) bool {
	all := policy.Once(c, func() verifying {
		all := make(verifying)
		for _, a := range c.Model().Auth {
			if j, ok := policy.Find[*JWT](a.Settings); ok && j.Verify == byEnvoy {
				all[a.Name] = len(all)
			}
		}
		return all
	})
	return all[c.Entry().Name] < n
}

// beyondEnvoy is what is left of the setting without what verify: envoy knows to do: nothing, where Envoy can have it.
func (j *JWT) beyondEnvoy() JWT {
	rest := *j
	rest.Audiences, rest.Consumer, rest.Plan, rest.Headers, rest.Skew, rest.Verify = Audiences{}, "", "", nil, 0, ""
	if len(j.Issuer) == 1 {
		rest.Issuer = nil
	}
	if !j.JWKS.Discover {
		rest.JWKS = JWKS{}
	}
	return rest
}

// VerifyFilters is one filter for each entry, so that a route whose entry the connections of an older listener do not
// have yet is left to the companion and never refused; and the one that looks at the form of what they verified.
func (j *JWT) VerifyFilters(entry string) map[string]proto.Message {
	if j.Verify != byEnvoy {
		return nil
	}
	return map[string]proto.Message{
		verifies(entry): &jwtv3.PerRouteConfig{
			RequirementSpecifier: &jwtv3.PerRouteConfig_RequirementName{RequirementName: requirement},
		},
		formFilter: envoy.On,
	}
}

// verifies is the name of an entry's filter.
func verifies(entry string) string { return "legation.jwt/" + entry }

const (
	// requirement is the name of the one requirement in each entry's filter.
	requirement = "known"
	formFilter  = "legation.jwt"
)

// Filters are those of all entries whose tokens Envoy verifies. They stand before the callout, and let everything pass.
func (*JWT) Filters(c envoy.ListenerContext) []envoy.Filter {
	var all []envoy.Filter
	forms := make(map[string]*rbacv3.Policy)
	for _, a := range c.Model.Auth {
		if j, ok := policy.Find[*JWT](a.Settings); ok && j.Verify == byEnvoy {
			all = append(all, envoy.Filter{Name: verifies(a.Name), Phase: envoy.Identity, Order: -2, Config: j.authentication(a.Name)})
			forms[a.Name] = j.form(a.Name)
		}
	}
	if len(all) > 0 {
		all = append(all, envoy.Filter{Name: formFilter, Phase: envoy.Identity, Order: -1, Config: marker(forms)})
	}
	return all
}

// authentication leaves header and claims of a good token in the metadata, and lets all requests pass: the companion is asked
// about the others, and knows what to answer.
func (j *JWT) authentication(entry string) *jwtv3.JwtAuthentication {
	const provider = "issuer"
	named := &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_ProviderName{ProviderName: provider}}
	anyway := &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_AllowMissingOrFailed{AllowMissingOrFailed: new(emptypb.Empty)}}
	return &jwtv3.JwtAuthentication{
		Providers: map[string]*jwtv3.JwtProvider{provider: j.provider(entry)},
		RequirementMap: map[string]*jwtv3.JwtRequirement{requirement: {RequiresType: &jwtv3.JwtRequirement_RequiresAny{
			RequiresAny: &jwtv3.JwtRequirementOrList{Requirements: []*jwtv3.JwtRequirement{named, anyway}},
		}}},
	}
}

func (j *JWT) provider(entry string) *jwtv3.JwtProvider {
	p := &jwtv3.JwtProvider{
		Issuer:            strings.Join(j.Issuer, ""), // one: see beyondEnvoy
		Audiences:         j.Audiences.Names,
		RequireExpiration: true,
		ClockSkewSeconds:  uint32(max(1, cmp.Or(time.Duration(j.Skew), defaultSkew)/time.Second)), // 0 is its minute
		Forward:           true,
		// Written out, or it would read a token from the query, too.
		FromHeaders:       []*jwtv3.JwtHeader{{Name: "authorization", ValuePrefix: "Bearer "}},
		HeaderInMetadata:  headerOf(entry),
		PayloadInMetadata: claimsOf(entry),
		JwtCacheConfig:    &jwtv3.JwtCacheConfig{JwtCacheSize: cachedTokens, JwtMaxTokenSize: cachedSize},
	}
	for _, name := range j.StripHeaders() {
		p.ClaimToHeaders = append(p.ClaimToHeaders, &jwtv3.JwtClaimToHeader{HeaderName: name, ClaimName: j.claimOf(name)})
	}
	if j.JWKS.URL == "" {
		p.JwksSourceSpecifier = &jwtv3.JwtProvider_LocalJwks{LocalJwks: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: string(j.JWKS.Keys)},
		}}
		return p
	}
	p.JwksSourceSpecifier = &jwtv3.JwtProvider_RemoteJwks{RemoteJwks: &jwtv3.RemoteJwks{
		HttpUri: &corev3.HttpUri{
			Uri:              j.JWKS.URL,
			HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: j.JWKS.outside().Cluster()},
			Timeout:          durationpb.New(fetchTimeout),
		},
		CacheDuration: durationpb.New(keysFor),
		// The listener opens without the keys: the companion verifies until Envoy has them.
		AsyncFetch: &jwtv3.JwksAsyncFetch{FastListener: true},
	}}
	return p
}

// claimOf is the claim that a header, in lower case, takes its value from.
func (j *JWT) claimOf(header string) string {
	for name, claim := range j.Headers {
		if strings.ToLower(name) == header {
			return claim
		}
	}
	return ""
}

// Outside is where Envoy fetches the keys.
func (j *JWT) Outside() []envoy.Outside {
	if j.Verify != byEnvoy || j.JWKS.URL == "" {
		return nil
	}
	return []envoy.Outside{j.JWKS.outside()}
}

// outside is the host of the URL, which was found valid.
func (k *JWKS) outside() envoy.Outside {
	u, err := url.Parse(k.URL)
	if err != nil {
		return envoy.Outside{}
	}
	o := envoy.Outside{Host: strings.ToLower(u.Hostname()), Port: 80, TLS: u.Scheme == "https"}
	if o.TLS {
		o.Port = 443
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
		o.Port = uint32(port)
	}
	return o
}
