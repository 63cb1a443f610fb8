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
	for _, dir := range writable {
		if _, err := os.Stat(dir); err == nil {
			there = append(there, dir)
		} else if !errors.Is(err, os.ErrNotExist) {
			return false, fmt.Errorf("sandbox: %w", err)
		}
	}
	err = landlock.V5.BestEffort().RestrictPaths(
		landlock.RODirs("/"), landlock.RWDirs(there...).WithRefer(), landlock.RWFiles("/dev/null"),
	)
	if err != nil {
		return false, fmt.Errorf("sandbox: landlock: %w", err)
	}
	return true, nil
}
