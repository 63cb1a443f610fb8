//go:build !race

package sandbox

import (
	"errors"
	"fmt"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	"github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// confineFiles reports false when the kernel has no landlock.
func confineFiles(writable []string) (bool, error) {
	version, err := syscall.LandlockGetABIVersion()
	if err != nil || version < 1 {
		return false, nil
	}
	var there []string
	files := []string{"/dev/null"}
	for _, path := range writable {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			there = append(there, path)
		} else if err == nil {
			files = append(files, path)
		} else if !errors.Is(err, os.ErrNotExist) {
			return false, fmt.Errorf("sandbox: %w", err)
		}
	}
	err = landlock.V5.BestEffort().RestrictPaths(
		landlock.RODirs("/"), landlock.RWDirs(there...).WithRefer(), landlock.RWFiles(files...),
	)
	if err != nil {
		return false, fmt.Errorf("sandbox: landlock: %w", err)
	}
	return true, nil
}
