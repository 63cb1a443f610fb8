package wire

import (
	"errors"
	"fmt"
	"time"
)

// Options say what one direction of a line does. The zero value is a line that only carries.
type Options struct {
	// Delay is the time from one end to the other.
	Delay time.Duration
	// Jitter is the most by which packets take longer. They stay in order.
	Jitter time.Duration
	// Rate is in bits a second; 0 for as fast as it goes.
	Rate float64
	// Queue is how long a packet may wait before it is sent, at most; what would wait longer is lost. It matters with a rate only; 0
	// means 100 ms.
	Queue time.Duration
	// Loss is the share of segments that are lost, 0 to 1, each by itself.
	Loss float64
	// Reorder is the share of segments that come a quarter of the delay, and at least a millisecond, after those behind them.
	Reorder float64
	// Duplicate is the share of segments that come twice.
	Duplicate float64
	// Corrupt is the share of segments of which one bit is wrong, in a way that TCP's checksum does not show.
	Corrupt float64
	// Seed makes other random numbers.
	Seed uint64
}

// ErrOptions reports options that no line can have.
var ErrOptions = errors.New("wire: bad options")

func (o Options) check() error {
	switch {
	case o.Delay < 0 || o.Jitter < 0 || o.Queue < 0:
		return fmt.Errorf("%w: delay %v, jitter %v and queue %v must not be negative", ErrOptions, o.Delay, o.Jitter, o.Queue)
	case o.Rate < 0:
		return fmt.Errorf("%w: rate %v must not be negative", ErrOptions, o.Rate)
	case o.Loss < 0 || o.Loss > 1 || o.Reorder < 0 || o.Reorder > 1:
		return fmt.Errorf("%w: loss %v and reorder %v must be between 0 and 1", ErrOptions, o.Loss, o.Reorder)
	case o.Duplicate < 0 || o.Duplicate > 1 || o.Corrupt < 0 || o.Corrupt > 1:
		return fmt.Errorf("%w: duplicate %v and corrupt %v must be between 0 and 1", ErrOptions, o.Duplicate, o.Corrupt)
	}
	return nil
}

// Counts say what a direction of a line did so far, in segments and bytes of IP.
type Counts struct {
	// Carried and Bytes are what reached the other end; Lost what Loss took, Dropped what found the queue full.
	Carried, Bytes, Lost, Dropped uint64
	// Corrupted is how many had a bit changed.
	Corrupted uint64
	// Queued is the longest time that something waited for the rate.
	Queued time.Duration
}
