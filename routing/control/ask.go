package control

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"sallyport/routing"
)

var (
	// ErrNoAnswer reports that no answer came: the node has no such service, or the path is lost.
	ErrNoAnswer = errors.New("control: no answer")
	// ErrRefused reports an answer other than StatusOK.
	ErrRefused = errors.New("control: refused")
)

// again is after how long a request is repeated that may have been lost.
const again = time.Second

// repeats is how often.
const repeats = 2

// Ask sends a request to the node at the end of route, which leads through a secure channel, and waits for the answer. What it does not answer in
// ctx is ErrNoAnswer. The answer's status is in its Code; see Message.Err. Not on a shard.
func Ask(ctx context.Context, r *routing.Router, route routing.Route, op Op, f Fields) (Message, error) {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	request := Message{ID: binary.BigEndian.Uint64(id[:]), Code: uint64(op), Fields: f}
	box, err := r.OpenMailbox(ctx, route)
	if err != nil {
		return Message{}, err
	}
	defer box.Close()
	payload, to := request.Append(nil), route.Concat(routing.LocalRoute(Address))
	for sent := 0; ; sent++ {
		if sent <= repeats && (sent == 0 || f.Wait == 0) { // one that waits is not repeated: each would wait
			box.Send(to, payload)
		}
		limit, cancel := context.WithTimeout(ctx, again)
		answer, err := receive(limit, box, request.ID)
		cancel()
		switch {
		case err == nil:
			return answer, nil
		case ctx.Err() != nil:
			return Message{}, fmt.Errorf("%w: %w", ErrNoAnswer, ctx.Err())
		}
	}
}

func receive(ctx context.Context, box *routing.Mailbox, id uint64) (Message, error) {
	for {
		reply, err := box.Receive(ctx)
		if err != nil {
			return Message{}, err
		}
		if m, err := Parse(reply.Payload); err == nil && m.Answer && m.ID == id {
			return m, nil
		}
	}
}

// Err is nil for an answer with StatusOK, else it matches ErrRefused and names the status.
func (m *Message) Err() error {
	if m.Code == uint64(StatusOK) {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrRefused, Status(m.Code))
}
