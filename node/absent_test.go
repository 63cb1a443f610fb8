package node

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/routing/secure"
)

// TestClientsWaitForAName: how long clients wait where a relay says that nobody is there follows from how long it took it to say so.
func TestClientsWaitForAName(t *testing.T) {
	for _, c := range []struct {
		away, want time.Duration
		never      bool // nobody was there before
	}{{0, absentAfter, false}, {time.Second, absentAfter, false}, {4 * time.Second, 8 * time.Second, false}, {time.Minute, absentMost, false}, {time.Minute, 0, true}} {
		t.Run(fmt.Sprint(c.away, c.never), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				said := make(chan string, 4)
				s := &session{absent: func(reason string) { said <- reason }}
				if !c.never {
					s.set(true, nil, nil)
					s.retries = 1
				}
				s.set(false, nil, errors.New("lost"))
				time.Sleep(c.away)
				began := time.Now()
				s.set(false, nil, secure.ErrAbsent)
				if reason := <-said; reason != secure.ErrAbsent.Error() || time.Since(began) != c.want {
					t.Errorf("clients are told %q after %v, want %v", reason, time.Since(began), c.want)
				}
				s.set(true, nil, nil)
				if reason := <-said; reason != "" {
					t.Errorf("it is back, and clients are told %q", reason)
				}
			})
		})
	}
}
