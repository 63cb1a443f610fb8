package limits

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bytes is a number of bytes. Its text is a number with the unit B, KiB, MiB, GiB (powers of 1,024) or KB, MB, GB (powers of 1,000);
// without a unit it counts bytes.
type Bytes int64

var units = []struct {
	name string
	size int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"B", 1}}

// ParseBytes reads the text of a number of bytes.
func ParseBytes(text string) (Bytes, error) {
	number, unit := strings.TrimSpace(text), int64(1)
	for _, u := range units {
		if n, ok := cutSuffixFold(number, u.name); ok {
			number, unit = strings.TrimSpace(n), u.size
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is not a number of bytes; it must be like 64MiB, 1GiB or 500MB", text)
	}
	return Bytes(n * unit), nil
}

func cutSuffixFold(s, suffix string) (string, bool) {
	at := len(s) - len(suffix)
	if at < 0 || !strings.EqualFold(s[at:], suffix) {
		return s, false
	}
	return s[:at], true
}

// String returns the text of b, in the largest unit that divides it.
func (b Bytes) String() string {
	for _, u := range units[:3] {
		if b != 0 && int64(b)%u.size == 0 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

// MarshalText returns b's text.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText is ParseBytes.
func (b *Bytes) UnmarshalText(text []byte) (err error) {
	*b, err = ParseBytes(string(text))
	return err
}

// UnmarshalJSON takes a number too.
func (b *Bytes) UnmarshalJSON(text []byte) error {
	return b.UnmarshalText([]byte(strings.Trim(string(text), `"`)))
}

// Set is UnmarshalText, for flags.
func (b *Bytes) Set(text string) error { return b.UnmarshalText([]byte(text)) }

// Type names the flag's value in the help.
func (b *Bytes) Type() string { return "SIZE" }

// Duration is a time span whose text is like 10s or 1m30s.
type Duration time.Duration

// MarshalText returns d's text.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads it.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a time span; it must be like 10s or 1m30s", text)
	}
	*d = Duration(v)
	return nil
}
