package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"sallyport/examples/internal/members"
	"sallyport/internal/testproject"
)

// TestSensors: two sensors get their own averages through the relay, and who is no sensor gets nothing.
func TestSensors(t *testing.T) {
	p, err := testproject.Start(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	worker := members.Open(t.Context(), t, p, map[string]string{"ockam-relay": "readings"})
	w, err := collect(t.Context(), worker)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for k := range 2 {
		sensor := members.Open(t.Context(), t, p, map[string]string{"kind": "sensor"})
		ctx, stop := context.WithTimeout(t.Context(), 90*time.Second)
		value, last := 0.0, 0.0
		err := measure(ctx, sensor, "boiler", time.Millisecond, func() float64 { value += 2 + float64(k); return value }, func(v float64) {
			if last = v; value >= 10*(2+float64(k)) {
				stop()
			}
		})
		if want := 5.5 * (2 + float64(k)); !errors.Is(err, errStopped) || last != want {
			t.Errorf("sensor %d: average %v, want %v; %v", k, last, want, err)
		}
		stop()
	}
	stranger := members.Open(t.Context(), t, p, nil)
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	if err := measure(ctx, stranger, "boiler", 0, func() float64 { return 1 }, func(float64) { t.Error("a stranger was answered") }); err == nil {
		t.Error("no error")
	}
}
