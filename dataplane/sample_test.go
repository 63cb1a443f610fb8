package dataplane

import (
	"context"
	"log/slog"
	"testing"
	"time"
)

// TestSample: a loop that is busy with something shows how long others wait for it, and answers again afterwards.
func TestSample(t *testing.T) {
	g, err := NewGroup(2, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Stop()
	begun, hold := make(chan struct{}), make(chan struct{})
	g.Loop(1).Post(TaskFunc(func() {
		close(begun)
		<-hold
	}))
	<-begun
	g.Loop(1).Post(TaskFunc(func() {}))
	const wait = 2 * time.Second // one that is only slow answers in that time
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	s := g.Sample(ctx)
	if s[0].LongestTurn < 0 || s[0].Lag >= wait && s[0].LongestTurn == 0 || s[1].LongestTurn != -1 || s[1].Lag < wait || s[1].Inbox != 1 {
		t.Errorf("%+v", s)
	}
	close(hold)
	s = g.Sample(context.Background())
	if s[1].LongestTurn < wait || s[1].Busy < wait {
		t.Errorf("%+v", s)
	}
}

// TestPeakTurn: the longest turn counts for half a minute at least, and is forgotten after a minute.
func TestPeakTurn(t *testing.T) {
	var p peakTurn
	at := time.Now()
	p.get(at)
	p.add(time.Second)
	p.add(time.Millisecond)
	for _, k := range []struct {
		after time.Duration
		want  time.Duration
	}{{10 * time.Second, time.Second}, {31 * time.Second, time.Second}, {61 * time.Second, time.Second}, {62 * time.Second, time.Second}, {93 * time.Second, 0}} {
		if got := p.get(at.Add(k.after)); got != k.want {
			t.Errorf("after %v: %v, not %v", k.after, got, k.want)
		}
	}
}
