package integration

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestFlags runs the programs with command lines that cannot work: each says
// what is wrong, and ends at once.
func TestFlags(t *testing.T) {
	dir := binaries(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/flags",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", dir)
			return nil
		},
	})
}
