package limits_test

import (
	"fmt"

	"sallyport/limits"
)

// What is said counts, and the rest follows it.
func ExampleLimits_WithDefaults() {
	l := limits.Limits{Memory: 256 << 20, Channels: 100}.WithDefaults()
	fmt.Println(l.Channels, l.Windows, l.ChannelsPerPeer)
	fmt.Println(limits.Limits{Memory: 1 << 20}.Validate())
	// Output:
	// 100 32MiB 4096
	// limits: memory is 1MiB; it must be at least 32MiB
}
