package multiaddr

import (
	"errors"
	"fmt"
	"strings"
)

// Names that the expansion of an inlet's destination fills in (docs/protocol/03 §4.1).
const (
	defaultRelay   = "default"
	relayPrefix    = "forward_to_"
	defaultOutlet  = "outlet"
	channelService = "api"
)

// Reasons ExpandInletTo fails.
var (
	// ErrNoProject reports that an abbreviated destination needs a default project, and there is none.
	ErrNoProject = errors.New("no default project")
	// ErrViaWithAddress reports that --via was given together with a full address in --to.
	ErrViaWithAddress = errors.New("--via cannot be combined with a full address in --to")
)

// ExpandInletTo turns --to and --via of `tcp-inlet create` into an address (docs/protocol/03 §4.1): a service name, or nothing,
// becomes that service behind a relay of the default project; a full address stays as it is. Empty text means that an option is
// absent. /node/NAME is left for Addr.ReplaceNode.
//
// Text without a slash is a service name even if it happens to be a protocol's name; only `self` is an address.
func ExpandInletTo(to, via, defaultProject string) (Addr, error) {
	if to == "self" || strings.Contains(to, "/") {
		addr, err := Parse(to)
		if err != nil {
			return nil, err
		}
		local := len(addr) == 1 && addr[0].Protocol == Service
		if via != "" && !local {
			return nil, fmt.Errorf("%w: --to %s --via %s", ErrViaWithAddress, to, via)
		}
		return addr, nil
	}
	if to == "" {
		to = defaultOutlet
	}
	if via == "" {
		via = defaultRelay
	}
	if defaultProject == "" {
		return nil, fmt.Errorf("%w: --to %s needs one, or a full address", ErrNoProject, to)
	}
	addr := Addr{{Project, defaultProject}, {Service, relayPrefix + via}, {Secure, channelService}, {Service, to}}
	for _, v := range addr {
		if _, err := canonical(v); err != nil {
			return nil, fmt.Errorf("multiaddr: %w: %q", err, v.Text)
		}
	}
	return addr, nil
}
