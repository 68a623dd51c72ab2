package control

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/legation/legation/policy"
)

// step is well below the quiet period, also on a machine that is busy.
const step = 20 * time.Millisecond

// A change in each of the ways in which files change: the new policy is served, and nothing in between.
func TestChangesAreServedWhole(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		files  map[string]string
		paced  bool // by itself
		change func(t *testing.T, dir string)
	}{
		{
			name: "rename over", files: map[string]string{"policy.yaml": whole(1)},
			change: func(t *testing.T, dir string) { move(t, filepath.Join(dir, "policy.yaml"), whole(2)) },
		},
		{
			name: "truncate and write", files: map[string]string{"policy.yaml": whole(1)},
			change: func(t *testing.T, dir string) { write(t, filepath.Join(dir, "policy.yaml"), whole(2)) },
		},
		{
			// Every line end leaves a policy that could be served: the gateway alone, then with one team, then two.
			name: "steps of 10 bytes", paced: true, files: map[string]string{"policy.yaml": whole(1)},
			change: func(t *testing.T, dir string) {
				f, err := os.Create(filepath.Join(dir, "policy.yaml"))
				must(t, err)
				defer f.Close()
				inSteps(t, f, whole(2)+"# the end of a long file that takes a while to write\n")
			},
		},
		{
			name: "steps of 10 bytes behind what is there", paced: true, files: map[string]string{"policy.yaml": whole(1)},
			change: func(t *testing.T, dir string) {
				f, err := os.OpenFile(filepath.Join(dir, "policy.yaml"), os.O_APPEND|os.O_WRONLY, 0)
				must(t, err)
				defer f.Close()
				inSteps(t, f, "# one line\n# and another\n# and one more\n")
			},
		},
		{
			name: "removal", files: map[string]string{"gateway.yaml": gateway(1), "a.yaml": team("a", 1), "b.yaml": team("b", 1)},
			change: func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "b.yaml"))) },
		},
		{
			name: "new folders with files at once", files: map[string]string{"gateway.yaml": gateway(1), "a.yaml": team("a", 1)},
			change: func(t *testing.T, dir string) {
				write(t, filepath.Join(dir, "teams/west/b.yaml"), team("b", 1))
				write(t, filepath.Join(dir, "teams/west/deep/c.yaml"), team("c", 1))
			},
		},
		{
			name: "file by file", paced: true, files: map[string]string{"gateway.yaml": gateway(1)},
			change: func(t *testing.T, dir string) {
				names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
				pace(t, len(names), step, func(i int) {
					write(t, filepath.Join(dir, "teams", names[i]+".yaml"), team(names[i], 1))
				})
			},
		},
		{
			name: "folder removed and made again", files: map[string]string{"gateway.yaml": gateway(1), "teams/a.yaml": team("a", 1)},
			change: func(t *testing.T, dir string) {
				must(t, os.RemoveAll(filepath.Join(dir, "teams")))
				write(t, filepath.Join(dir, "teams/a.yaml"), team("a", 2))
			},
		},
		{
			name: "folder moved in", files: map[string]string{"gateway.yaml": gateway(1)},
			change: func(t *testing.T, dir string) {
				write(t, filepath.Join(filepath.Dir(dir), "made/a.yaml"), team("a", 1))
				must(t, os.Rename(filepath.Join(filepath.Dir(dir), "made"), filepath.Join(dir, "teams")))
			},
		},
		{
			name: "whole directory swapped", files: map[string]string{"policy.yaml": whole(1)},
			change: func(t *testing.T, dir string) {
				write(t, filepath.Join(dir+".new", "policy.yaml"), whole(2))
				must(t, os.Rename(dir, dir+".old"))
				must(t, os.Rename(dir+".new", dir))
			},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir := tree(t, row.files)
			l := start(t, Options{Dir: dir})
			first := revisionIn(t, dir)
			l.serves(first)
			began := time.Now()
			row.change(t, dir)
			if !row.paced {
				keptPace(t, began)
			}
			second := revisionIn(t, dir)
			l.serves(second)
			l.served(first, second)
		})
	}
}

// inSteps writes 10 bytes at a time.
func inSteps(t *testing.T, w io.Writer, text string) {
	t.Helper()
	parts := slices.Collect(slices.Chunk([]byte(text), 10))
	pace(t, len(parts), step, func(i int) {
		_, err := w.Write(parts[i])
		must(t, err)
	})
}

