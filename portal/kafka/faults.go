package kafka

import (
	"errors"
	"fmt"
)

// Kafka's error codes, as clients know them.
const (
	codeCorrupt            = 2  // retriable for producers; consumers tell their program
	codeTooLarge           = 10 // producers split the batch, or give up
	codeNotEnoughReplicas  = 19 // retriable: nothing was appended
	codeUnsupportedVersion = 35
	codeOldFormat          = 43
	codeCompression        = 76
	codeInvalidRecord      = 87 // final
	codeUnknownTopicID     = 100
)

// fault is an error for which clients have a code.
type fault struct {
	code int16
	err  error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// coded makes an error that clients are told with a code.
func coded(code int16, format string, args ...any) error {
	return &fault{code: code, err: fmt.Errorf(format, args...)}
}

// produceCode is what a producer is told about records that cannot be sent on. Without a code of its own an error is one that may pass,
// such as a consumer that is not there yet.
func produceCode(err error) int16 {
	var f *fault
	switch {
	case errors.As(err, &f):
		return f.code
	case errors.Is(err, ErrTooLarge):
		return codeTooLarge
	case errors.Is(err, ErrMessage):
		return codeCorrupt
	}
	return codeNotEnoughReplicas
}
