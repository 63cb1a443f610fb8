package load

import (
	"math/rand/v2"
	"time"
)

// arrivals returns a function that gives the time at which the next request is due, counted from the beginning of the run. Times are computed from the number
// of the request or summed in float64 seconds, so that no rounding adds up to another rate.
func arrivals(rate float64, poisson bool, seed uint64) func() time.Duration {
	at := 0.0 // in seconds
	if poisson {
		random := rand.New(rand.NewPCG(seed, 0))
		return func() time.Duration {
			at += random.ExpFloat64() / rate
			return time.Duration(at * float64(time.Second))
		}
	}
	n := 0.0
	return func() time.Duration {
		at = n / rate
		n++
		return time.Duration(at * float64(time.Second))
	}
}
