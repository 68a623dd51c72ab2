package policy

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// WithSecrets returns the language that looks secrets up in s while it loads; nil looks nothing up, as a check does
// that has none of them: their names are checked, and [Model.Secrets] has them without contents. Of some kinds only these
// are looked up.
func (l *Language) WithSecrets(s SecretSource, kinds ...SecretKind) *Language {
	with := *l
	with.secrets, with.secretKinds = s, kinds
	return &with
}

// looksUp tells whether secrets of a kind are looked up.
func (l *Language) looksUp(k SecretKind) bool {
	return l.secrets != nil && (len(l.secretKinds) == 0 || slices.Contains(l.secretKinds, k))
}

// Certificate reports at path that the certificate of that name is not there or not fit to be used, and tells whether
// it is. What is fine stands in [Model.Secrets].
func (c *Check) Certificate(path, name string) bool {
	return c.secret(path, CertificateSecret, name)
}

// Secret is [Check.Certificate] for any other text.
func (c *Check) Secret(path, name string) bool { return c.secret(path, OpaqueSecret, name) }

// CompanionSecret is [Check.Secret] for what the companion alone is given.
func (c *Check) CompanionSecret(path, name string) bool { return c.secret(path, CompanionSecret, name) }

// CompanionText is [Check.CompanionSecret] for one whose contents have a form: wrong tells what is wrong with them, in words
// that hold nothing of them. It is not asked where secrets are not looked up.
func (c *Check) CompanionText(path, name string, wrong func(content []byte) error) bool {
	h, p := c.load.secret(c.set.Node, path, CompanionSecret, name)
	if p == nil && h != nil && len(h.secret.Value) > 0 {
		if err := wrong(h.secret.Value); err != nil {
			p = c.load.report(c.set.Node, path, false, "the secret %s: %v", name, err)
			p.secret = h.secret.ID()
		}
	}
	if p != nil {
		c.blame(p)
	}
	return p == nil
}

// Authority is [Check.Certificate] for certificates to trust.
func (c *Check) Authority(path string, a *Authority) bool {
	switch {
	case a.Secret != "":
		return c.secret(join(path, "secret"), AuthoritySecret, a.Secret)
	case a.File != "":
		p := c.load.authorityFile(c.set.Node, join(path, "file"), a.File)
		c.reads = append(c.reads, a.File)
		if p != nil {
			c.blame(p)
		}
		return p == nil
	default:
		return true
	}
}

func (c *Check) secret(path string, kind SecretKind, name string) bool {
	_, p := c.load.secret(c.set.Node, path, kind, name)
	if p != nil {
		c.blame(p)
	}
	return p == nil
}

// vault is the secrets that a load has met, by their ID.
type vault map[string]*held

// held is a secret, or why it may not be used.
type held struct {
	secret *Secret
	leaf   *x509.Certificate // of a certificate with contents
	flaw   *flaw
	read   [][sha256.Size]byte // the hashes of what was read of the source, in the order of [Secret.Files]
}

// flaw is what is wrong with a secret, in words that hold nothing of it.
type flaw struct{ message, hint string }

func flawf(format string, args ...any) *flaw { return &flaw{message: fmt.Sprintf(format, args...)} }

// secret finds a secret and notes that it is referred to at rel below n.
func (l *loader) secret(n *Node, rel string, kind SecretKind, name string) (*held, *Problem) {
	if !isSecretName(name) {
		return nil, l.report(n, rel, false, "%s", noSecretName).Hintf("%s", secretNameHint).Hide()
	}
	h := l.hold(&Secret{Kind: kind, Name: name}, l.lookUp)
	p := l.referTo(h, n, rel)
	if p != nil {
		p.secret = h.secret.ID()
	}
	return h, p
}

// authorityFile is secret for certificates in a file of the policy directory.
func (l *loader) authorityFile(n *Node, rel, full string) *Problem {
	content, p := l.fileAt(n, rel, full)
	if p != nil {
		return p
	}
	return l.referTo(l.hold(&Secret{Kind: AuthoritySecret, Name: fileSecret + full}, func(h *held) {
		h.secret.Value, h.flaw = authorities(full, content)
	}), n, rel)
}

// hold gives what is known of a secret, and fills it when it is the first time that it is asked for.
func (l *loader) hold(s *Secret, fill func(*held)) *held {
	h := l.vault[s.ID()]
	if h == nil {
		h = &held{secret: s}
		l.vault[s.ID()] = h
		fill(h)
	}
	return h
}

// referTo notes a reference, and reports it when the secret may not be used.
func (l *loader) referTo(h *held, n *Node, rel string) *Problem {
	at, _ := n.find(rel)
	m := l.meets()
	m.secrets = append(m.secrets, reference{h.secret.ID(), at.Pos})
	if h.flaw == nil {
		return nil
	}
	p := l.report(n, rel, false, "%s", h.flaw.message)
	p.Hint = h.flaw.hint
	return p
}

// lookUp fills a secret from its source, or with what is kept of it.
func (l *loader) lookUp(h *held) {
	s := h.secret
	kept := l.kept[s.ID()]
	if kept == nil && !l.lang.looksUp(s.Kind) {
		return
	}
	read := func(file string) (content []byte) {
		if h.flaw != nil {
			return nil
		}
		if content, h.flaw = l.lookUpFile(s.Name, file); h.flaw == nil {
			h.read = append(h.read, sha256.Sum256(content))
		}
		return content
	}
	switch {
	case s.opaque() && kept != nil:
		s.Value = kept.Value
	case s.opaque():
		if s.Value = trimLineEnd(read(s.Name)); h.flaw == nil && len(s.Value) == 0 {
			h.flaw = flawf("the secret %s is empty", s.Name)
		}
	case kept != nil:
		s.Value, s.Key = kept.Value, kept.Key
		if s.Kind == CertificateSecret {
			h.leaf = leafOf(s.Value)
		}
	case s.Kind == AuthoritySecret:
		if content := read(s.Name + ".crt"); h.flaw == nil {
			s.Value, h.flaw = authorities(s.Name+".crt", content)
		}
	default:
		if chain, key := read(s.Name+".crt"), read(s.Name+".key"); h.flaw == nil {
			h.flaw = h.certificate(chain, key)
		}
	}
}

func (l *loader) lookUpFile(name, file string) ([]byte, *flaw) {
	content, err := l.lang.secrets.Secret(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, flawf("there is no secret %s: neither %s in the secrets directory nor the variable %s", name, file, SecretVariable(file))
	case err != nil:
		return nil, flawf("the secret %s can't be used: %s: %v", name, file, err)
	}
	return content, nil
}

// trimLineEnd takes off the one line end that editors put there.
func trimLineEnd(content []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(content, []byte{'\n'}), []byte{'\r'})
}

// still tells whether the secret would be the same if it was looked up by l.
func (l *loader) still(h *held) bool {
	s := h.secret
	switch kept := l.kept[s.ID()]; {
	case strings.HasPrefix(s.Name, fileSecret):
		return true // as long as the file is
	case kept != nil:
		return bytes.Equal(kept.Value, s.Value) && bytes.Equal(kept.Key, s.Key)
	case !l.lang.looksUp(s.Kind):
		return len(s.Value) == 0
	}
	files := s.Files()
	if len(h.read) != len(files) {
		return false
	}
	for i, file := range files {
		content, err := l.lang.secrets.Secret(file)
		if err != nil || sha256.Sum256(content) != h.read[i] {
			return false
		}
	}
	return true
}
