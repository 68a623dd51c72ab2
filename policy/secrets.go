package policy

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
	default:
		return "secret/" + s.Name
	}
}

// Authority names the certificates that the other side's must be signed with: as a setting writes it, "system",
// {file: ca.pem} beside the policy file, or {secret: NAME}.
type Authority struct {
	System bool // what the system that Envoy runs on trusts
	File   string
	Secret string
}

// ID is the [Secret.ID] of the authority, empty for that of the system.
func (a Authority) ID() string {
	switch {
	case a.File != "":
		return "authority/file/" + a.File
	case a.Secret != "":
		return "authority/" + a.Secret
	default:
		return ""
	}
}
