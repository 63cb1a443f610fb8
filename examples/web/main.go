// Command web serves HTTP without a port: members of the project reach it as the service "api", by a program that uses the library or through
// `sallyport tcp-inlet create --via api`. It says to each who it is.
//
//	TICKET=$(sallyport project ticket --relay api) go run ./web
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"

	"sallyport/client"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	c, err := client.Open(ctx, client.Options{Ticket: os.Getenv("TICKET")})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if err := serve(ctx, c); err != nil {
		log.Fatal(err)
	}
}

type peerKey struct{}

// serve serves until ctx ends.
func serve(ctx context.Context, c *client.Client) error {
	l, err := c.Listen(ctx, "api")
	if err != nil {
		return err
	}
	srv := &http.Server{
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			peer, _ := client.PeerOf(conn)
			return context.WithValue(ctx, peerKey{}, peer)
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			peer := r.Context().Value(peerKey{}).(client.Peer)
			fmt.Fprintf(w, "hello %s of %s\n", peer.Identifier, peer.Attributes["company"])
		}),
	}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	if err := srv.Serve(l); err != http.ErrServerClosed {
		return err
	}
	return nil
}
