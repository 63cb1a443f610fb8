package registrytest

import (
	"testing"

	"sallyport/routing"
)

// TestShared holds the registry within a process against the rules.
func TestShared(t *testing.T) {
	Run(t, func(*testing.T) func(routing.RelayNode) routing.Registry {
		var s Shared
		return func(self routing.RelayNode) routing.Registry { return s.Join(self) }
	})
}
