// Package datadir holds the directory in which one process keeps its state.
package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

// ErrInUse says that another process has the directory.
var ErrInUse = errors.New("the data directory is in use by another process")

// A Dir is a directory that no other process opens until Close or the end of
// this process, however that comes.
type Dir struct {
	path string
	lock *fileutil.LockedFile
}

// Open takes the directory, which it makes if it is not there. The error matches
// ErrInUse if another process has it.
func Open(path string) (*Dir, error) {
	if path == "" {
		return nil, errors.New("no data directory was named")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("resolve the data directory: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	lock, err := fileutil.TryLockFile(filepath.Join(path, "lock"), os.O_WRONLY|os.O_CREATE, 0o600)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, fmt.Errorf("%s: %w; end that process first, or choose another directory", path, ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	return &Dir{path: path, lock: lock}, nil
}

// Close lets others have the directory. The lock file stays: removing it would
// let two processes lock two files of one name.
func (d *Dir) Close() { _ = d.lock.Close() }

// Path returns the absolute path of a file in the directory.
func (d *Dir) Path(names ...string) string {
	return filepath.Join(append([]string{d.path}, names...)...)
}

// Recall reads what Remember wrote under name, in this run or an earlier one. It
// leaves value as it is if there is nothing.
func (d *Dir) Recall(name string, value any) error {
	path := d.Path(name + ".json")
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(content, value)
	}
	if err != nil {
		return fmt.Errorf("read the settings of the last run in %s: %w", path, err)
	}
	return nil
}

// Remember keeps value under name for the next run.
func (d *Dir) Remember(name string, value any) error {
	content, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode the settings of this run: %w", err)
	}
	return WriteFile(d.Path(name+".json"), append(content, '\n'))
}

// WriteFile writes a file that readers see either as it was or complete, and
// that only this user may read.
func WriteFile(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(content)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
