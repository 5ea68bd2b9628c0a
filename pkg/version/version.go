// Package version says which build of the project is running.
package version

import (
	"cmp"
	"runtime"
	"runtime/debug"
)

// Version is the release, such as v1.2.3. Release builds set it with
//
//	-ldflags "-X github.com/fleetcast-io/fleetcast/pkg/version.Version=v1.2.3"
//
// Other builds leave it empty; [Get] then asks the build information.
var Version string

// Info describes a build.
type Info struct {
	// Version is the release, the module version of a go install, or "devel".
	Version string `json:"version"`
	// Commit is the revision built from, with "-dirty" after it if the tree had
	// changes. It is empty for a build outside a checkout.
	Commit   string `json:"commit,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Get returns what is known about this build.
func Get() Info {
	build, _ := debug.ReadBuildInfo()
	return describe(Version, build)
}

func describe(release string, build *debug.BuildInfo) Info {
	info := Info{
		Version:  release,
		Go:       runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if build != nil {
		if v := build.Main.Version; v != "(devel)" {
			info.Version = cmp.Or(info.Version, v)
		}
		dirty := false
		for _, s := range build.Settings {
			switch s.Key {
			case "vcs.revision":
				info.Commit = s.Value
			case "vcs.modified":
				dirty = s.Value == "true"
			}
		}
		if dirty && info.Commit != "" {
			info.Commit += "-dirty"
		}
	}
	info.Version = cmp.Or(info.Version, "devel")
	return info
}

// String is one line for people and logs.
func (i Info) String() string {
	s := i.Version
	if i.Commit != "" {
		s += " (" + i.Commit + ")"
	}
	return s + " " + i.Go + " " + i.Platform
}
