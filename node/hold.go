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
	if text == "" {
		return defaultHold, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxHold {
		return 0, fmt.Errorf("%w: --hold %q must be a time from 0s to %v", admin.ErrInvalid, text, maxHold)
	}
	return d, nil
}
