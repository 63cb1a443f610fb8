package logging

import (
	"log/slog"
	"sync"
	"time"
)

// maxKinds bounds the texts that are counted apart; the texts are the program's own, so there are few hundred. Beyond it they share
// one account.
const maxKinds = 1024

// rates is a token bucket for every text of a record.
type rates struct {
	perSecond, burst float64
	mu               sync.Mutex
	kinds            map[string]*kind
}

type kind struct {
	level  slog.Level
	tokens float64
	at     time.Time // when tokens was right
	left   uint64    // out, since that was told
	second int64     // that count is of, Unix time
	count  int       // records of this second, written or not
	before int       // of the second before
}

// busiest returns how many records the kind with the most had in the last whole second.
func (r *rates) busiest(now time.Time) (most int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.kinds {
		k.turn(now.Unix())
		most = max(most, k.before)
	}
	return most
}

// turn begins to count another second when it is time.
func (k *kind) turn(second int64) {
	switch {
	case second == k.second:
		return
	case second == k.second+1:
		k.before = k.count
	default:
		k.before = 0
	}
	k.second, k.count = second, 0
}

func newRates(perSecond, burst int) rates {
	return rates{perSecond: float64(perSecond), burst: float64(burst), kinds: map[string]*kind{}}
}

// take reports whether a record with this text may be written at time now.
func (r *rates) take(text string, level slog.Level, now time.Time) bool {
	if r.perSecond < 0 {
		return true
	}
	if now.IsZero() {
		now = time.Now()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.kinds[text]
	if k == nil {
		if len(r.kinds) >= maxKinds {
			text = ""
		}
		if k = r.kinds[text]; k == nil {
			k = &kind{tokens: r.burst, at: now}
			r.kinds[text] = k
		}
	}
	k.turn(now.Unix())
	k.count++
	if d := now.Sub(k.at); d > 0 {
		k.tokens, k.at = min(k.tokens+d.Seconds()*r.perSecond, r.burst), now
	}
	if k.tokens < 1 {
		k.level = level
		k.left++
		return false
	}
	k.tokens--
	return true
}

// missing is how many records of a kind were left out.
type missing struct {
	text  string
	level slog.Level
	count uint64
}

// leftOut returns the kinds of which records were left out since the last call.
func (r *rates) leftOut() []missing {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []missing
	for text, k := range r.kinds {
		if k.left > 0 {
			list = append(list, missing{text: text, level: k.level, count: k.left})
			k.left = 0
		}
	}
	return list
}
