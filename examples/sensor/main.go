// Command sensor is both ends of a measurement: with a NAME it sends a reading each second to the worker "readings/average", which is the same command
// without. The worker hears members alone whose credential says kind=sensor, and answers each with the average of all that it has had.
//
//	TICKET=$(sallyport project ticket --relay readings) go run ./sensor
//	TICKET=$(sallyport project ticket --attribute kind=sensor) go run ./sensor boiler
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/signal"
	"time"

	"sallyport/client"
)

const service = "readings/average"

type reading struct {
	Sensor string
	Value  float64
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	c, err := client.Open(ctx, client.Options{Ticket: os.Getenv("TICKET")})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if len(os.Args) < 2 {
		if _, err := collect(ctx, c); err != nil {
			log.Fatal(err)
		}
		<-ctx.Done()
		return
	}
	for ctx.Err() == nil { // a path that breaks is made anew
		err := measure(ctx, c, os.Args[1], time.Second, func() float64 { return 20 + rand.Float64() }, func(average float64) { fmt.Println(average) })
		log.Print(err)
	}
}

// collect starts the worker. What it keeps is of one goroutine.
func collect(ctx context.Context, c *client.Client) (*client.Worker, error) {
	sum, count := map[string]float64{}, map[string]int{}
	return c.Worker(ctx, service, client.WorkerOptions{Allow: "kind=sensor"}, func(_ context.Context, m *client.Message) {
		var r reading
		if json.Unmarshal(m.Payload, &r) != nil {
			return
		}
		key := m.Peer.Identifier + " " + r.Sensor // a sensor speaks for itself alone
		sum[key] += r.Value
		count[key]++
		m.Answer(fmt.Append(nil, sum[key]/float64(count[key])))
	})
}

// errStopped ends measure when there is nobody to send to any more.
var errStopped = errors.New("no more readings")

// measure sends readings until the path breaks or ctx ends.
func measure(ctx context.Context, c *client.Client, name string, pause time.Duration, read func() float64, average func(float64)) error {
	route, err := c.Route(ctx, service)
	if err != nil {
		return err
	}
	defer route.Close()
	for {
		payload, err := json.Marshal(reading{name, read()})
		if err != nil {
			return err
		}
		asked, cancel := context.WithTimeout(ctx, 5*time.Second)
		answer, err := route.Request(asked, payload)
		cancel()
		if err != nil {
			return err
		}
		var v float64
		if _, err := fmt.Sscan(string(answer.Payload), &v); err != nil {
			return err
		}
		average(v)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return errStopped
		}
	}
}
