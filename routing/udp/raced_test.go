//go:build race

package udp

// raced tells that the race detector is on, and everything several times slower.
const raced = true
