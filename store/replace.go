package store

import (
	"errors"
	"os"
	"path/filepath"
)

// replaced has a new file take the place of that of a path, once it holds what write writes and that is on the disk: who
// reads the path finds one of the two, whole. It is left open.
func replaced(path string, write func(*os.File) error) (*os.File, error) {
	name := path + ".new"
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err = write(file); err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = os.Rename(name, path)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close(), os.Remove(name))
	}
	syncFolder(filepath.Dir(path))
	return file, nil
}

// syncFolder makes a renaming outlast a power failure, where the file system can.
func syncFolder(name string) {
	if folder, err := os.Open(name); err == nil {
		_ = folder.Sync()
		_ = folder.Close()
	}
}
