// Package client makes a Go program a member of a project: it dials services of other members, and serves its own, without a port, a sidecar or a
// change of the network. Connections are net.Conn and listeners net.Listener, so what speaks TCP works with them: net/http, gRPC, database drivers.
// They are encrypted and authenticated from end to end, whatever relay they go through, and each end knows who the other is (PeerOf).
//
// Use it where the program is yours and written in Go. For any other program run the command line beside it (sallyport tcp-inlet, tcp-outlet): both
// interoperate, since a Client is a node like any other.
//
// A Client keeps no state outside itself and its Directory; a program may have several. Close ends all that it started.
//
// # Names
//
// A service is named RELAY or RELAY/OUTLET: the relay of the project under which its node is registered, and the outlet there, "outlet" if it is left out.
// So Dial(ctx, "postgres") reaches what `sallyport relay create postgres` and `sallyport tcp-outlet create --to 5432` serve, and what another
// program's Listen(ctx, "postgres") serves. A name that begins with a slash is a whole route, as of `tcp-inlet create --to`. Without a project a
// listener's name is that of its outlet alone.
//
// # Ends
//
// Conn.CloseWrite ends one direction, as of TCP. A stream that was broken off never ends as if it were whole: Read returns an error that matches one of
// those of this package. A path that breaks for less than Options.Hold is not noticed.
//
// Listener.Close leaves accepted connections open, so a server can be shut down gracefully. Client.Close breaks open ones off, and gives those that were closed a
// moment to bring the other end what was written.
package client
