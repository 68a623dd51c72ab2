package control

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// quiet is how long the directory has to rest before it is read: files that are written in place, or copied one by
	// one, are then whole.
	quiet = 150 * time.Millisecond
	// poll finds changes that no event tells of, as on network file systems.
	poll = 30 * time.Second
)

// watcher tells when one of several directories may have changed.
type watcher struct {
	roots  []*watched
	log    *slog.Logger
	events *fsnotify.Watcher
	read   bool // the directories were read once
	blind  bool // some folder can't be watched; told once
}

// watched is a directory with all below it.
type watched struct {
	dir    string                 // absolute
	wanted func(name string) bool // which files count, by their names without the folder
	way    []string               // the links that lead to the directory, and last where it stands, or would
}

func newWatcher(log *slog.Logger, roots ...*watched) (*watcher, error) {
	for _, r := range roots {
		absolute, err := filepath.Abs(r.dir)
		if err != nil {
			return nil, fmt.Errorf("watch %s: %w", r.dir, err)
		}
		r.dir = absolute
	}
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", roots[0].dir, err)
	}
	return &watcher{roots: roots, log: log, events: events}, nil
}

// run calls changed as soon as the directories rest, and each time they have rested after an event or a poll, until ctx
// ends. A directory that is being copied when we start is thus not read half-way either.
func (w *watcher) run(ctx context.Context, changed func()) error {
	defer w.events.Close()
	rest := time.NewTimer(0)
	unrest := time.Now() // since when it has not rested; zero while it does
	ticker := time.NewTicker(poll)
	defer rest.Stop()
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.events.Events:
			if !ok {
				return fmt.Errorf("watch %s: the watch ended", w.roots[0].dir)
			}
			if !w.concerns(e) {
				continue
			}
			if unrest.IsZero() && w.read && w.swapped(e) { // in one step, by somebody who has made the other one ready
				w.watch()
				changed()
				continue
			}
			w.follow(e)
			if unrest.IsZero() {
				unrest = time.Now()
			}
			if time.Since(unrest) < poll { // one that never rests is read all the same, some time
				rest.Reset(quiet)
			}
		case <-w.events.Errors: // an overflow: events were lost, so look
			rest.Reset(quiet)
		case <-ticker.C:
			rest.Reset(quiet)
		case <-rest.C:
			w.watch()
			if wait := w.unrested(); wait > 0 {
				rest.Reset(wait)
				continue
			}
			changed()
			unrest, w.read = time.Time{}, true
		}
	}
}

// at is where the directory stands.
func (r *watched) at() string { return r.way[len(r.way)-1] }

// watch watches every folder below the directories, and those in which a directory, or a link on the way to it, can be
// swapped. Folders are watched, not files, since a file that is replaced takes its watch with it. All watches are made
// anew: those of folders that have moved go by their old names.
func (w *watcher) watch() {
	for _, path := range w.events.WatchList() {
		_ = w.events.Remove(path)
	}
	for _, r := range w.roots {
		r.way = wayTo(r.dir)
		for _, name := range r.way {
			w.add(filepath.Dir(name))
		}
		w.addBelow(r.at())
	}
}

// addBelow watches a folder and all below it.
func (w *watcher) addBelow(folder string) {
	_ = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() { // else not there yet, or gone already: the events of its parent tell
			w.add(path)
		}
		return nil
	})
}

// unrested is how long what stands in the directories still has to rest.
func (w *watcher) unrested() (wait time.Duration) {
	for _, r := range w.roots {
		wait = max(wait, w.unrestedBelow(r))
	}
	return wait
}

func (w *watcher) unrestedBelow(r *watched) (wait time.Duration) {
	_ = filepath.WalkDir(r.at(), func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		// A folder changes with every name in it, wanted or not: its time only tells of a copy that was under way when
		// we started.
		if d.IsDir() && w.read || !d.IsDir() && !r.wanted(d.Name()) {
			return nil
		}
		if info, err := d.Info(); err == nil {
			if age := time.Since(info.ModTime()); age >= 0 { // a clock that is ahead of ours holds nothing up
				wait = max(wait, quiet-age)
			}
		}
		return nil
	})
	return wait
}

func (w *watcher) add(folder string) {
	if err := w.events.Add(folder); err != nil && !os.IsNotExist(err) && !w.blind {
		w.blind = true
		w.log.Warn("folder can't be watched: its changes are found later", "folder", folder, "error", err, "poll", poll)
	}
}

// concerns tells whether an event has to do with a directory of ours.
func (w *watcher) concerns(e fsnotify.Event) bool {
	return slices.ContainsFunc(w.roots, func(r *watched) bool { return r.concerns(e) })
}

// concerns tells whether an event has to do with the directory: the folders that hold it, or a link to it, are full of
// what has not, such as a log that grows all the time; and so may be the directory itself.
func (r *watched) concerns(e fsnotify.Event) bool {
	if slices.ContainsFunc(r.way, func(on string) bool { return e.Name == on || e.Name == filepath.Dir(on) }) {
		return true
	}
	if !strings.HasPrefix(e.Name, r.at()+"/") {
		return false
	}
	name := filepath.Base(e.Name)
	// A folder, or a link to one: no ending, and ..data in mounted config maps.
	folder := filepath.Ext(name) == "" || strings.HasPrefix(name, "..")
	return r.wanted(name) || folder && e.Op != fsnotify.Write
}

// swapped tells whether a link on the way to a directory leads elsewhere by now.
func (w *watcher) swapped(e fsnotify.Event) bool {
	return e.Has(fsnotify.Create) && slices.ContainsFunc(w.roots, func(r *watched) bool {
		i := slices.Index(r.way, e.Name)
		if i < 0 || i == len(r.way)-1 {
			return false // the directory itself: it may be new, and empty
		}
		now := wayTo(r.dir)
		_, err := os.Stat(now[len(now)-1])
		return err == nil && !slices.Equal(now, r.way)
	})
}

// follow watches a folder as soon as it appears, so that what is written into it next is seen.
func (w *watcher) follow(e fsnotify.Event) {
	for _, r := range w.roots {
		if slices.Contains(r.way, e.Name) {
			w.watch()
			return
		}
	}
	info, err := os.Lstat(e.Name)
	if err != nil || !info.IsDir() || !e.Has(fsnotify.Create) {
		return
	}
	for _, r := range w.roots {
		if strings.HasPrefix(e.Name, r.at()+"/") {
			w.addBelow(e.Name)
		}
	}
}

// maxLinks is how many links may lead to the directory, as for the kernel.
const maxLinks = 40

// wayTo follows the links in an absolute path, and returns them, and last where they lead: the name of a directory, or
// the first one that is missing.
func wayTo(path string) (way []string) {
	at, rest := "/", strings.Split(path, "/")
	for len(rest) > 0 {
		next := filepath.Join(at, rest[0])
		rest = rest[1:]
		target, err := os.Readlink(next)
		switch {
		case err == nil && len(way) < maxLinks:
			way = append(way, next)
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = append(strings.Split(target, "/"), rest...)
		case os.IsNotExist(err):
			return append(way, next)
		default:
			at = next // not a link
		}
	}
	return append(way, at)
}
