package trial

import (
	"crypto/rand"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/legation/legation/feature/credentials"
	"github.com/legation/legation/policy"
	"golang.org/x/crypto/bcrypt"
)

// secrets is what the policy's secrets hold in a run: what test files say, and else what is made so that it fits. It is a
// [policy.SecretSource].
type secrets map[string][]byte // by file: tls/example.crt, auth/staff

// Secret returns what is kept under a name.
func (s secrets) Secret(name string) ([]byte, error) {
	if content, ok := s[name]; ok {
		return content, nil
	}
	return nil, fs.ErrNotExist
}

// newSecrets makes the secrets that a policy names, of which m knows the names alone, and takes those of the test files.
// What is wrong with these is told in their files.
func newSecrets(m *policy.Model, files []*File, ca *authority) (secrets, error) {
	s := secrets{}
	names, users := certificateNames(m), passwordLists(m)
	var texts []string
	for _, one := range m.Secrets {
		switch one.Kind {
		case policy.CertificateSecret:
			made, err := ca.issue(names[one.Name]...)
			if err != nil {
				return nil, err
			}
			if s[one.Name+".crt"], s[one.Name+".key"], err = inPEM(made); err != nil {
				return nil, err
			}
		case policy.AuthoritySecret:
			s[one.Name+".crt"] = ca.pem
		default:
			texts = append(texts, one.Name)
			s[one.Name] = []byte(rand.Text() + rand.Text() + rand.Text() + rand.Text()) // as long as any has to be
			if users[one.Name] {
				s[one.Name] = htpasswd(map[string]string{"nobody": rand.Text()})
			}
		}
	}
	first := map[string]*File{}
	for _, f := range files {
		for _, name := range slices.Sorted(maps.Keys(f.Secrets)) {
			s.take(f, name, texts, first)
		}
	}
	return s, nil
}

// take takes what a test file says of a secret: one that the policy names, and of which no other file says another thing.
func (s secrets) take(f *File, name string, texts []string, first map[string]*File) {
	said := f.Secrets[name]
	key := said.node.KeyOf()
	content := []byte(said.text)
	if said.users != nil {
		content = htpasswd(said.users)
	}
	switch other := first[name]; {
	case len(content) == 0: // told already
	case !slices.Contains(texts, name) && s[name+".crt"] != nil:
		f.doc.KeyErrorf(key, "the secret %s is a certificate: the run makes it", name).Hintf("leave it out")
	case !slices.Contains(texts, name):
		f.doc.KeyErrorf(key, "the policy names no secret %q", name).Hintf("%s", near(name, texts))
	case other != nil && (other.Secrets[name].text != said.text || !maps.Equal(other.Secrets[name].users, said.users)):
		p := f.doc.KeyErrorf(key, "the secret %s holds something else in %s: all files are run together", name, other.name)
		p.Also = append(p.Also, other.Secrets[name].node.KeyOf().Pos)
		p.Hintf("say it in one of the files only")
	default:
		first[name], s[name] = f, content
	}
}

// near is a hint at the name that was meant, or at those that there are.
func near(name string, names []string) string {
	if meant := policy.Nearest(name, names); meant != "" {
		return "did you mean " + meant + "?"
	}
	if len(names) == 0 {
		return "there is none"
	}
	const most = 12
	text := "there is " + strings.Join(names[:min(most, len(names))], ", ")
	if more := len(names) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// htpasswd is names and passwords as the program of that name writes them.
func htpasswd(users map[string]string) []byte {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(users)) {
		hash, err := bcrypt.GenerateFromPassword([]byte(users[name]), bcrypt.MinCost)
		if err == nil {
			fmt.Fprintf(&b, "%s:%s\n", name, hash)
		}
	}
	return []byte(b.String())
}

// passwordLists are the secrets that list users and their passwords.
func passwordLists(m *policy.Model) map[string]bool {
	lists := map[string]bool{}
	for _, a := range m.Auth {
		if b, ok := policy.Find[*credentials.Basic](a.Settings); ok {
			lists[string(b.Secret)] = true
		}
	}
	return lists
}

// certificateNames are the names that certificates have to have, by their secrets: whatever clients ask the listeners for,
// and who gateways and sidecars are to each other.
func certificateNames(m *policy.Model) map[string][]string {
	names := map[string][]string{}
	add := func(secret, name string) {
		if !slices.Contains(names[secret], name) {
			names[secret] = append(names[secret], name)
		}
	}
	for _, g := range m.Gateways {
		if g.Mesh != nil {
			add(g.Mesh.Certificate, g.Name)
		}
		for _, l := range g.Listeners {
			for _, c := range l.Certificates {
				if c.Hostname != "" {
					add(c.Secret, c.Hostname)
					continue
				}
				for _, r := range m.Bound[g] {
					for _, host := range r.Hostnames {
						if r.On(l) && host != "*" {
							add(c.Secret, host)
						}
					}
				}
			}
		}
	}
	for _, s := range m.Secrets {
		if s.Kind == policy.CertificateSecret && len(names[s.Name]) == 0 {
			add(s.Name, strings.ReplaceAll(s.Name, "/", ".")+".test")
		}
	}
	return names
}
