package node

import (
	"fmt"
	"time"

	"sallyport/node/admin"
)

const (
	// defaultHold is how long a portal's connections wait for another path where nothing else was said.
	defaultHold = time.Minute
	// maxHold bounds it: what waits keeps a socket, a place and up to a window of memory.
	maxHold = 24 * time.Hour
)

// holdOf returns how long a portal's connections wait for another path; text is empty for the default, and a time of 0 is not at all.
func holdOf(text string) (time.Duration, error) {
	return boundedTime("--hold", text, defaultHold, maxHold)
}

// boundedTime reads a flag's time from 0 to longest; text is empty for missing.
func boundedTime(flag, text string, missing, longest time.Duration) (time.Duration, error) {
	if text == "" {
		return missing, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > longest {
		return 0, fmt.Errorf("%w: %s %q must be a time from 0s to %v", admin.ErrInvalid, flag, text, longest)
	}
	return d, nil
}
