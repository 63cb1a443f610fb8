package tcp

import (
	"time"

	"sallyport/dataplane"
)

const (
	// searchRounds is over how many round trips it is looked whether BBR still finds more: it tries more in one of eight.
	searchRounds = 9
	// searchGrowth is how much more it then has found that shows that there is more: of the quarter that it tries some is lost.
	searchGrowth = 1.125
	// searchGain is how much more a new search has to bring, or the next one has to wait: searchRest, and twice as long each time, up to searchRestMost.
	searchGain     = 1.25
	searchRest     = time.Second
	searchRestMost = time.Minute
	// searchShort is the shortest round trip of a connection for which it is worth it: over a shorter one all is found soon.
	searchShort = 2 * time.Millisecond
	// searchQueue is how much longer than the shortest round trip and a quarter one is that shows a queue: the line is full then.
	searchQueue = 5 * time.Millisecond
	// searchNever is how long a connection is not looked at again that has no BBR.
	searchNever = time.Minute
)

// search decides when a connection's BBR begins its search for the rate anew. That of a connection that was made for a transfer begins with it; one between nodes is
// used for long, and may have ended its search over next to nothing: while only requests went over it, or after the first lost segments. From there BBR needs eight
// round trips for a quarter more. Where all those were of use, and nothing waits in the line, it doubles again instead, and also where it has just begun to have much to
// send and has forgotten most of what it once found. It has no clock.
type search struct {
	next   time.Time // it is not looked before
	at     time.Time // of the last look in a row; zero: none
	rate   uint64    // found by then
	most   uint64    // that was ever found, or came of the last search
	before uint64    // by when the search began anew, until it is known what came of it; 0 after that
	rest   time.Duration
	until  time.Time // it does not begin anew before
}

// due reports whether it is time to look, for a connection for which something waits.
func (s *search) due(now time.Time) bool { return !now.Before(s.next) }

// look takes how far BBR is, ok if there is one, while something waits for the connection, and reports whether it is to begin anew.
func (s *search) look(b dataplane.BBR, ok bool, now time.Time) bool {
	if !ok || b.Least < searchShort {
		s.next = now.Add(searchNever)
		return false
	}
	last, rate := s.at, s.rate
	s.next, s.at, s.rate = now.Add(searchRounds*b.Least), now, b.Rate
	if b.Begins {
		s.next, s.at = now.Add(b.Least), time.Time{}
		return false
	}
	s.most = max(s.most, b.Rate)
	if s.before > 0 {
		if s.rest = min(max(2*s.rest, searchRest), searchRestMost); float64(b.Rate) > searchGain*float64(s.before) {
			s.rest = 0
		}
		s.before, s.most, s.until = 0, b.Rate, now.Add(s.rest)
	}
	waited := !last.IsZero() && now.Sub(last) <= 2*searchRounds*b.Least // something did all the time; else the round trip is of what was before
	switch {
	case now.Before(s.until):
		return false
	case waited && (float64(b.Rate) < searchGrowth*float64(rate) || b.RTT > b.Least*5/4+searchQueue):
		return false
	case !waited && b.Rate >= s.most/2:
		return false
	}
	s.before, s.at = b.Rate, time.Time{}
	return true
}
