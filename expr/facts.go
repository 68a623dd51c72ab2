package expr

import (
	"net/netip"
	"net/url"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
)

// Facts are what expressions are evaluated over: what is known of a request and its caller. They belong to the caller of
// an evaluation, which keeps nothing of them. Nil functions and maps have no values.
type Facts struct {
	Method   string
	Host     string
	Path     string // with the query
	Scheme   string
	IP       netip.Addr
	Header   func(name string) string // lower-case name; "" when absent
	Consumer string
	Claim    func(path string) string // as text; "" when absent
	Route    string

	// What conditions know besides.
	Time       time.Time
	Plan       string
	Identity   map[string]any            // the caller's claims, as decoded from JSON: numbers are a json.Number or a float64
	Identities map[string]map[string]any // by auth entry, where the caller has shown more than one
	Metadata   map[string]any            // by name: what was fetched about the caller
}

// Parent makes Facts the cel.Activation of a program.
func (*Facts) Parent() cel.Activation { return nil }

// ResolveName gives a variable; CEL asks for those that an expression names.
func (f *Facts) ResolveName(name string) (any, bool) {
	switch name {
	case "request.path":
		return f.Path, true
	case "request.url_path":
		path, _, _ := strings.Cut(f.Path, "?")
		return path, true
	case "request.query":
		return f.query(), true
	case "request.host":
		return f.Host, true
	case "request.method":
		return f.Method, true
	case "request.scheme":
		return f.Scheme, true
	case "request.headers":
		return texts{f, (*Facts).header}, true
	case "source.address":
		if !f.IP.IsValid() {
			return "", true
		}
		return f.IP.Unmap().WithZone("").String(), true
	case "consumer":
		return f.Consumer, true
	case "claims":
		return texts{f, (*Facts).claim}, true
	case "route":
		return f.Route, true
	}
	return f.resolveCaller(name)
}

// resolveCaller gives one of callerVariables.
func (f *Facts) resolveCaller(name string) (any, bool) {
	switch name {
	case "request.time":
		return types.Timestamp{Time: f.Time.UTC()}, true
	case "request.query_params":
		return texts{f, (*Facts).parameter}, true
	case "identity":
		return f.Identity, true
	case "identities":
		return f.Identities, true
	case "metadata":
		return f.Metadata, true
	case "plan":
		return f.Plan, true
	}
	return nil, false
}

func (f *Facts) query() string {
	_, query, _ := strings.Cut(f.Path, "?")
	return query
}

func (f *Facts) header(name string) (string, error) {
	if f.Header == nil {
		return "", errNoKey
	}
	return present(f.Header(strings.ToLower(name)))
}

func (f *Facts) claim(path string) (string, error) {
	if f.Claim == nil {
		return "", errNoKey
	}
	return present(f.Claim(path))
}

// present is a text that an empty one stands for the lack of.
func present(text string) (string, error) {
	if text == "" {
		return "", errNoKey
	}
	return text, nil
}

// parameter is a parameter of the query, decoded. Of a query that two readers may read in two ways nothing is told: which
// of two values the backend takes isn't known, nor what it makes of broken escapes or semicolons.
func (f *Facts) parameter(name string) (string, error) {
	all, err := url.ParseQuery(f.query())
	if err != nil {
		return "", errQuery
	}
	switch of := all[name]; len(of) {
	case 0:
		return "", errNoKey
	case 1:
		return of[0], nil
	}
	return "", errTwice
}
