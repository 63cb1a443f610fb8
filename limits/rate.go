package limits

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Bounds of a rate, in bits a second.
const (
	leastRate = 8e3
	mostRate  = 1e12
)

// ErrRate reports text that is no rate.
var ErrRate = errors.New("it must be a number with kbit, mbit or gbit, from 8kbit to 1000gbit")

// ParseRate reads a rate in bits a second, such as 20mbit or 1.5gbit, as tc writes it, and returns it in bytes a second. The empty text is 0, no
// limit.
func ParseRate(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	lower := strings.ToLower(text)
	for unit, factor := range map[string]float64{"kbit": 1e3, "mbit": 1e6, "gbit": 1e9} {
		number, ok := strings.CutSuffix(lower, unit)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(number, 64)
		if err != nil || strings.ContainsAny(number, "xpein_+") || !(v*factor >= leastRate && v*factor <= mostRate) {
			break
		}
		return int64(v * factor / 8), nil
	}
	return 0, fmt.Errorf("rate %q: %w", text, ErrRate)
}
