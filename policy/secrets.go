package policy

import (
	"path"
	"slices"
	"strings"
)

// SecretSource holds what the policy refers to by name only: it stands in no policy file. Names are slash-separated.
type SecretSource interface {
	// Secret returns what is kept under a name such as "tls/example.key". It returns [io/fs.ErrNotExist] when there is
	// nothing, and another error when it may not be used.
	Secret(name string) ([]byte, error)
}

// SecretKind is what a secret is used as.
type SecretKind uint8

// The kinds of secrets.
const (
	CertificateSecret SecretKind = iota // NAME.crt and NAME.key: a chain and its key
	AuthoritySecret                     // NAME.crt, or a file beside the policy: certificates to trust
	OpaqueSecret                        // NAME: any text, without the line end
	CompanionSecret                     // the same, for the companion alone: no Envoy is ever given it
)

// Secret is one that settings refer to. Its contents are empty when the policy was loaded without a [SecretSource].
type Secret struct {
	Kind  SecretKind
	Name  string // unique among those of its kind
	Value []byte // the chain or the authorities, PEM, leaf first; else the text
	Key   []byte // of a certificate, PEM
	Pos   Pos    // of the first reference
}

// ID is unique among all secrets, and the name that Envoy knows it by: "certificate/tls/example".
func (s *Secret) ID() string {
	switch s.Kind {
	case CertificateSecret:
		return "certificate/" + s.Name
	case AuthoritySecret:
		return "authority/" + s.Name
	case CompanionSecret:
		return "companion/" + s.Name
	default:
		return "secret/" + s.Name
	}
}

// opaque tells whether the secret is any text.
func (s *Secret) opaque() bool { return s.Kind == OpaqueSecret || s.Kind == CompanionSecret }

// SecretOf is the secret of an ID, without its contents.
func SecretOf(id string) *Secret {
	kind, name, _ := strings.Cut(id, "/")
	switch kind {
	case "certificate":
		return &Secret{Kind: CertificateSecret, Name: name}
	case "authority":
		return &Secret{Kind: AuthoritySecret, Name: name}
	case "companion":
		return &Secret{Kind: CompanionSecret, Name: name}
	default:
		return &Secret{Kind: OpaqueSecret, Name: name}
	}
}

// Files is the names that a [SecretSource] is asked for: none for authorities that lie beside the policy.
func (s *Secret) Files() []string {
	switch {
	case s.Kind == CertificateSecret:
		return []string{s.Name + ".crt", s.Name + ".key"}
	case s.opaque():
		return []string{s.Name}
	case strings.HasPrefix(s.Name, fileSecret):
		return nil
	default:
		return []string{s.Name + ".crt"}
	}
}

// Secret gives one of [Model.Secrets] by its [Secret.ID], nil where no setting refers to it.
func (m *Model) Secret(id string) *Secret {
	i, found := slices.BinarySearchFunc(m.Secrets, id, func(s *Secret, id string) int { return strings.Compare(s.ID(), id) })
	if !found {
		return nil
	}
	return m.Secrets[i]
}

// SecretVariable is the name of the environment variable that holds what a file of the secrets directory may hold:
// LEGATION_SECRET_TLS_EXAMPLE_CRT for "tls/example.crt".
func SecretVariable(file string) string {
	return "LEGATION_SECRET_" + strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z':
			return c - 'a' + 'A'
		case c >= 'A' && c <= 'Z' || c >= '0' && c <= '9':
			return c
		}
		return '_'
	}, file)
}

// Authority names the certificates that the other side's must be signed with: as a setting writes it, "system",
// {file: ca.pem} beside the policy file, or {secret: NAME}.
type Authority struct {
	System bool   // what the system that Envoy runs on trusts
	File   string // its path in the policy directory, once it is decoded
	Secret string
}

// fileSecret begins the names of authorities that are files: no name of a secret has a colon.
const fileSecret = "file:"

// ID is the [Secret.ID] of the authority, empty for that of the system.
func (a Authority) ID() string {
	switch {
	case a.File != "":
		return "authority/" + fileSecret + a.File
	case a.Secret != "":
		return "authority/" + a.Secret
	default:
		return ""
	}
}

// Whole says that an authority of one layer replaces that of another: of {file: …} and {secret: …} one is meant.
func (*Authority) Whole() {}

// DecodePolicy reads an authority; whether it is there is for [Check.Authority] to tell.
func (a *Authority) DecodePolicy(d *Decode, n *Node) {
	switch {
	case n.Kind == Scalar && n.Text == "system":
		a.System = true
		return
	case n.Kind != Map:
		p := d.Errorf(n, "want system, {file: …} or {secret: …}").Hintf("certificates to trust stand in a file beside the policy, or are a secret")
		if n.Kind == Scalar && n.Text != "" {
			p.Hide()
		}
		return
	}
	var doc struct {
		File   *string `policy:"file"`
		Secret *string `policy:"secret"`
	}
	if !d.Decode(n, &doc) {
		return
	}
	switch {
	case len(n.Keys) != 1:
		d.Errorf(n, "want one of file and secret, got %d keys", len(n.Keys))
	case doc.File != nil:
		if *doc.File == "" || path.IsAbs(*doc.File) {
			d.load.outside(n.Items[0], "", *doc.File)
			return
		}
		a.File = path.Join(path.Dir(n.Items[0].Pos.File), *doc.File)
	default:
		a.Secret = *doc.Secret
	}
}

// PolicySchema describes an authority.
func (*Authority) PolicySchema(*Schemas) map[string]any {
	return map[string]any{"oneOf": []any{
		map[string]any{"const": "system"},
		OnlyKey("file", map[string]any{"type": "string", "minLength": 1}),
		OnlyKey("secret", secretSchema()),
	}}
}

func secretSchema() map[string]any {
	return map[string]any{
		"type": "string", "maxLength": maxSecretName, "pattern": "^[a-z0-9_-][a-z0-9._-]*(/[a-z0-9_-][a-z0-9._-]*)*$",
		"description": "the name of a secret, such as tls/example",
	}
}

// SecretName is a reference to a secret by its name, such as tls/example. What it holds never stands in a policy.
type SecretName string

// DecodePolicy reads the name of a secret, and repeats nothing of what is none.
func (s *SecretName) DecodePolicy(d *Decode, n *Node) {
	if n.Kind != Scalar || !isSecretName(n.Text) {
		d.Errorf(n, "%s", noSecretName).Hintf("%s", secretNameHint).Hide()
		return
	}
	*s = SecretName(n.Text)
}

// PolicySchema describes the name of a secret.
func (*SecretName) PolicySchema(*Schemas) map[string]any { return secretSchema() }

const (
	maxSecretName  = 200
	noSecretName   = "this is not the name of a secret, and what a secret holds can't stand in a policy"
	secretNameHint = "write a name such as tls/example: of a-z, 0-9, -, . and _, its parts divided by /"
)

// isSecretName tells whether a name can be that of a secret: a path of files that is the same on every file system,
// none of them hidden.
func isSecretName(name string) bool {
	if len(name) > maxSecretName {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part[0] == '.' {
			return false
		}
		for i := range len(part) {
			c := part[i]
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_') {
				return false
			}
		}
	}
	return true
}
