package explain

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
	"golang.org/x/tools/txtar"
)

// updating tells whether to write the golden files; the harness of the features has the flag.
func updating() bool { return flag.Lookup("update").Value.String() == "true" }

// Each testdata/*.txtar is a policy, the questions that are asked of it, one a line of the file ask, and in want what is
// told. A question is METHOD URL, and after it name=value for the address (from), the gateway, the listener and headers.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no testdata/*.txtar (%v)", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			tells(t, file)
		})
	}
}

func tells(t *testing.T, file string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	files, ask, want := policy.Files{}, "", -1
	for i, f := range archive.Files {
		switch f.Name {
		case "ask":
			ask = string(f.Data)
		case "want":
			want = i
		default:
			files[f.Name] = f.Data
		}
	}
	p := served(t, files)
	var got bytes.Buffer
	for line := range strings.Lines(ask) {
		fmt.Fprintf(&got, "> %s", line)
		e, err := p.Explain(asks(t, strings.Fields(line)))
		if err != nil {
			fmt.Fprintf(&got, "%v\n\n", err)
			continue
		}
		if err := e.Write(&got, false); err != nil {
			t.Fatal(err)
		}
		got.WriteString("\n")
	}
	if updating() {
		if want < 0 {
			want, archive.Files = len(archive.Files), append(archive.Files, txtar.File{Name: "want"})
		}
		archive.Files[want].Data = got.Bytes()
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want < 0 {
		t.Fatal("there is no want: -update writes it")
	}
	if diff := cmp.Diff(string(archive.Files[want].Data), got.String()); diff != "" {
		t.Errorf("%s (-want +got), -update writes it:\n%s", file, diff)
	}
}

// served is a good policy with what it comes to.
func served(t testing.TB, files policy.Files) Policy {
	t.Helper()
	model, problems := feature.Language().Load(files)
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	resources, err := envoy.Translate(model, feature.All())
	if err != nil {
		t.Fatal(err)
	}
	return Policy{model, resources, feature.All()}
}

func asks(t testing.TB, words []string) Question {
	t.Helper()
	q := Question{Method: words[0], URL: words[1]}
	for _, w := range words[2:] {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "from":
			q.From = netip.MustParseAddr(value)
		case "gateway":
			q.Gateway = value
		case "listener":
			q.Listener = value
		default:
			q.Headers = append(q.Headers, Header{name, value})
		}
	}
	return q
}
