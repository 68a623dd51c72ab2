package control

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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

// watcher tells when the policy directory may have changed.
type watcher struct {
	dir    string
	events *fsnotify.Watcher
}

func newWatcher(dir string) (*watcher, error) {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	return &watcher{dir: dir, events: events}, nil
}

// add watches every folder below the directory, and the one that holds it: that is where the whole directory is
// swapped. Folders are watched, not files, since a file that is replaced takes its watch with it.
func (w *watcher) add() {
	_ = w.events.Add(filepath.Dir(filepath.Clean(w.dir)))
	root, err := filepath.EvalSymlinks(w.dir)
	if err != nil {
		return // it is not there yet; its parent's events and the poll find it
	}
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = w.events.Add(path)
		}
		return nil
	})
	if root != filepath.Clean(w.dir) {
		_ = w.events.Add(w.dir)
	}
}

// run calls changed once the directory has rested after an event, and at every poll, until ctx ends.
func (w *watcher) run(ctx context.Context, changed func()) error {
	defer w.events.Close()
	w.add()
	rest := time.NewTimer(0) // the first read; what changed since the caller's own read is found by it
	ticker := time.NewTicker(poll)
	defer rest.Stop()
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.events.Events:
			if !ok {
				return fmt.Errorf("watch %s: the watch ended", w.dir)
			}
			if e.Op != fsnotify.Chmod {
				w.rewatch(e)
				rest.Reset(quiet)
			}
		case <-w.events.Errors: // an overflow: events were lost, so look
			rest.Reset(quiet)
		case <-rest.C:
			w.add()
			changed()
		case <-ticker.C:
			w.add()
			changed()
		}
	}
}

// rewatch adds a folder as soon as it appears, so that what is written into it next is seen.
func (w *watcher) rewatch(e fsnotify.Event) {
	if !e.Has(fsnotify.Create) {
		return
	}
	if info, err := os.Stat(e.Name); err == nil && info.IsDir() {
		w.add()
	}
}
