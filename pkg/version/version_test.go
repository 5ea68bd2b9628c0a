package version

import (
	"runtime/debug"
	"testing"
)

func TestDescribe(t *testing.T) {
	setting := func(k, v string) debug.BuildSetting { return debug.BuildSetting{Key: k, Value: v} }
	for name, tc := range map[string]struct {
		reason                  string
		release                 string
		build                   *debug.BuildInfo
		wantVersion, wantCommit string
	}{
		"nothing known": {
			reason:      "a binary without build information still has a version to print",
			wantVersion: "devel",
		},
		"release": {
			reason:      "the linker's word wins over the module's",
			release:     "v1.2.3",
			build:       &debug.BuildInfo{Main: debug.Module{Version: "v0.0.1"}, Settings: []debug.BuildSetting{setting("vcs.revision", "abc")}},
			wantVersion: "v1.2.3", wantCommit: "abc",
		},
		"installed": {
			reason:      "go install of a version sets no linker flags",
			build:       &debug.BuildInfo{Main: debug.Module{Version: "v0.4.0"}},
			wantVersion: "v0.4.0",
		},
		"changed tree": {
			reason:      "a build with local changes must not pass for the commit",
			build:       &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: []debug.BuildSetting{setting("vcs.modified", "true"), setting("vcs.revision", "abc")}},
			wantVersion: "devel", wantCommit: "abc-dirty",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := describe(tc.release, tc.build)
			if got.Version != tc.wantVersion || got.Commit != tc.wantCommit {
				t.Errorf("%s: got %q %q, want %q %q", tc.reason, got.Version, got.Commit, tc.wantVersion, tc.wantCommit)
			}
		})
	}
}
