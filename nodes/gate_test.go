package nodes

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/legation/legation/auth/tokentest"
	"github.com/legation/legation/envoy/certtest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

const byToken = `
tokens:
  issuer: ` + tokentest.Issuer + `
  audiences: [` + tokentest.Audience + `]
  jwks: {file: keys.json}
`

// write puts files into a directory of the test's own, and returns the path of the nodes file.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "nodes.yaml")
}

func gate(t *testing.T, text string) *Gate {
	t.Helper()
	g, err := New(Options{Path: write(t, map[string]string{"nodes.yaml": text, "keys.json": string(tokentest.JWKS())})})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// stream is the context of a stream whose Envoy has shown a certificate, nil for none, and such headers.
func stream(t *testing.T, leaf *x509.Certificate, authorization ...string) context.Context {
	t.Helper()
	state := tls.ConnectionState{}
	if leaf != nil {
		state.VerifiedChains = [][]*x509.Certificate{{leaf}}
	}
	ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: state}})
	md := metadata.MD{}
	md.Append("authorization", authorization...)
	return metadata.NewIncomingContext(ctx, md)
}

func leaf(t *testing.T, names ...string) *x509.Certificate {
	t.Helper()
	return certtest.NewAuthority(t, "ca").Issue(t, names...).TLS(t).Leaf
}

func TestCertificateNamesGroups(t *testing.T) {
	t.Parallel()
	const patterns = `
nodes:
  edge: {certificates: [{uri: "spiffe://example.com/ns/edge/*"}, {dns: "*.edge.example.com"}]}
  inner: {certificates: [{dns: inner.example.com}]}
  nobody: {certificates: []}
`
	for _, row := range []struct {
		name, file string
		names      []string
		want       []string
	}{
		{"URI", patterns, []string{"spiffe://example.com/ns/edge/a"}, []string{"edge"}},
		{"DNS name", patterns, []string{"a.edge.example.com"}, []string{"edge"}},
		{"both groups", patterns, []string{"a.edge.example.com", "inner.example.com"}, []string{"edge", "inner"}},
		{"one of two names", patterns, []string{"other.test", "inner.example.com"}, []string{"inner"}},
		{"no pattern's", patterns, []string{"other.test", "spiffe://example.com/ns/other/a"}, nil},
		{"the names that count without a file", patterns, []string{"edge", "spiffe://example.com/gateway/edge"}, nil},
		{"an empty section", "nodes: {}\n", []string{"edge"}, nil},
		{"no section", byToken, []string{"edge", "spiffe://example.com/gateway/inner"}, []string{"edge", "inner"}},
	} {
		got, err := gate(t, row.file).Identify(stream(t, leaf(t, row.names...)))
		if err != nil || !slices.Equal(got.Groups, row.want) || got.Any || got.Until.IsZero() {
			t.Errorf("%s: got %v, %v, want %q, and an end", row.name, got, err, row.want)
		}
	}
}

func TestTokenNamesGroups(t *testing.T) {
	t.Parallel()
	claiming := func(group any) string { return "Bearer " + tokentest.Claiming(map[string]any{"group": group}) }
	ofEdge := leaf(t, "edge")
	for _, row := range []struct {
		name   string
		leaf   *x509.Certificate
		header []string
		want   []string
		code   codes.Code
	}{
		{"a group", nil, []string{claiming("edge")}, []string{"edge"}, 0},
		{"a list", nil, []string{claiming([]string{"edge", "inner"})}, []string{"edge", "inner"}, 0},
		{"beside a certificate", ofEdge, []string{claiming("inner")}, []string{"edge", "inner"}, 0},
		{"in small letters", nil, []string{strings.Replace(claiming("edge"), "Bearer", "bearer", 1)}, []string{"edge"}, 0},
		{"no claim", nil, []string{claiming(nil)}, nil, 0},
		{"a number", nil, []string{claiming(1)}, nil, 0},
		{"a list with a number", nil, []string{claiming([]any{"edge", 1})}, nil, 0},
		{"an object", nil, []string{claiming(map[string]any{"edge": true})}, nil, 0},
		{"an empty text", nil, []string{claiming("")}, nil, 0},
		{"a certificate alone", ofEdge, nil, []string{"edge"}, 0},
		{"nothing", nil, nil, nil, codes.Unauthenticated},
		{"a stranger's", nil, []string{"Bearer " + tokentest.Strangers()}, nil, codes.Unauthenticated},
		{"a stranger's beside a certificate", ofEdge, []string{"Bearer " + tokentest.Strangers()}, nil, codes.Unauthenticated},
		{"two", nil, []string{claiming("edge"), claiming("edge")}, nil, codes.Unauthenticated},
		{"two in one", nil, []string{claiming("edge") + ", " + claiming("edge")}, nil, codes.Unauthenticated},
		{"no bearer", nil, []string{"Basic YTpi"}, nil, codes.Unauthenticated},
		{"an empty one", nil, []string{"Bearer "}, nil, codes.Unauthenticated},
		{"an empty header", nil, []string{""}, nil, codes.Unauthenticated},
	} {
		got, err := gate(t, byToken).Identify(stream(t, row.leaf, row.header...))
		if status.Code(err) != row.code || !slices.Equal(got.Groups, row.want) || got.Any {
			t.Errorf("%s: got %v, %v, want %q, %s", row.name, got, err, row.want, row.code)
		}
	}
}

