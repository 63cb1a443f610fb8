package portal

import "testing"

// TestStuck: a connection is given up when messages are missing again and again and nothing of it comes over. One that has nothing under way is not: what is
// missing is another's.
func TestStuck(t *testing.T) {
	tries := func(l *lifeline, got uint64) (n int) {
		for n = 1; n < 100 && !l.stalled(got); n++ {
		}
		return n
	}
	const most = maxStuck + 1
	for _, c := range []struct {
		name string
		line lifeline
		want int
	}{
		{"nothing under way", lifeline{sent: 5, confirmed: 5, theirs: 8}, 100},
		{"its own bytes", lifeline{sent: 6, confirmed: 5, theirs: 8}, most},
		{"its own end", lifeline{sent: 5, confirmed: 5, finished: true, theirs: 8}, most},
		{"the other end's bytes", lifeline{sent: 5, confirmed: 5, theirs: 9}, most},
		{"the other end does not say", lifeline{sent: 5, confirmed: 5}, most},
	} {
		if n := tries(&c.line, 7); n != c.want {
			t.Errorf("%s: given up after %d times, want %d", c.name, n, c.want)
		}
	}
	l := lifeline{theirs: 9}
	tries(&l, 7)
	if l.stalled(8) {
		t.Error("given up though something came")
	}
}
