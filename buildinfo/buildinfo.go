// Package buildinfo says which program this is. The number is here and nowhere else: commands, metrics, manual pages and packages ask for it.
package buildinfo

import (
	"runtime"
	"runtime/debug"

	"sallyport/crypto/aead"
)

// Version is the number of this release, or of the one that this tree becomes; CHANGELOG.md says what it brings.
const Version = "v0.2.0"

// revision is the commit that the program was built from. The linker sets it (Makefile); where that was not so, the go command may have.
var revision = ""

// Revision returns the commit that the program was built from, with "-dirty" where its tree had changes; "unknown" if nothing tells.
func Revision() string {
	if revision != "" {
		return revision
	}
	r, dirty := "unknown", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				r = s.Value[:min(len(s.Value), 12)]
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = "-dirty"
			}
		}
	}
	return r + dirty
}

// Full returns the number and the revision, as a version with build metadata (semver.org): two programs with the same text were built from the
// same source.
func Full() string { return Version + "+" + Revision() }

// Info is all that there is to say of the program.
type Info struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	// AEADKernel is what encrypts with AES-256-GCM on this processor.
	AEADKernel string `json:"aead_kernel"`
}

// Get returns it.
func Get() Info {
	return Info{Version: Version, Revision: Revision(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, AEADKernel: aead.Kernel()}
}
