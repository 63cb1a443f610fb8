package limits

import (
	"errors"
	"testing"
)

func TestParseRate(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0, "20mbit": 2_500_000, "20Mbit": 2_500_000, "8kbit": 1000, "1.5gbit": 187_500_000, "1000gbit": 125_000_000_000, "0.5mbit": 62_500,
	} {
		if got, err := ParseRate(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"20", "mbit", "20mb", "20 mbit", "-1mbit", "0mbit", "7kbit", "1001gbit", "1e3kbit", "0x20mbit", "nanmbit", "infgbit", "+5mbit", "5_0mbit", "20mbit/s"} {
		if got, err := ParseRate(text); !errors.Is(err, ErrRate) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}
