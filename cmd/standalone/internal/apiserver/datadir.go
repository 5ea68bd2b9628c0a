package apiserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

// ErrInUse says that another process runs a server on the data directory.
var ErrInUse = errors.New("the data directory is in use by another process")

// lastRun is what a data directory keeps from one run to the next beside the
// objects and the keys.
type lastRun struct {
	Port    int     `json:"port,omitempty"`
	Profile Profile `json:"apis,omitempty"`
}

type dataDir struct {
	path       string
	lock       *fileutil.LockedFile
	remembered lastRun
}

// openDataDir makes the directory if it is not there, and holds it until close
// or the end of the process, however that comes.
func openDataDir(path string) (*dataDir, error) {
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
	d := &dataDir{path: path, lock: lock}
	content, err := os.ReadFile(d.lastRunPath())
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		d.close()
		return nil, fmt.Errorf("read the settings of the last run: %w", err)
	default:
		if err := json.Unmarshal(content, &d.remembered); err != nil {
			d.close()
			return nil, fmt.Errorf("read the settings of the last run in %s: %w", d.lastRunPath(), err)
		}
	}
	return d, nil
}

func (d *dataDir) lastRunPath() string { return filepath.Join(d.path, "apiserver.json") }

func (d *dataDir) remember(r lastRun) error {
	if r == d.remembered {
		return nil
	}
	content, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the settings of this run: %w", err)
	}
	if err := replaceFile(d.lastRunPath(), append(content, '\n')); err != nil {
		return err
	}
	d.remembered = r
	return nil
}

// close lets others have the directory. The lock file stays: removing it would
// let two processes lock two files of one name.
func (d *dataDir) close() { _ = d.lock.Close() }