// No hostile token gets its Envoy anything, and an error never repeats one.
func TestHostileTokens(t *testing.T) {
	t.Parallel()
	g := gate(t, byToken)
	for _, c := range tokentest.Tokens() {
		if c.Want == 200 || strings.HasPrefix(c.Name, "sub ") {
			continue
		}
		got, err := g.Identify(stream(t, nil, "Bearer "+c.Token))
		if err == nil || len(got.Groups) > 0 || len(c.Token) > 20 && strings.Contains(err.Error(), c.Token) {
			t.Errorf("%s: got %v, %v", c.Name, got, err)
		}
	}
}

func TestNothingCountsWithoutTLS(t *testing.T) {
	t.Parallel()
	g := gate(t, byToken)
	md := metadata.Pairs("authorization", "Bearer "+tokentest.Claiming(map[string]any{"group": "edge"}))
	for name, p := range map[string]*peer.Peer{"plain": {}, "insecure": {AuthInfo: insecureInfo{}}, "of a certificate that was not checked": {
		AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf(t, "edge")}}},
	}} {
		ctx := peer.NewContext(metadata.NewIncomingContext(t.Context(), md), p)
		if name == "of a certificate that was not checked" {
			ctx = peer.NewContext(t.Context(), p)
		}
		if got, err := g.Identify(ctx); err == nil {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

type insecureInfo struct{ credentials.CommonAuthInfo }

func (insecureInfo) AuthType() string { return insecure.NewCredentials().Info().SecurityProtocol }

// A token ends the stream, also before the certificate beside it does.
func TestUntilTheFirstEnds(t *testing.T) {
	t.Parallel()
	exp := time.Now().Add(10 * time.Minute)
	token := "Bearer " + tokentest.Claiming(map[string]any{"group": "edge", "exp": exp.Unix()})
	got, err := gate(t, byToken).Identify(stream(t, leaf(t, "edge"), token))
	if err != nil || got.Until.Sub(exp).Abs() > time.Minute {
		t.Errorf("got %v, %v, want it to end about %s", got, err, exp)
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ text, want string }{
		"unknown section": {"node: {}\n", `nodes.yaml:1:1: node: unknown key "node"`},
		"unknown key":     {"nodes:\n  edge: {certificate: []}\n", `nodes.yaml:2:10: nodes.edge.certificate: unknown key "certificate"`},
		"bad pattern": {
			"nodes:\n  edge:\n    certificates:\n      - {dns: \"edge-*.example.com\"}\n",
			`nodes.yaml:4:15: nodes.edge.certificates[0].dns: a star stands for a whole label, not for a part of "edge-*"`,
		},
		"both":             {"nodes: {edge: {certificates: [{dns: a.b, uri: \"spiffe://a/b\"}]}}\n", "want one of uri and dns"},
		"neither":          {"nodes: {edge: {certificates: [{}]}}\n", "want one of uri and dns"},
		"no audience":      {"tokens: {issuer: a, audiences: [], jwks: {file: keys.json}}\n", "name at least one"},
		"no issuer":        {"tokens: {audiences: [a], jwks: {file: keys.json}}\n", "tokens.issuer: is required"},
		"keys by http":     {"tokens: {issuer: a, audiences: [a], jwks: \"http://id.test/keys\"}\n", "https"},
		"keys not there":   {"tokens: {issuer: a, audiences: [a], jwks: {file: none.json}}\n", "none.json"},
		"keys that aren't": {"tokens: {issuer: a, audiences: [a], jwks: {file: nodes.yaml}}\n", "key set"},
		"twice":            {"nodes: {}\nnodes: {}\n", "nodes.yaml:2:1"},
		"a list":           {"- nodes\n", "begin with one of nodes:, tokens:"},
		"empty":            {"", "the file is empty"},
		"two documents":    {"nodes: {}\n---\nnodes: {}\n", "a second document can't follow"},
		"a bomb":           {"a: &a [x,x]\nb: &b [*a,*a]\nnodes: *b\n", "nodes.yaml:"},
	} {
		_, err := New(Options{Path: write(t, map[string]string{"nodes.yaml": row.text, "keys.json": string(tokentest.JWKS())})})
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want it to say %q", name, err, row.want)
		}
	}
	if _, err := New(Options{Path: write(t, map[string]string{"nodes.yaml": "nodes: {}\n"}), NeedTokens: true}); err == nil {
		t.Error("a file by which nobody could join is taken")
	}
}

// Who may write the file lets whom they like into any group, so nobody else may.
func TestFileOfOthersIsRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"nodes.yaml", "keys.json"} {
		path := write(t, map[string]string{"nodes.yaml": byToken, "keys.json": string(tokentest.JWKS())})
		if err := os.Chmod(filepath.Join(filepath.Dir(path), name), 0o664); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Options{Path: path}); err == nil || !strings.Contains(err.Error(), "chmod") {
			t.Errorf("%s that its group may write: got %v", name, err)
		}
	}
}

