package auth

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/legation/legation/expr"
)

// demands is what all layers of a rule ask of callers that are known; immutable. A request is screened, then what is
// fetched about its caller is looked up, and what misses is fetched, then it is judged:
//
//	v := d.screen(facts)                     // scopes and claims: nobody else is looked up
//	missing, v := d.lookUp(facts, now)       // fills facts.Metadata
//	missing[i].fetch(ctx), then d.lookUp again
//	v = d.judge(facts)
type demands struct {
	each    []*authorization // from the outermost layer inwards
	sources []*metadata
}

// newDemands compiles what the layers of a rule ask. source gives the compiled form of a Metadata, which may be that of an
// older table, with what it has fetched.
func newDemands(all []Authorization, source func(Metadata) (*metadata, error)) (*demands, error) {
	d := new(demands)
	var problems []error
	var declared []Metadata
	for _, a := range all {
		ready, err := newAuthorization(a)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		d.each = append(d.each, ready)
		for _, m := range a.Metadata {
			i := slices.IndexFunc(declared, func(o Metadata) bool { return o.Name == m.Name })
			switch {
			case i < 0:
				declared = append(declared, m)
			case declared[i] != m:
				problems = append(problems, fmt.Errorf("authorization %s: metadata %s is something else in another layer", a.Name, m.Name))
			}
		}
	}
	for _, a := range all {
		problems = append(problems, undeclared(a, declared))
	}
	for _, m := range declared {
		s, err := source(m)
		if err != nil {
			problems = append(problems, err)
		}
		d.sources = append(d.sources, s)
	}
	return d, errors.Join(problems...)
}

// undeclared tells of metadata that rules read and nobody fetches.
func undeclared(a Authorization, declared []Metadata) error {
	for _, r := range a.Rules {
		for _, member := range RuleUses(r.Expression).Members {
			name, ok := strings.CutPrefix(member, "metadata.")
			if ok && !slices.ContainsFunc(declared, func(m Metadata) bool { return m.Name == name }) {
				return fmt.Errorf("authorization %s: a rule reads metadata.%s, which nobody fetches", a.Name, name)
			}
		}
	}
	return nil
}

var (
	// vetoNoMetadata is the answer where what the rules need of others can't be had.
	vetoNoMetadata = ourVeto(newDenial(http.StatusServiceUnavailable, codes.Unavailable, "metadata_unavailable", "the request could not be decided", resultUnavailable))
	// vetoNoKey is the answer to callers who lack what they are looked up by.
	vetoNoKey = newVeto("", "", "metadata_key", nil)
)

// screen judges all that needs nothing but the caller's own claims.
func (d *demands) screen(f *expr.Facts) *veto {
	for _, a := range d.each {
		if v := a.screen(f.Identity); v != nil {
			return v
		}
	}
	return nil
}

// lookUp fills f.Metadata with what was fetched before, and tells what misses: until it is fetched, nothing can be judged.
// A veto goes before all of that.
func (d *demands) lookUp(f *expr.Facts, now time.Time) (missing []lookup, v *veto) {
	if len(d.sources) == 0 {
		return nil, nil
	}
	f.Metadata = make(map[string]any, len(d.sources))
	for _, s := range d.sources {
		l, ok := s.lookup(f)
		if !ok {
			return nil, vetoNoKey
		}
		switch a, ok := l.cached(now); {
		case !ok:
			missing = append(missing, l)
		case a.bad:
			return nil, vetoNoMetadata
		default:
			f.Metadata[s.name] = a.value
		}
	}
	return missing, nil
}

// judge tells why a request may not pass, the outermost layer first; nil for one that may. The metadata has to be there.
func (d *demands) judge(f *expr.Facts) *veto {
	for _, a := range d.each {
		if v := a.judge(f); v != nil {
			return v
		}
	}
	return nil
}
