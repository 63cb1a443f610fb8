package identity

import (
	"errors"
	"strings"
	"testing"
)

// TestClocks: what is valid at a second is so at its two ends, a clock may be ahead by so much, and who is refused is told by how much.
func TestClocks(t *testing.T) {
	for _, c := range []struct {
		created, expires, now Timestamp
		want                  error
		says                  string
	}{
		{1000, 1000, 1000, nil, ""}, {900, 1000, 1000, nil, ""}, {1000 + futureTolerance, 2000, 1000, nil, ""}, {0, 1, 1, nil, ""},
		{1000 + futureTolerance + 1, 2000, 1000, ErrClock, "made 1m1s in the future"}, {900, 999, 1000, ErrExpired, "1 seconds ago"}, {900, 995, 1000, ErrExpired, "5 seconds ago"},
	} {
		err := current(c.created, c.expires, c.now)
		if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
