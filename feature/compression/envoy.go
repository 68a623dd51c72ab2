package compression

import (
	"slices"

	brotliv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/brotli/compressor/v3"
	gzipv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/gzip/compressor/v3"
	zstdv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/zstd/compressor/v3"
	compressorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/compressor/v3"
	chainv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/filter_chain/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The filters: one has the compressors by default, as they are large; the other those that a route gives it. It takes
// two, since a chain of a route's own stands beside the one by default, not in its place.
const (
	usual = "legation.compression"
	own   = "legation.compression.own"
)

// Filters puts both into the chain. They are chains themselves: Envoy's compressors can't be configured per route, but
// their chain can.
func (*Setting) Filters(envoy.ListenerContext) []envoy.Filter {
	config := &chainv3.FilterChainConfig{DefaultFilterChain: new(Setting).compressors()}
	return []envoy.Filter{
		{Name: usual, Phase: envoy.Transform, Config: config},
		{Name: own, Phase: envoy.Transform, Config: &chainv3.FilterChainConfig{}},
	}
}

// Route switches on one of the filters.
func (s *Setting) Route(envoy.RouteContext) envoy.RouteParts {
	if s.Algorithms == nil && s.MinLength == nil && s.ContentTypes == nil {
		return envoy.RouteParts{Filters: map[string]proto.Message{usual: envoy.On}}
	}
	config := &chainv3.FilterChainConfigPerRoute{FilterChain: s.compressors()}
	return envoy.RouteParts{Filters: map[string]proto.Message{own: config}}
}

// preferred is the algorithms in the order in which Envoy offers them to a client that takes any.
var preferred = []Algorithm{brotli, zstd, gzip}

func (s *Setting) compressors() *chainv3.FilterChain {
	offered := s.Algorithms
	if offered == nil {
		offered = []Algorithm{brotli, gzip}
	}
	chain := new(chainv3.FilterChain)
	for _, a := range preferred {
		if slices.Contains(offered, a) {
			chain.Filters = append(chain.Filters, envoy.Extension(usual+"."+string(a), s.compressor(a)))
		}
	}
	return chain
}

// library is the algorithm's compressor, with Envoy's own levels: they favour speed.
func (a Algorithm) library() proto.Message {
	switch a {
	case zstd:
		return &zstdv3.Zstd{}
	case brotli:
		return &brotliv3.Brotli{}
	default:
		return &gzipv3.Gzip{}
	}
}

const defaultMinLength policy.Bytes = 1 << 10

// defaultTypes is texts; images, archives and the like are compressed already.
var defaultTypes = []ContentType{
	"application/geo+json", "application/graphql-response+json", "application/javascript", "application/json",
	"application/ld+json", "application/manifest+json", "application/problem+json", "application/wasm",
	"application/xhtml+xml", "application/xml", "image/svg+xml", "text/css", "text/csv", "text/html", "text/javascript",
	"text/markdown", "text/plain", "text/xml",
}

func (s *Setting) compressor(a Algorithm) *compressorv3.Compressor {
	types := s.ContentTypes
	if types == nil {
		types = defaultTypes
	}
	return &compressorv3.Compressor{
		CompressorLibrary: envoy.Extension(string(a), a.library()),
		// Where a client likes several alike, by itself Envoy takes the one that the client names first: gzip, mostly.
		ChooseFirst: a != gzip,
		ResponseDirectionConfig: &compressorv3.Compressor_ResponseDirectionConfig{
			CommonConfig: &compressorv3.Compressor_CommonDirectionConfig{
				MinContentLength:   wrapperspb.UInt32(uint32(policy.Or(s.MinLength, defaultMinLength))),
				ContentTypeMatcher: matchers(types),
			},
			// The bytes are others now, what they stand for is the same: that is what W/ says. Envoy by itself would
			// drop the tag, and with it conditional requests.
			WeakenEtagOnCompress: true,
			// A part of an answer, compressed by itself, is no part of the compressed answer.
			UncompressibleResponseCodes: []uint32{206},
		},
	}
}

func matchers(types []ContentType) []*matcherv3.StringMatcher {
	var all []*matcherv3.StringMatcher
	for _, t := range types {
		all = append(all, &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Exact{Exact: string(t)},
			IgnoreCase:   true,
		})
	}
	return all
}
