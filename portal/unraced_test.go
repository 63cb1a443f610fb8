//go:build !race

package portal

// raced tells that the race detector is on, and everything several times slower.
const raced = false
