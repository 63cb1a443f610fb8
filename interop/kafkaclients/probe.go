// Command kafkaclients is the Go clients of the Kafka suite (interop/kafka-clients).
//
// usage: kafkaclients franz|kafka-go BOOTSTRAP ACTION ARGUMENT... [KEY=VALUE]...
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// client does what is asked for with one library.
type client interface {
	produce(topic string, n, size int, compression string) error
	consume(topic string, n int, group string) error
	transact(topic string, n int) error
	// paced produces a record every few milliseconds.
	paced(topic string, n int) error
	large(topic string, size int) error
	admin(topic, host string) error
}

// unsupported is what a library cannot do.
type unsupported struct{}

func (unsupported) Error() string { return "unsupported by this client" }

func main() {
	var args []string
	extra := map[string]string{}
	for _, a := range os.Args[1:] {
		if k, v, found := strings.Cut(a, "="); found {
			extra[k] = v
		} else {
			args = append(args, a)
		}
	}
	if len(args) < 5 {
		fmt.Fprintln(os.Stderr, "usage: kafkaclients franz|kafka-go BOOTSTRAP ACTION TOPIC ARGUMENT...")
		os.Exit(2)
	}
	var c client
	switch args[0] {
	case "franz":
		c = &franz{args[1], extra}
	case "kafka-go":
		c = &kafkaGo{args[1], extra}
	}
	topic, rest := args[3], args[4:]
	n, _ := strconv.Atoi(rest[0])
	var err error
	switch args[2] {
	case "produce":
		size, _ := strconv.Atoi(rest[1])
		err = c.produce(topic, n, size, rest[2])
	case "consume":
		err = c.consume(topic, n, rest[1])
	case "transact":
		err = c.transact(topic, n)
	case "paced":
		err = c.paced(topic, n)
	case "large":
		err = c.large(topic, n)
	case "admin":
		err = c.admin(topic, rest[0])
	default:
		look, ok := c.(*franz)
		if !ok {
			err = unsupported{}
			break
		}
		err = look.look(args[2], topic, n)
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
}

// pace is the pause between records that are to take a while.
const pace = 30 * time.Millisecond

func value(tag string, i, size int) []byte {
	v := fmt.Sprintf("%s-%d-", tag, i)
	return []byte(v + strings.Repeat("secret ", max(size-len(v), 0)/7+1))
}

// seen gathers what was consumed.
type seen struct {
	values map[string]bool
	bytes  int
}

func (s *seen) add(v []byte) {
	if s.values == nil {
		s.values = map[string]bool{}
	}
	s.bytes += len(v)
	parts := strings.SplitN(string(v), "-", 3)
	if len(parts) < 3 {
		s.values["unreadable"] = true
		return
	}
	s.values[parts[0]+"-"+parts[1]] = true
}

func (s *seen) report(n int) error {
	fmt.Printf("consumed %d different values, %d bytes\n", len(s.values), s.bytes)
	if len(s.values) != n || s.values["unreadable"] {
		return fmt.Errorf("wanted %d", n)
	}
	return nil
}

// authorities returns what TLS is checked with, nil without TLS.
func authorities(extra map[string]string) *tls.Config {
	pem, err := os.ReadFile(extra["ssl.ca.location"])
	if err != nil {
		return nil
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: roots}
}
