// Package node assembles a node: it starts event loops, transports, services, secure channels and portals from an Options
// value, watches and re-makes what breaks, remembers what was created, and answers its owner on a Unix socket.
package node
