package trial

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/legation/legation/control"
	"github.com/legation/legation/explain"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/feature/proxyprotocol"
	"github.com/legation/legation/policy"
)

// preparing holds cases against the policy before anything runs: whatever they name has to be there.
type preparing struct {
	compiled *control.Compiled
	explain  explain.Policy
	issuer   *issuer
	routes   []string
	services []string
	file     *File
}

func newPreparing(c *control.Compiled, i *issuer) *preparing {
	p := &preparing{compiled: c, issuer: i, explain: explain.Policy{Model: c.Model, Resources: c.Resources, Kinds: feature.All()}}
	for _, r := range c.Model.Routes {
		p.routes = append(p.routes, r.Name)
	}
	for _, s := range c.Model.Services {
		if s.AppOf == nil {
			p.services = append(p.services, s.Name)
		}
	}
	return p
}

// cases prepares the cases of a file.
func (p *preparing) cases(f *File) {
	p.file = f
	for _, c := range f.Cases {
		p.upstreams(c.Upstreams, c.node)
		for _, s := range c.steps() {
			if s != &c.Step {
				p.upstreams(s.Upstreams, s.node)
			}
			p.expect(s.Expect)
			p.request(s)
		}
	}
}

func (p *preparing) upstreams(all upstreams, n *policy.Node) {
	for name := range all {
		if !slices.Contains(p.services, name) {
			p.missing(keyIn(n.Get("upstreams"), name), "service", p.services)
		}
	}
}

// keyIn is a key of a map, as it is written.
func keyIn(n *policy.Node, name string) *policy.Node {
	for _, key := range n.Keys {
		if key.Text == name {
			return key
		}
	}
	return n
}

func (p *preparing) missing(n *policy.Node, what string, names []string) {
	problem := p.file.doc.NoSuch(n, what, names)
	problem.Hint = cmp.Or(problem.Hint, near(n.Text, names))
}

func (p *preparing) expect(e *Expect) {
	n := e.node
	if e.Route != nil && *e.Route != none && !slices.Contains(p.routes, *e.Route) {
		p.missing(n.Get("route"), "route", p.routes)
	}
	for _, key := range []string{"upstream", "mirrored"} {
		at := n.Get(key)
		if at == nil {
			continue
		}
		items := []*policy.Node{at}
		if at.Kind == policy.List {
			items = at.Items
		}
		for _, item := range items {
			if item.Text != none && !slices.Contains(p.services, item.Text) {
				p.missing(item, "service", p.services)
			}
		}
	}
	if r := e.Received; r != nil && r.Service != "" && !slices.Contains(p.services, r.Service) {
		p.missing(r.node.Get("service"), "service", p.services)
	}
}

// request finds out where the request of a step goes.
func (p *preparing) request(s *Step) {
	r := s.Request
	p.token(r.Token, "token", "jwt or introspection", func(name string) bool { return p.issuer.jwts[name] != nil || p.issuer.opaque[name] != nil })
	p.token(r.Login, "login", "oidc", func(name string) bool { return p.issuer.logins[name] != nil })
	if r.Send != "" {
		p.connection(s)
		return
	}
	at := r.node
	if url := r.node.Get("url"); url != nil {
		at = url
	}
	url := r.URL
	if strings.HasPrefix(url, "/") {
		if p.file.Base == "" {
			p.file.doc.Errorf(at, "the URL has no host").Hintf("write http://localhost:10000%s, or base: http://localhost:10000 at the top of the file", short(url))
			return
		}
		url = strings.TrimSuffix(p.file.Base, "/") + url
	}
	e, err := p.explain.Explain(question(r, url))
	if err != nil {
		problem := p.file.doc.Errorf(at, "%s", strings.NewReplacer("--gateway", "gateway", "--listener", "listener").Replace(err.Error()))
		if _, ok := errors.AsType[*explain.Unclear](err); ok {
			problem.Hint = cmp.Or(problem.Hint, "the listener is found by scheme, port and host of the URL; listener: NAME beside url names one")
		}
		return
	}
	_, rest, _ := strings.Cut(url, "://")
	rest, _, _ = strings.Cut(rest, "#")
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	path := rest[end:]
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	p.found(s, e.Gateway, e.Listener)
	s.asked.refunds = e.Calls.After > 0
	s.asked.url, s.asked.host, s.asked.path = url, rest[:end], path
}

// question is what explain is asked about a request.
func question(r *Request, url string) explain.Question {
	q := explain.Question{Method: r.Method, URL: url, Gateway: r.Gateway, Listener: r.Listener, From: netip.MustParseAddr("127.0.0.1")}
	if r.From != nil {
		q.From = r.From.Addr
	}
	for name, lines := range r.Headers {
		for _, line := range lines {
			q.Headers = append(q.Headers, explain.Header{Name: name, Value: line})
		}
	}
	slices.SortStableFunc(q.Headers, func(a, b explain.Header) int { return cmp.Compare(a.Name, b.Name) })
	return q
}

func (p *preparing) found(s *Step, gateway, listener string) {
	for _, g := range p.compiled.Model.Gateways {
		for _, l := range g.Listeners {
			if g.Name == gateway && l.Name == listener {
				s.asked.gateway, s.asked.listener = g, l
				set, ok := policy.Find[*proxyprotocol.Setting](l.Settings)
				s.asked.proxied = ok && !set.Optional
			}
		}
	}
}

// connection finds the listener of TCP or TLS that bytes are sent to.
func (p *preparing) connection(s *Step) {
	r, at := s.Request, s.Request.node.Get("listener")
	var names, gateways []string
	for _, g := range p.compiled.Model.Gateways {
		for _, l := range g.Listeners {
			if l.HTTP() || r.Gateway != "" && r.Gateway != g.Name {
				continue
			}
			names = append(names, l.Name)
			if l.Name == r.Listener {
				gateways = append(gateways, g.Name)
			}
		}
	}
	switch len(gateways) {
	case 0:
		p.missing(at, "listener of TCP or TLS", names)
	case 1:
		p.found(s, gateways[0], r.Listener)
		s.asked.host = r.ServerName
	default:
		p.file.doc.Errorf(at, "several gateways have such a listener: %s", strings.Join(gateways, ", ")).Hintf("write gateway: %s", gateways[0])
	}
}

func (p *preparing) token(t *Token, what, kinds string, takes func(string) bool) {
	if t == nil || t.Entry == "" || takes(t.Entry) {
		return
	}
	var names []string
	there := false
	for _, a := range p.compiled.Model.Auth {
		there = there || a.Name == t.Entry
		if takes(a.Name) {
			names = append(names, a.Name)
		}
	}
	if there {
		p.file.doc.Errorf(t.entry(), "the auth entry %s is none of %s", t.Entry, kinds).Hintf("%s is for entries of %s: %s", what, kinds, near("", names))
		return
	}
	p.missing(t.entry(), "auth entry", names)
}

func short(s string) string { return fmt.Sprintf("%.100s", s) }
