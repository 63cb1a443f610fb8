package routing

import (
	"testing"
	"time"
)

// TestNoticesAreBounded: so many at once, then so many a second, and what was not used does not add up beyond the burst.
func TestNoticesAreBounded(t *testing.T) {
	var b noticeBudget
	now := time.Unix(1000, 0)
	taken := func() (n int) {
		for b.take(now) {
			n++
		}
		return n
	}
	if n := taken(); n != int(noticeBurst) {
		t.Errorf("%d at once, want %v", n, noticeBurst)
	}
	now = now.Add(time.Second)
	if n := taken(); n != min(int(noticeRate), int(noticeBurst)) {
		t.Errorf("%d after a second, want %v", n, noticeRate)
	}
	if b.take(now) {
		t.Error("the same second is counted twice")
	}
	now = now.Add(time.Hour)
	if n := taken(); n != int(noticeBurst) {
		t.Errorf("%d after an hour, want %v", n, noticeBurst)
	}
}
