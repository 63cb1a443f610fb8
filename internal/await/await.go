// Package await is what tests wait with: for what comes by itself, for a time that no machine is too busy for.
package await

import (
	"context"
	"testing"
	"time"
)

// Times that only a fault comes to.
const (
	patience = 90 * time.Second
	longest  = 3 * time.Minute
)

// Context returns a context that ends before the test binary's own limit does, and with the test.
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	t.Cleanup(cancel)
	return ctx
}

// True waits until ok says so. what is what does not come if it never does.
func True(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	for pause := time.Millisecond; !ok(); pause = min(2*pause, 20*time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time: " + what)
		}
		time.Sleep(pause)
	}
}

// Success waits until f does not fail; if it always does, the test ends with what it said last.
func Success(t testing.TB, f func() error) {
	t.Helper()
	var err error
	end := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		if err = f(); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		time.Sleep(pause)
	}
}
