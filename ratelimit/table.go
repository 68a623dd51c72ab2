package ratelimit

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/legation/legation/expr"
	"github.com/legation/legation/store"
)

// table is what was loaded, ready for requests; immutable but for what limits have counted.
type table struct {
	from   Table
	limits map[string]*limit // by ID and by name
	plans  map[string]*plan
	named  map[string]*limit // the current limits by name, those of plans and domains too

	domains map[string]*domain
}

// plan is a Plan.
type plan struct {
	name   string
	limits []*limit
}

// limit is a Limit with what each request would have to work out again.
type limit struct {
	Limit
	prefix  string // what its keys begin with
	quoted  string // the name in headers
	id      string
	mark    string // the ID among those of one name
	parts   []part // one for each By
	base    *rate
	values  *values // nil: none
	brought *overrides

	planned  bool // is a plan's: other plans have one of the same name
	soft     bool // refuses only together with all other soft limits of the request
	metadata map[string]string
	variants *variants // with figures of their own
	figures  *figures
	ok       prometheus.Counter
	over     prometheus.Counter                  // shadow_over of a limit in shadow
	crossed  [len(thresholds)]prometheus.Counter // of a quota
}

// part is a By.
type part struct {
	By
	entry   string // key of the descriptor entry
	program *expr.Value
}

// source is what values come from: a descriptor or a request's attributes.
type source interface {
	// value of a part; address is valid when it is one.
	value(p *part) (text string, address netip.Addr)
}

// bucket appends the key of the bucket that the values belong to, after the prefix, and finds its rate; nil: the value is exempt.
func (l *limit) bucket(key []byte, prefix string, from source) ([]byte, *rate) {
	key = append(key, prefix...)
	r := l.base
	for i := range l.parts {
		p := &l.parts[i]
		key = append(key, '|')
		text, address := from.value(p)
		if address.IsValid() {
			key = p.appendAddress(key, address)
		} else {
			text = p.normal(text)
			key = p.appendText(key, text)
		}
		if l.values == nil {
			continue
		}
		if other, ok := l.values.find(text, address); ok {
			r = other
		}
	}
	return key, r
}

// compiler makes limits ready.
type compiler struct {
	metrics  *metrics
	programs map[string]*expr.Value // by expression
	nodes    []*limit               // of the domain that is made ready
}

func (c *compiler) limit(l Limit) (*limit, error) {
	if l.Name == "" || strings.Contains(l.Name, "@") || !utf8.ValidString(l.Name) {
		return nil, fmt.Errorf("limit %q: want a name in UTF-8, without @", l.Name)
	}
	if l.Headers > NoHeaders || l.Headers&NoHeaders != 0 && l.Headers != NoHeaders {
		return nil, fmt.Errorf("limit %s: no such set of headers: %d", l.Name, l.Headers)
	}
	r := &limit{Limit: l, prefix: store.Key(l.Name), quoted: quoted(l.Name), id: l.ID(), brought: new(overrides), variants: new(variants)}
	for _, b := range l.By {
		if err := b.validate(); err != nil {
			return nil, fmt.Errorf("limit %s: %w", l.Name, err)
		}
		p := part{By: b, entry: b.Entry()}
		if b.Kind == CEL {
			var err error
			if p.program, err = c.program(b.Name); err != nil {
				return nil, fmt.Errorf("limit %s: cel: %w", l.Name, err)
			}
		}
		r.parts = append(r.parts, p)
	}
	var err error
	if r.base, err = newRate(&l, l.Rate); err != nil {
		return nil, fmt.Errorf("limit %s: %w", l.Name, err)
	}
	if r.values, err = newValues(&l); err != nil {
		return nil, fmt.Errorf("limit %s: %w", l.Name, err)
	}
	r.mark = r.id + " "
	if c.metrics != nil {
		c.metrics.limit(r)
	}
	return r, nil
}

// known is the limit as it stands in the table that is made, or stood in the one before; else it is made ready.
func (c *compiler) known(l *Limit, now, old *table) (*limit, error) {
	id := l.ID()
	if ready := now.limits[id]; ready != nil {
		return ready, nil
	}
	if ready := old.limits[id]; ready != nil && !ready.planned && ready.id == id {
		c.metrics.keep(ready)
		return ready, nil
	}
	return c.limit(*l)
}

// program compiles an expression once.
func (c *compiler) program(expression string) (*expr.Value, error) {
	if p, ok := c.programs[expression]; ok {
		return p, nil
	}
	p, err := expr.CompileValue(expression)
	if err == nil {
		c.programs[expression] = p
	}
	return p, err
}

// newTable makes t ready. What can't be counted is left out, and told. A limit of an ID that old has is that of old.
func newTable(t Table, m *metrics, old *table) (*table, error) {
	c := compiler{metrics: m, programs: map[string]*expr.Value{}}
	m.begin(len(t.Limits))
	defer m.forget()
	r := &table{
		from: t, limits: make(map[string]*limit, 2*len(t.Limits)), plans: make(map[string]*plan, len(t.Plans)),
		named: make(map[string]*limit, len(t.Limits)),
	}
	var problems []error
	for i := range t.Limits {
		ready, err := c.known(&t.Limits[i], r, old)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		r.limits[ready.id] = ready
		r.limits[ready.Name], r.named[ready.Name] = ready, ready
	}
	for _, p := range t.Plans {
		if err := p.Validate(); err != nil {
			problems = append(problems, err)
			continue
		}
		ready := &plan{name: p.Name}
		for _, l := range p.Limits {
			each, err := c.limit(l)
			if err != nil {
				problems = append(problems, err)
				continue
			}
			each.planned = true
			ready.limits = append(ready.limits, each)
			r.named[l.Name] = each
			r.limits[p.LimitID(l)] = each
		}
		r.plans[p.Name] = ready
	}
	r.domains = make(map[string]*domain, len(t.Domains))
	for i := range t.Domains {
		ready, err := c.domain(&t.Domains[i])
		if err != nil {
			problems = append(problems, err)
			continue
		}
		r.domains[t.Domains[i].Name] = ready
		for _, l := range ready.limits {
			r.named[l.Name] = l
		}
	}
	return r, errors.Join(problems...)
}

// Validate tells what makes the limit impossible to count.
func (l Limit) Validate() error {
	c := compiler{programs: map[string]*expr.Value{}}
	_, err := c.limit(l)
	return err
}

// Validate tells what makes the plan impossible to count.
func (p Plan) Validate() error {
	for i := range p.Limits {
		l := &p.Limits[i]
		if err := l.Validate(); err != nil {
			return fmt.Errorf("plan %s: %w", p.Name, err)
		}
		if !l.ByConsumer() {
			return fmt.Errorf("plan %s: limit %s doesn't count by consumer alone", p.Name, l.Name)
		}
	}
	return nil
}
