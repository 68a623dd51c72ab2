package explain

import (
	"strings"
	"testing"

	"github.com/legation/legation/policy"
)

const small = `gateways: {edge: {listeners: {http: {port: 80}}}}
routes: {a: {hostnames: [a.test], match: {path: /a}, directResponse: {body: ok}}}
`

// Without its colours the text is the same.
func TestColours(t *testing.T) {
	t.Parallel()
	p := served(t, policy.Files{"policy.yaml": []byte(small)})
	for url, style := range map[string]string{"http://a.test/a": "\x1b[32mthe route a", "http://a.test/b": "\x1b[31mno route"} {
		e, err := p.Explain(Question{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		var plain, coloured strings.Builder
		if e.Write(&plain, false) != nil || e.Write(&coloured, true) != nil {
			t.Fatal("a builder takes everything")
		}
		if !strings.HasPrefix(coloured.String(), style) {
			t.Errorf("%s: got %q, want it to begin with %q", url, coloured.String(), style)
		}
		bare := strings.NewReplacer("\x1b[31m", "", "\x1b[32m", "", "\x1b[1m", "", "\x1b[2m", "", "\x1b[0m", "").Replace(coloured.String())
		if bare != plain.String() {
			t.Errorf("%s: got %q without colours, want %q", url, bare, plain.String())
		}
	}
}

func TestCallsInWords(t *testing.T) {
	t.Parallel()
	for calls, want := range map[Calls]string{
		{}:                        "",
		{Before: 1, After: 0}:     "1 call to the companion before the request is sent on",
		{Before: 1, Spared: true}: "1 call to the companion before the request is sent on, none for a token that Envoy accepts",
		{Before: 2, After: 0}:     "2 calls to the companion before the request is sent on",
		{Before: 0, After: 1}:     "1 call to the companion after the answer",
		{Before: 1, After: 1}:     "1 call to the companion before the request is sent on, 1 after the answer",
	} {
		if got := calls.String(); got != want {
			t.Errorf("%+v: got %q, want %q", calls, got, want)
		}
	}
}
