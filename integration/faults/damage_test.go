package faults

import (
	"os"
	"path/filepath"
	"strings"
)

// damage flips one bit in the middle of every block of messages that the
// stopped NATS node has.
func damage(w *world, n *node) {
	w.t.Helper()
	flipped := 0
	err := filepath.WalkDir(n.dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".blk") {
			return err
		}
		block, err := os.ReadFile(path)
		if err != nil || len(block) == 0 {
			return err
		}
		block[len(block)/2] ^= 1 << w.rng.IntN(8)
		flipped++
		return os.WriteFile(path, block, 0o600)
	})
	if err != nil {
		w.t.Fatalf("damage %s: %v", n.name, err)
	}
	if flipped == 0 {
		w.t.Fatalf("%s has no blocks to damage", n.name)
	}
	w.stepf("damaged %d blocks of %s", flipped, n.name)
}
