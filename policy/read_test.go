package policy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/legation/legation/policy"
)

// tree makes a directory: a name that ends with / is a folder, a value that begins with -> a link.
func tree(t *testing.T, entries map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "policy")
	for name, content := range entries {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// read reads dir both as an [os.Root] and as an [os.DirFS]; they have to agree.
func read(t *testing.T, dir string) (policy.Files, []string) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	got, problems := policy.ReadFiles(root.FS())
	got2, problems2 := policy.ReadFiles(os.DirFS(dir))
	if diff := cmp.Diff(show(got), show(got2)); diff != "" {
		t.Errorf("Root and DirFS differ: %s", diff)
	}
	var told, told2 []string
	for _, p := range problems {
		told = append(told, p.Error())
	}
	for _, p := range problems2 {
		told2 = append(told2, p.Error())
	}
	if diff := cmp.Diff(told, told2); diff != "" {
		t.Errorf("Root and DirFS differ: %s", diff)
	}
	return got, told
}

func TestReadFiles(t *testing.T) {
	dir := tree(t, map[string]string{
		"a.yaml": "a", "b.yml": "b", "teams/c.yaml": "c", "teams/keys.json": "{}", "ca.pem": "p", "ca.crt": "q", "list.txt": "t", "s.endpoints": "e",
		"README.md": "x", ".hidden.yaml": "x", ".git/d.yaml": "x", "e.yaml~": "x", "#f.yaml#": "x", ".#g.yaml": "x", "h.yaml.swp": "x",
		"i.yaml.tmp": "x", "j.YAML": "x", "big.json": strings.Repeat("x", 1<<20+1),
	})
	got, problems := read(t, dir)
	want := files("a.yaml", "a", "b.yml", "b", "teams/c.yaml", "c", "teams/keys.json", "{}", "ca.pem", "p", "ca.crt", "q", "list.txt", "t", "s.endpoints", "e")
	if diff := cmp.Diff(show(want), show(got)); diff != "" || len(problems) > 0 {
		t.Errorf("(-want +got):\n%s\n%v", diff, problems)
	}
}

// TestReadFilesOfMountedConfigMap: the files are links into ..data, itself a link that is swapped at once.
func TestReadFilesOfMountedConfigMap(t *testing.T) {
	dir := tree(t, map[string]string{
		"..2026_01/a.yaml": "a", "..2026_01/teams/b.yaml": "b", "..data": "-> ..2026_01",
		"a.yaml": "-> ..data/a.yaml", "teams": "-> ..data/teams",
	})
	got, problems := read(t, dir)
	if diff := cmp.Diff(show(files("a.yaml", "a", "teams/b.yaml", "b")), show(got)); diff != "" || len(problems) > 0 {
		t.Errorf("(-want +got):\n%s\n%v", diff, problems)
	}
}

func TestReadFilesTellsWhatItCannotRead(t *testing.T) {
	dir := tree(t, map[string]string{
		"good.yaml": "x", "big.yaml": strings.Repeat("x", 1<<20+1), "../outside.yaml": "secret",
		"out.yaml": "-> ../outside.yaml", "abs.yaml": "-> /etc/passwd", "nowhere.yaml": "-> gone.yaml",
		"loop.yaml": "-> loop2.yaml", "loop2.yaml": "-> loop.yaml", "sub/up": "-> ..", "folder.yaml/x.yaml": "y",
		"twice/in.yaml": "-> ../twice.d/../good.yaml", "twice.d/x.txt": "t",
	})
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo.yaml"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, problems := read(t, dir)
	if diff := cmp.Diff(show(files("good.yaml", "x", "folder.yaml/x.yaml", "y", "twice/in.yaml", "x", "twice.d/x.txt", "t")), show(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want := []string{
		"abs.yaml: a link that leads out of the policy directory is not followed",
		"big.yaml: larger than 1024 KiB: split the file",
		"fifo.yaml: not a regular file",
		"loop.yaml: a link that leads to too many others",
		"loop2.yaml: a link that leads to too many others",
		"nowhere.yaml: no such file or directory",
		"out.yaml: a link that leads out of the policy directory is not followed",
	}
	if diff := cmp.Diff(want, problems); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

// Policy in files whose names make them cases is not served, and that is told; it is no reason to refuse the rest.
func TestReadFilesWarnsOfPolicyAmongCases(t *testing.T) {
	dir := tree(t, map[string]string{
		"policy.yaml":           "routes: {}",
		"policy_test.yaml":      "# of the policy\ncases:\n  one: {request: GET http://a.test/, expect: {auth: {decision: none}}}\n",
		"a_test.yaml":           "# a test gateway\n\nservices: {}\nroutes: {}\n",
		"teams/load_test.yml":   "cases: {}\nrateLimits: {}\n",
		"teams/broken_test.yml": "routes: {",
		"empty_test.yaml":       "",
		"list_test.yaml":        "[routes]",
		"many_test.yaml":        "cases: {}\n---\nroutes: {}\n",
	})
	files, told := read(t, dir)
	if _, there := files["a_test.yaml"]; there || len(files) != 1 {
		t.Errorf("got the files %v, want the policy alone", show(files))
	}
	want := []string{
		"a_test.yaml:3:1: services: policy in a file of cases is not served",
		"many_test.yaml:3:1: routes: policy in a file of cases is not served",
		"teams/load_test.yml:2:1: rateLimits: policy in a file of cases is not served",
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Error(diff)
	}
	if _, problems := policy.ReadFiles(os.DirFS(dir)); problems.HasErrors() {
		t.Errorf("got errors, want warnings: %v", problems.Err())
	}
}

func TestReadFilesRefusesTooManyFiles(t *testing.T) {
	dir := t.TempDir()
	for i := range 20_001 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.yaml", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, problems := read(t, dir)
	if len(got) > 0 || len(problems) != 1 || problems[0] != ".: more files than a policy directory can have" {
		t.Errorf("got %d files and %v", len(got), problems)
	}
}

func TestReadFilesOfMissingDirectory(t *testing.T) {
	got, problems := policy.ReadFiles(os.DirFS(filepath.Join(t.TempDir(), "gone")))
	if len(got) > 0 || !problems.HasErrors() {
		t.Errorf("got %v, %v; want a problem", got, problems)
	}
}