// put replaces a file in place.
func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestChangesOfTheFilesAreSeen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := write(t, map[string]string{"nodes.yaml": "nodes: {edge: {certificates: [{dns: a.test}]}}\n", "keys.json": string(tokentest.JWKS())})
		changes := 0
		var log strings.Builder
		g, err := New(Options{Path: path, Changed: func() { changes++ }, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = g.Run(t.Context()) }()
		change := func(name, text string) {
			t.Helper()
			put(t, filepath.Join(filepath.Dir(path), name), text)
			time.Sleep(2 * interval)
			synctest.Wait()
		}
		want := func(n int, groups ...string) {
			t.Helper()
			if got := slices.Sorted(maps.Keys(g.rules.Load().groups)); changes != n || !slices.Equal(got, groups) {
				t.Errorf("got %d changes and the groups %q, want %d and %q", changes, got, n, groups)
			}
		}
		time.Sleep(3 * interval)
		want(0, "edge")
		change("nodes.yaml", "nodes: {inner: {certificates: [{dns: a.test}]}}\n")
		want(1, "inner")
		change("nodes.yaml", "nodes: {inner: nonsense}\n")
		time.Sleep(3 * interval)
		want(1, "inner")
		if got := strings.Count(log.String(), "level=ERROR"); got != 1 {
			t.Errorf("told %d times, want once: %s", got, log.String())
		}
		change("nodes.yaml", byToken)
		want(2)
		if !g.Tokens() {
			t.Error("no tokens are taken")
		}
		change("keys.json", string(tokentest.StrangersJWKS()))
		want(3)
		if _, err := g.Identify(stream(t, nil, "Bearer "+tokentest.Good())); err == nil {
			t.Error("a token of the old keys is still good")
		}
		change("keys.json", "{}")
		want(3)

		// A half that is good by itself is not taken for the whole.
		change("keys.json", string(tokentest.StrangersJWKS()))
		want(4)
		put(t, path, "nodes: {}\n")
		time.Sleep(interval / 2)
		put(t, path, "nodes: {edge: {certificates: [{dns: a.test}]}}\n")
		time.Sleep(2 * interval)
		synctest.Wait()
		want(5, "edge")
	})
}
