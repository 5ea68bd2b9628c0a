package apitest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const binaryName = "fleetcast-standalone"

// Binary returns the path of the program that is the API server: the one that
// the environment variable FLEETCAST_STANDALONE names, else the one in bin of
// this repository if it is newer than the sources in cmd/standalone, else one it
// builds from them and keeps in the user's cache directory. The first build takes
// minutes.
var Binary = sync.OnceValues(findBinary)

func findBinary() (string, error) {
	if path := os.Getenv("FLEETCAST_STANDALONE"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("FLEETCAST_STANDALONE does not name a program: %w", err)
		}
		return path, nil
	}
	repository, err := findRepository()
	if err != nil {
		return "", err
	}
	sources := filepath.Join(repository, "cmd", "standalone")
	changed, err := lastChange(sources)
	if err != nil {
		return "", err
	}
	if path := filepath.Join(repository, "bin", binaryName); newer(path, changed) {
		return path, nil
	}
	return buildCached(sources, changed)
}

// buildCached builds the program where other test binaries of the same checkout
// find it. Of several that run at once, one builds and the others wait.
func buildCached(sources string, changed time.Time) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache directory: %w", err)
	}
	// Checkouts side by side have different programs.
	dir := filepath.Join(cache, "fleetcast", strings.ReplaceAll(strings.Trim(sources, string(filepath.Separator)), string(filepath.Separator), "-"))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the directory of the program: %w", err)
	}
	path := filepath.Join(dir, binaryName)
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return "", fmt.Errorf("lock %s: %w", dir, err)
	}
	defer unlock()
	if newer(path, changed) {
		return path, nil
	}
	// Others may be running the old program, so the new one takes its name only
	// when it is complete.
	next := path + ".next"
	build := exec.Command("go", "build", "-C", sources, "-o", next, ".")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the API server for the tests: %s: %w\n%s", strings.Join(build.Args, " "), err, output)
	}
	now := time.Now()
	if err := errors.Join(os.Chtimes(next, now, now), os.Rename(next, path)); err != nil {
		return "", fmt.Errorf("keep the program: %w", err)
	}
	return path, nil
}

// findRepository looks for the checkout in the working directory, which for a
// test is that of its package, and in the directories above.
func findRepository() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "cmd", "standalone", "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no cmd/standalone above %s to build the API server from: name one that is built in FLEETCAST_STANDALONE", start)
		}
	}
}

// lastChange returns when a file the program is made of last changed.
func lastChange(sources string) (time.Time, error) {
	var last time.Time
	err := filepath.WalkDir(sources, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(path, "_test.go") {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.ModTime().After(last) {
			last = info.ModTime()
		}
		return nil
	})
	if err != nil {
		return last, fmt.Errorf("look at the API server's sources: %w", err)
	}
	return last, nil
}

func newer(path string, than time.Time) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.ModTime().After(than)
}