// A directory that is copied while we start is read when it is whole.
func TestStartAmidACopy(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"gateway.yaml": gateway(1)})
	began := time.Now()
	l := start(t, Options{Dir: dir})
	keptPace(t, began)
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	pace(t, len(names), step, func(i int) { write(t, filepath.Join(dir, names[i]+".yaml"), team(names[i], 1)) })
	want := revisionIn(t, dir)
	l.serves(want)
	l.served(want)
}

// Who points a link at another directory has made that ready: it is read at once. A directory that appears may be one that
// is being filled, and a link may lead nowhere yet.
func TestASwappedLinkIsTakenAtOnce(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	write(t, filepath.Join(top, "1/policy.yaml"), whole(1))
	write(t, filepath.Join(top, "2/policy.yaml"), whole(2))
	current := filepath.Join(top, "current")
	link(t, "1", current)
	w, err := newWatcher(slog.New(slog.DiscardHandler), &watched{dir: current, wanted: policy.Wanted})
	must(t, err)
	defer w.events.Close()
	event := func(op fsnotify.Op, name string) fsnotify.Event {
		return fsnotify.Event{Op: op, Name: filepath.Join(top, name)}
	}
	for _, row := range []struct {
		name, to string
		event    fsnotify.Event
		want     bool
	}{
		{"swapped", "2", event(fsnotify.Create, "current"), true},
		{"swapped back", "1", event(fsnotify.Create, "current"), true},
		{"as it was", "1", event(fsnotify.Create, "current"), false},
		{"to nothing", "3", event(fsnotify.Create, "current"), false},
		{"only touched", "2", event(fsnotify.Chmod, "current"), false},
		{"the directory itself", "1", event(fsnotify.Create, "2"), false},
	} {
		w.watch()
		link(t, row.to, current)
		if got := w.swapped(row.event); got != row.want {
			t.Errorf("%s: got %v, want %v", row.name, got, row.want)
		}
	}
}

// Mounted config maps: every file is a link through ..data, and ..data is pointed at another folder.
func TestConfigMapSwap(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"..1/gateway.yaml": gateway(1), "..1/app.yaml": team("app", 1)})
	link(t, "..1", filepath.Join(dir, "..data"))
	for _, name := range []string{"gateway.yaml", "app.yaml"} {
		link(t, "..data/"+name, filepath.Join(dir, name))
	}
	l := start(t, Options{Dir: dir})
	first := revisionIn(t, dir)
	l.serves(first)
	write(t, filepath.Join(dir, "..2/gateway.yaml"), gateway(2))
	write(t, filepath.Join(dir, "..2/app.yaml"), team("app", 2))
	link(t, "..2", filepath.Join(dir, "..data"))
	must(t, os.RemoveAll(filepath.Join(dir, "..1")))
	second := revisionIn(t, dir)
	l.serves(second)

	write(t, filepath.Join(dir, "..2/app.yaml"), team("app", 3)) // what it leads to now is watched as well
	third := revisionIn(t, dir)
	l.serves(third)
	l.served(first, second, third)
}

// The whole directory is a link, or lies below one, or behind several.
func TestDirectoryBehindLinks(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, dir string }{
		{"the directory itself", "current"},
		{"a folder above it", "app/policy"},
		{"several", "etc/policy"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			top := t.TempDir()
			for i, release := range []string{"1", "2", "3"} {
				write(t, filepath.Join(top, "releases", release, "policy/policy.yaml"), whole(i+1))
			}
			must(t, os.Mkdir(filepath.Join(top, "etc"), 0o755))
			point := func(release string) {
				link(t, "releases/"+release+"/policy", filepath.Join(top, "current"))
				link(t, filepath.Join(top, "releases", release), filepath.Join(top, "app"))
			}
			link(t, "../app/policy", filepath.Join(top, "etc/policy"))
			dir := filepath.Join(top, row.dir)
			var want []string
			point("1")
			l := start(t, Options{Dir: dir})
			for _, release := range []string{"1", "2", "3"} {
				if release != "1" {
					point(release)
				}
				want = append(want, revisionIn(t, dir))
				l.serves(want[len(want)-1])
			}
			write(t, filepath.Join(top, "releases/1/policy/policy.yaml"), whole(7)) // nothing leads here any more
			write(t, filepath.Join(dir, "policy.yaml"), whole(8))
			want = append(want, revisionIn(t, dir))
			l.serves(want[len(want)-1])
			l.served(want...)
		})
	}
}

