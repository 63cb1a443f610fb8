package kafka

import (
	"fmt"
	"strings"
	"sync"

	"sallyport/portal/interceptor"
)

// tokens follows the log-in of clients from before Kafka 1.0. Behind a SaslHandshake of version 0 client and broker exchange the tokens of the
// mechanism as they are, with a length and without a header (KIP-43).
type tokens struct {
	mu     sync.Mutex
	rounds int // of the mechanism that was asked for
	up     int // tokens of the client that are still to come
	down   int // and those of the broker
}

// handshake reads a request of version 0. How many tokens there are has to be known, since what follows are requests again.
func (s *tokens) handshake(message []byte, h header) error {
	r := request(message, h)
	mechanism := string(r.text())
	if _, err := r.done(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case mechanism == "PLAIN", mechanism == "OAUTHBEARER":
		s.rounds = 1
	case strings.HasPrefix(mechanism, "SCRAM-"):
		s.rounds = 2
	default:
		return fmt.Errorf("%w: SASL mechanism %.40q in the way of clients before Kafka 1.0", ErrRefused, mechanism)
	}
	return nil
}

// accepted reads the response: without an error the tokens follow.
func (s *tokens) accepted(message []byte, h header) error {
	r := response(message, h)
	code := r.int16()
	if _, err := r.rest(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if code == 0 {
		s.up, s.down = s.rounds, s.rounds
	}
	return nil
}

// pass passes the next token on, of the client or of the broker; taken is false when none is to come.
func (s *tokens) pass(b []byte, client bool) (step interceptor.Step, n int, taken bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := &s.down
	if client {
		left = &s.up
	}
	if *left == 0 {
		return interceptor.Wait, 0, false, nil
	}
	whole, err := frame(b, 0)
	if err != nil || whole == 0 {
		return interceptor.Wait, 0, true, err
	}
	*left--
	return interceptor.Pass, whole, true, nil
}
