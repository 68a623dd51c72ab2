package app

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// state is a process's claim on its data directory.
type state struct {
	dir   string // empty when there is none, or another process has it
	taken bool
	lock  *os.File // nil where there is no claim
}

// claim takes the data directory for this process alone, for as long as it lives: the lock goes with the process,
// however it ends.
func claim(dir string) (state, error) {
	if dir == "" {
		return state{}, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return state{}, fmt.Errorf("--data-dir: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return state{}, fmt.Errorf("--data-dir: %w", err)
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return state{taken: true}, lock.Close()
	}
	if err != nil {
		return state{}, fmt.Errorf("--data-dir: lock %s: %w", lock.Name(), err)
	}
	return state{dir: dir, lock: lock}, nil
}

// file is the path of a file in the directory; empty when there is none.
func (s state) file(name string) string {
	if s.dir == "" {
		return ""
	}
	return filepath.Join(s.dir, name)
}

// release gives the directory up.
func (s state) release() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}