func TestDirectoryGoesAndComes(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"policy.yaml": whole(1)})
	l := start(t, Options{Dir: dir})
	first := revisionIn(t, dir)
	l.serves(first)

	must(t, os.RemoveAll(dir))
	if o := l.next(); o.Revision != first || o.Changed || !strings.Contains(o.Error, "policy directory") || len(o.Problems) > 0 {
		t.Errorf("without the directory: got %+v, want the first revision and an error", o)
	}
	write(t, filepath.Join(dir, "policy.yaml"), whole(1))
	if o := l.next(); o.Revision != first || o.Changed || o.Error != "" {
		t.Errorf("with the directory again: got %+v, want the first revision and no error", o)
	}
	write(t, filepath.Join(dir, "policy.yaml"), whole(2))
	second := revisionIn(t, dir)
	l.serves(second)
	l.served(first, second)
}

// A directory, and the folder that is to hold it, may come later.
func TestDirectoryComesLater(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	dir := filepath.Join(top, "mnt/policy")
	l := start(t, Options{Dir: dir})
	if o := l.next(); o.Revision != "" || o.Error == "" {
		t.Errorf("without the directory: got %+v, want an error", o)
	}
	write(t, filepath.Join(dir, "policy.yaml"), whole(1))
	want := revisionIn(t, dir)
	l.serves(want)
	l.served(want)
}

// What is written without pause beside the directory or in it, such as a log, does not hold changes up.
func TestNoise(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"../legation.log", "access.log", ".policy.yaml.swp", ".git/index"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tree(t, map[string]string{"policy.yaml": whole(1)})
			write(t, filepath.Join(dir, name), "")
			l := start(t, Options{Dir: dir})
			first := revisionIn(t, dir)
			l.serves(first)
			noise, err := os.OpenFile(filepath.Join(dir, name), os.O_APPEND|os.O_WRONLY, 0)
			must(t, err)
			defer noise.Close()
			write(t, filepath.Join(dir, "policy.yaml"), whole(2))
			second := revisionIn(t, dir)
			for end := time.Now().Add(patience); l.Outcome().Revision != second && time.Now().Before(end); {
				pace(t, 1, step/4, func(int) { _, _ = noise.WriteString("GET / 200\n") })
			}
			l.served(first, second)
		})
	}
}

func TestWayTo(t *testing.T) {
	t.Parallel()
	top, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	must(t, os.MkdirAll(filepath.Join(top, "real/policy"), 0o755))
	for name, target := range map[string]string{
		"relative": "real", "absolute": filepath.Join(top, "real"), "twice": "relative/policy",
		"dangling": "nowhere/policy", "loop": "loop",
	} {
		link(t, target, filepath.Join(top, name))
	}
	for _, row := range []struct{ path, want string }{
		{"real/policy", "real/policy"},
		{"relative/policy", "relative real/policy"},
		{"absolute/policy", "absolute real/policy"},
		{"twice", "twice relative real/policy"},
		{"dangling", "dangling nowhere"},
		{"missing/policy", "missing"},
	} {
		var got []string
		for _, name := range wayTo(filepath.Join(top, row.path)) {
			relative, err := filepath.Rel(top, name)
			must(t, err)
			got = append(got, relative)
		}
		if strings.Join(got, " ") != row.want {
			t.Errorf("%s: got %v, want %s", row.path, got, row.want)
		}
	}
	if got := wayTo(filepath.Join(top, "loop")); len(got) != maxLinks+1 {
		t.Errorf("loop: got %d names, want it to end after %d", len(got), maxLinks+1)
	}
}

// A folder that can't be watched is told once, and found by the poll.
func TestUnwatchableFolderIsToldOnce(t *testing.T) {
	t.Parallel()
	var told strings.Builder
	w, err := newWatcher(slog.New(slog.NewTextHandler(&told, nil)), &watched{dir: t.TempDir(), wanted: policy.Wanted})
	must(t, err)
	must(t, w.events.Close())
	w.watch()
	w.watch()
	if got := strings.Count(told.String(), "can't be watched"); got != 1 {
		t.Errorf("told %d times, want once: %s", got, told.String())
	}
}
