// Package names finds the addresses of a host's name and tries them: all of them, in the order of RFC 6724, the families in turn, each
// next one when the last has failed or has had a quarter of a second (RFC 8305, "Happy Eyeballs").
//
// Whoever connects to a name uses this package: on goroutines with Dial and Race, on an event loop with Lookup and dataplane.Loop.DialAny.
package names
