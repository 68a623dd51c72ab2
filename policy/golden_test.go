package policy_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/policy"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write the goldens anew")

// TestGoldens loads the files of each archive in testdata. Its last file, "problems", is what people are shown; where
// the policy is good, "model" is what was resolved of it.
func TestGoldens(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatal("no goldens: ", err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files, want := split(archive)
			got := outcome(t, files)
			if *update {
				archive.Files = archive.Files[:len(files)]
				archive.Files = append(archive.Files, got...)
				if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(text(want), text(got)); diff != "" {
				t.Errorf("not as in %s (-want +got):\n%s", name, diff)
			}
		})
	}
}

func split(archive *txtar.Archive) (policy.Files, []txtar.File) {
	files := make(policy.Files)
	for i, f := range archive.Files {
		if f.Name == "problems" || f.Name == "model" {
			return files, archive.Files[i:]
		}
		files[f.Name] = f.Data
	}
	return files, nil
}

func text(files []txtar.File) string {
	return string(txtar.Format(&txtar.Archive{Files: files}))
}

func outcome(t *testing.T, files policy.Files) []txtar.File {
	t.Helper()
	model, problems := testLanguage().Load(files)
	if (model == nil) != problems.HasErrors() {
		t.Errorf("model %v with problems %v", model, problems)
	}
	var shown bytes.Buffer
	if err := problems.Write(&shown, files, false); err != nil {
		t.Fatal(err)
	}
	var out []txtar.File
	if model != nil {
		out = append(out, txtar.File{Name: "model", Data: dump(model)})
	}
	return append(out, txtar.File{Name: "problems", Data: shown.Bytes()})
}

// dump writes what was resolved, a line for each thing.
func dump(m *policy.Model) []byte {
	var out bytes.Buffer
	for _, g := range m.Gateways {
		if g.Mesh != nil {
			fmt.Fprintf(&out, "gateway %s sidecar=%t mesh %s by %s\n", g.Name, g.Sidecar, g.Mesh.Certificate, g.Mesh.CA.ID())
		}
		for _, l := range g.Listeners {
			fmt.Fprintf(&out, "gateway %s listener %s %s:%d %s perHost=%t%s\n", g.Name, l.Name, l.Address, l.Port, l.Protocol, l.PerHost, listenerText(l))
		}
		for _, r := range m.Bound[g] {
			fmt.Fprintf(&out, "gateway %s route %s %v %s\n", g.Name, r.Name, r.Hostnames, routeText(r))
			for _, b := range r.Backends {
				fmt.Fprintf(&out, "  backend %s %d\n", b.Service.Name, b.Weight)
			}
			dumpSettings(&out, r.Settings)
		}
	}
	for _, s := range m.Services {
		fmt.Fprintf(&out, "service %s", s.Name)
		for _, e := range s.Endpoints {
			fmt.Fprintf(&out, " %s", endpointText(e))
		}
		if s.DNS != nil {
			fmt.Fprintf(&out, " dns %s logical=%t refresh=%s", endpointText(s.DNS.Endpoint), s.DNS.Logical, s.DNS.Refresh)
		}
		if s.Sidecar != nil {
			fmt.Fprintf(&out, " sidecar %s", s.Sidecar.Name)
		}
		if s.AppOf != nil {
			fmt.Fprintf(&out, " app of %s", s.AppOf.Name)
		}
		fmt.Fprintln(&out)
		dumpSettings(&out, s.Settings)
	}
	for _, a := range m.Auth {
		fmt.Fprintf(&out, "auth %s\n", a.Name)
		dumpSettings(&out, a.Settings)
	}
	for _, c := range m.Consumers {
		fmt.Fprintf(&out, "consumer %s\n", c.Name)
		dumpSettings(&out, c.Settings)
	}
	for _, s := range m.Secrets {
		fmt.Fprintf(&out, "secret %s  # %s\n", s.ID(), s.Pos)
	}
	return out.Bytes()
}

func listenerText(l *policy.Listener) string {
	s := ""
	if l.RedirectPort > 0 {
		s += fmt.Sprintf(" redirect=%d", l.RedirectPort)
	}
	for _, c := range l.Certificates {
		s += fmt.Sprintf(" certificate %q=%s", c.Hostname, c.Secret)
	}
	if l.Trusted {
		s += fmt.Sprintf(" trusted peers=%v", l.Peers)
	}
	return s
}

func endpointText(e policy.Endpoint) string {
	s := fmt.Sprintf("%s|%d", e.Host, e.Port)
	if e.Weight != 1 || e.Zone != "" || e.Priority > 0 {
		s += fmt.Sprintf("(weight=%d zone=%q priority=%d %s)", e.Weight, e.Zone, e.Priority, e.Pos)
	}
	return s
}

func routeText(r *policy.BoundRoute) string {
	s := matchText(r.Match)
	if r.Layer4 {
		s = "connections"
	}
	for _, l := range r.Gateway.Listeners {
		if len(r.Gateway.Listeners) > 1 && r.On(l) {
			s += " on " + l.Name
		}
	}
	return s
}

func dumpSettings(out *bytes.Buffer, settings policy.Settings) {
	for _, s := range settings {
		value := fmt.Sprintf("%+v", reflect.ValueOf(s.Setting).Elem())
		fmt.Fprintf(out, "  %s %s  # %s, %s\n", s.Kind.Key, value, s.Layer, s.Pos())
	}
}

func matchText(m policy.Match) string {
	s := [...]string{"prefix", "exact", "regex", "template"}[m.Path.Kind] + " " + m.Path.Value
	if m.Path.IgnoreCase {
		s += " in any case"
	}
	if m.GRPC {
		s += " gRPC"
	}
	if len(m.Methods) > 0 {
		s += " " + strings.Join(m.Methods, "|")
	}
	for _, prefix := range m.Source {
		s += " from " + prefix.String()
	}
	for i, list := range [][]policy.ValueMatch{m.Headers, m.Query} {
		for _, v := range list {
			s += " " + [...]string{"header", "query"}[i] + " " + v.Name
			switch {
			case v.Present != nil:
				s += fmt.Sprintf(" present=%t", *v.Present)
			case v.Regex != "":
				s += "~" + v.Regex
			default:
				s += "=" + v.Exact
			}
		}
	}
	return s
}
