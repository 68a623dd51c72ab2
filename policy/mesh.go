package policy

import (
	"crypto/x509"
	"regexp"
	"slices"
)

// meshDoc is what a gateway or a sidecar shows to sidecars, and whom it believes, as written.
type meshDoc struct {
	Certificate *SecretName `policy:"certificate,required" doc:"what it shows to others: NAME.crt and NAME.key among the secrets; it names the gateway or sidecar"`
	CA          *Authority  `policy:"ca,required" doc:"who has to have signed the certificates of the others: {secret: NAME} or {file: ca.pem}"`
}

func (m meshDoc) name() string {
	if m.Certificate == nil {
		return ""
	}
	return string(*m.Certificate)
}

// mesh checks what stands at n, for the gateway or sidecar of that name.
func (l *loader) mesh(name string, doc meshDoc, n *Node) *Mesh {
	m := &Mesh{Certificate: doc.name()}
	if m.Certificate != "" {
		h, p := l.secret(n, "certificate", CertificateSecret, m.Certificate)
		if p == nil && h.leaf != nil && !certifies(h.leaf, name) {
			p = l.report(n, "certificate", false, "the certificate %s does not name %s: none of the others would believe it", m.Certificate, name).
				Hintf("it needs the DNS name %[1]s or the URI spiffe://TRUST-DOMAIN/gateway/%[1]s", name)
			p.secret = h.secret.ID()
		}
	}
	if doc.CA == nil {
		return m
	}
	m.CA = *doc.CA
	switch {
	case m.CA.System:
		l.report(n, "ca", false, "what the system trusts has signed certificates for anybody").Hintf("have an authority of your own: {secret: mesh/ca}")
	case m.CA.Secret != "":
		l.secret(n, "ca.secret", AuthoritySecret, m.CA.Secret)
	case m.CA.File != "":
		if p := l.authorityFile(n, "ca.file", m.CA.File); p != nil {
			p.blames = append(p.blames, m.CA.File)
		}
	}
	return m
}

// MeshURI is a regular expression of the URIs that name a gateway or a sidecar in its certificate; else its name stands
// there as a DNS name. The xDS server goes by the same names, so that one certificate is good for both. Which trust domains
// count is settled by the authority.
func MeshURI(name string) string { return `spiffe://[^/:@?#%]+/gateway/` + regexp.QuoteMeta(name) }

// certifies tells whether a certificate names a gateway or a sidecar.
func certifies(c *x509.Certificate, name string) bool {
	if slices.Contains(c.DNSNames, name) {
		return true
	}
	uri := regexp.MustCompile("^" + MeshURI(name) + "$")
	for _, u := range c.URIs {
		if uri.MatchString(u.String()) {
			return true
		}
	}
	return false
}

// peers finds those who may call a sidecar.
func (l *loader) peers(names []*Node, n *Node) []string {
	if written := n.Get("peers"); written != nil && written.Kind == List && len(written.Items) == 0 {
		l.report(written, "", false, "name at least one gateway or sidecar").Hintf("leave inbound out for an app that nobody may call")
	}
	var peers []string
	seen := make(map[string]bool, len(names))
	for _, name := range names {
		switch {
		case name.Kind != Scalar:
			l.report(name, "", false, "want the name of a gateway or a sidecar, got %s", name.shape())
		case !l.has("gateways", name.Text) && !l.has("sidecars", name.Text):
			p := l.report(name, "", false, "there is no gateway or sidecar %s", quote(name.Text))
			if p.Hint == "" {
				p.Hint = l.guess(name.Text, slices.Concat(l.namesOf("gateways"), l.namesOf("sidecars")))
			}
			l.absent(p, "gateways", name.Text)
		case seen[name.Text]:
			l.report(name, "", false, "%s stands here twice", quote(name.Text))
		default:
			peers = append(peers, name.Text)
			seen[name.Text] = true
		}
	}
	slices.Sort(peers)
	return peers
}

// inMesh holds those who call services with a sidecar to its peers: nobody else gets there, least of all in plain text.
func (l *loader) inMesh(b *binding) {
	g := b.gateway.gateway
	for _, s := range b.services {
		sidecar := s.service.Sidecar
		if sidecar == nil {
			continue
		}
		n, rel := b.route.backendAt(s.service.Name)
		suspects := []string{sidecar.Pos.File, g.Pos.File}
		name := quote(s.service.Name)
		switch {
		case b.route.route.Layer4:
			l.report(n, rel, false, "%s has a sidecar, which speaks HTTP: connections can't be passed on to it", name).suspect(suspects...).
				Hintf("have the route at a listener of HTTP or HTTPS")
		case g.Mesh == nil:
			l.report(n, rel, false, "%s has a sidecar, and the gateway %s no certificate to show to it", name, quote(g.Name)).suspect(suspects...).
				Hintf("write mesh: {certificate: mesh/%s, ca: {secret: mesh/ca}} in gateways.%[1]s", g.Name)
		case !s.service.Takes(g):
			l.report(n, rel, false, "%s takes no calls from %s", name, quote(g.Name)).suspect(suspects...).
				Hintf("add %s to sidecars.%s.inbound.peers", g.Name, s.service.Name)
		}
	}
}

// backendAt is where the route names a service that it sends to.
func (r *routeLayer) backendAt(service string) (n *Node, rel string) {
	if r.raw.value.Kind == Scalar { // of a sidecar's outbound
		return r.raw.value, ""
	}
	return r.raw.value, "backends." + service
}
