package docs

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
)

func Example() {
	if err := example(); err != nil {
		fmt.Println(err)
	}
	// Output: HELLO
}

// example is the example of library.md, line by line.
func example() error {
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	loops, err := dataplane.NewGroup(2, log) // two event loops
	if err != nil {
		return err
	}
	defer loops.Stop()
	router, err := routing.NewRouter(loops, log)
	if err != nil {
		return err
	}

	// A worker is a function that one shard calls with one message at a time. This one answers where the message came from.
	shout := routing.WorkerFunc(func(s *routing.Shard, m *routing.Message) {
		m.PopOnward()
		reply := s.NewMessage()
		defer s.Free(reply)
		reply.Onward = m.Return
		reply.SetPayloadBytes(bytes.ToUpper(m.Payload()))
		s.Deliver(reply)
	})
	if err := router.StartNamed(ctx, "shout", func(*routing.Shard) routing.Worker { return shout }); err != nil {
		return err
	}

	reply, err := router.Request(ctx, routing.LocalRoute("shout"), []byte("hello"))
	if err != nil {
		return err
	}
	fmt.Printf("%s\n", reply.Payload)
	return nil
}
