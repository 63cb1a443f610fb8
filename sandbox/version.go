package sandbox

import "github.com/landlock-lsm/go-landlock/landlock/syscall"

func landlockVersion() (int, error) { return syscall.LandlockGetABIVersion() }
