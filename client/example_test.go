package client_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"time"

	"sallyport/client"
	"sallyport/internal/testproject"
)

// tickets starts a project for the examples, as `sallyport project create` does, and makes tickets for a server and a client.
func tickets(ctx context.Context) (forServer, forClient string, end func() error) {
	p, err := testproject.Start(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	if forServer, err = p.Ticket(ctx, map[string]string{"ockam-relay": "*"}, 1); err != nil {
		log.Fatal(err)
	}
	if forClient, err = p.Ticket(ctx, map[string]string{"company": "acme"}, 1); err != nil {
		log.Fatal(err)
	}
	return forServer, forClient, p.Close
}

// A web service without a port, and a client of it.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	forServer, forClient, end := tickets(ctx)
	defer end()

	server, err := client.Open(ctx, client.Options{Ticket: forServer, InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	listener, err := server.Listen(ctx, "api")
	if err != nil {
		log.Fatal(err)
	}
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello over "+r.Host)
	}))

	c, err := client.Open(ctx, client.Options{Ticket: forClient, InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	web := http.Client{Transport: &http.Transport{DialContext: c.DialContext, DisableKeepAlives: true}}
	answer, err := web.Get("http://api/")
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	fmt.Printf("%s\n", text)
	// Output: hello over api
}

// A worker with state, which hears members of one company only.
func ExampleClient_Worker() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	forServer, forClient, end := tickets(ctx)
	defer end()

	server, err := client.Open(ctx, client.Options{Ticket: forServer, InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	count := 0 // of one goroutine: no lock
	counter := func(_ context.Context, m *client.Message) {
		count++
		m.Answer(fmt.Appendf(nil, "%s of %s was number %d", m.Payload, m.Peer.Attributes["company"], count))
	}
	if _, err := server.Worker(ctx, "counters/one", client.WorkerOptions{Allow: "company=acme"}, counter); err != nil {
		log.Fatal(err)
	}

	c, err := client.Open(ctx, client.Options{Ticket: forClient, InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	route, err := c.Route(ctx, "counters/one")
	if err != nil {
		log.Fatal(err)
	}
	defer route.Close()
	for _, text := range []string{"first", "second"} {
		answer, err := route.Request(ctx, []byte(text))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", answer.Payload)
	}
	// Output:
	// first of acme was number 1
	// second of acme was number 2
}
