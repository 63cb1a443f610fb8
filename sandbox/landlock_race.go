//go:build race

package sandbox

// confineFiles does nothing under the race detector: programs that are built with it use cgo, landlock's library then brings C code to
// reach all threads, and with that in the program the detector crashes when a node ends.
func confineFiles([]string) (bool, error) { return false, nil }
