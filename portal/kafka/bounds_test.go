package kafka

import (
	"errors"
	"testing"
	"time"
)

// TestNothingIsReadAfterAFault: a message in which something is wrong is not read further, and the first fault is the one that is told.
func TestNothingIsReadAfterAFault(t *testing.T) {
	r := &rewriter{in: []byte{1, 2, 3, 4}}
	if b := r.take(2); len(b) != 2 || r.fault != nil {
		t.Fatalf("%d bytes, %v", len(b), r.fault)
	}
	if r.take(3) != nil || !errors.Is(r.fault, ErrMessage) {
		t.Fatalf("more than there is: %v", r.fault)
	}
	first := r.fault
	if b := r.take(1); b != nil || r.fault != first {
		t.Errorf("read %d bytes behind the fault, which is %v", len(b), r.fault)
	}
	if r := (&rewriter{in: []byte{1}}); r.take(-1) != nil || r.take(1) != nil || r.fault == nil {
		t.Error("read behind a length below nothing")
	}
}

// TestReadersDefaults: how long a reader is waited for is bounded also where nobody has said how.
func TestReadersDefaults(t *testing.T) {
	if r := newReaders(InletOptions{}); r.opts.Linger != DefaultLinger || r.opts.Idle != DefaultIdle {
		t.Errorf("%v, %v", r.opts.Linger, r.opts.Idle)
	}
	if r := newReaders(InletOptions{Linger: time.Second, Idle: time.Minute}); r.opts.Linger != time.Second || r.opts.Idle != time.Minute {
		t.Errorf("%v, %v", r.opts.Linger, r.opts.Idle)
	}
}
