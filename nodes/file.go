package nodes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/policy"
)

// file is the nodes file as written.
type file struct {
	Nodes  map[string]group `policy:"nodes" doc:"groups of Envoys (gateways and sidecars), and who may join them"`
	Tokens *tokens          `policy:"tokens" doc:"the bearer tokens that Envoys may show in the place of a certificate, or beside it"`
}

// group is who may join one group.
type group struct {
	Certificates []pattern `policy:"certificates,required" doc:"names of client certificates, any of which is enough"`
}

// tokens is the one issuer of tokens whose claim names groups.
type tokens struct {
	Issuer    string   `policy:"issuer,required" doc:"iss has to be exactly this"`
	Audiences []string `policy:"audiences,required" doc:"aud has to name one of these"`
	Keys      keys     `policy:"jwks,required" doc:"the issuer's public keys: a URL, or {file: keys.json} beside the nodes file"`
	Claim     string   `policy:"claim" doc:"the claim that names the group, or a list of groups; group unless said otherwise"`
}

// DecodePolicy reads the issuer.
func (t *tokens) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if !d.Decode(n, t) {
		return
	}
	if t.Claim == "" {
		t.Claim = "group"
	}
	if t.Issuer == "" {
		d.Errorf(n.Get("issuer"), "want a text")
	}
	if len(t.Audiences) == 0 {
		d.Errorf(n.Get("audiences"), "name at least one").Hintf("a token that was made for somebody else could be used here")
	}
}

// keys is a URL, or {file: NAME}.
type keys struct{ url, file string }

// DecodePolicy reads where the keys are.
func (k *keys) DecodePolicy(d *policy.Decode, n *policy.Node) {
	if n.Kind != policy.Map {
		if !d.Decode(n, &k.url) {
			return
		}
		if err := auth.CheckURL(k.url); err != nil {
			d.Errorf(n, "%v", err).Hintf("https, or http on loopback; {file: keys.json} names a file")
		}
		return
	}
	var form struct {
		File string `policy:"file,required" doc:"a file beside the nodes file"`
	}
	if d.Decode(n, &form) {
		k.file = form.File
	}
}

// maxFile is the size of the largest file that is read, in bytes.
const maxFile = 1 << 20

// rules is what a nodes file says.
type rules struct {
	groups map[string][]pattern // nil: certificates name groups as they do without a file
	claim  string
	issuer *auth.JWT // nil: no tokens
}

// read reads the nodes file and what it refers to.
func read(path string) (*rules, error) {
	content, err := readFile(path)
	if err != nil {
		return nil, err
	}
	var f file
	document := policy.ReadDocument(path, content, &f)
	if problems := document.Problems(); problems.HasErrors() {
		var text strings.Builder
		_ = problems.Write(&text, policy.Files{path: content}, false) // a Builder takes everything
		return nil, errors.New(strings.TrimSuffix(text.String(), "\n"))
	}
	if document.Root == nil {
		return nil, fmt.Errorf("%s: the file is empty", path)
	}
	r := &rules{}
	for name, g := range f.Nodes {
		if r.groups == nil {
			r.groups = map[string][]pattern{}
		}
		r.groups[name] = g.Certificates
	}
	if f.Nodes != nil && r.groups == nil {
		r.groups = map[string][]pattern{} // nodes: {} lets nobody in
	}
	if f.Tokens == nil {
		return r, nil
	}
	r.claim = f.Tokens.Claim
	r.issuer = &auth.JWT{Issuer: f.Tokens.Issuer, Audiences: f.Tokens.Audiences, JWKS: auth.JWKS{URL: f.Tokens.Keys.url}}
	if name := f.Tokens.Keys.file; name != "" {
		if r.issuer.JWKS.Keys, err = keyFile(path, name); err != nil {
			return nil, fmt.Errorf("%s: tokens.jwks.file: %w", path, err)
		}
	}
	return r, nil
}

func keyFile(path, name string) ([]byte, error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(path), name)
	}
	content, err := readFile(name)
	if err != nil {
		return nil, err
	}
	if err := auth.ParseKeys(content); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return content, nil
}

// readFile reads a file that nobody but its owner may change: it says who gets private keys.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // without it a FIFO would wait for its writer
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := usable(info, path); err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(content) > maxFile:
		return nil, fmt.Errorf("%s: larger than 1 MiB", path)
	}
	return bytes.Clone(content), nil
}

func usable(info fs.FileInfo, path string) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("%s: others may change it (mode %04o): chmod 644 %[1]s", path, mode)
	}
	us := os.Geteuid()
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 && int(stat.Uid) != us {
		return fmt.Errorf("%s: it belongs to another user (uid %d): chown %d %[1]s", path, stat.Uid, us)
	}
	return nil
}
