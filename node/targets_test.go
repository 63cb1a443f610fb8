//go:build !small

package node

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"

	"sallyport/node/admin"
	"sallyport/portal"
)

// TestKafkaBootstrapGone: clients can begin while any bootstrap server runs, or any broker that is known.
func TestKafkaBootstrapGone(t *testing.T) {
	ctx := within(t)
	outlet, inlet := newMember(t), newMember(t)
	broker := metadataServer(t)
	first, stopFirst := metadataServerOf(t, broker)
	second, stopSecond := metadataServerOf(t, broker)
	if _, err := outlet.kafkaOutlets().Create(ctx, admin.KafkaOutletRequest{Bootstrap: first + "," + second, Allow: only(inlet)}); err != nil {
		t.Fatal(err)
	}
	in := inlet.kafkaInlet(admin.KafkaInletRequest{To: outlet.route() + "/secure/api", NoContentEncryption: true})
	look := func() {
		t.Helper()
		eventually(t, func() error {
			_, _, err := metadata(in.bootstrap.portal.Bound().String())
			return err
		})
	}
	if err := stopFirst(); err != nil {
		t.Fatal(err)
	}
	look()
	if err := stopSecond(); err != nil {
		t.Fatal(err)
	}
	look()
	outlet.restart() // which still knows the broker
	look()
}

// TestDialFirst: targets are tried in their order, until one answers.
func TestDialFirst(t *testing.T) {
	refused := errors.New("refused")
	for want, answering := range map[int][]string{0: {"a", "b"}, 1: {"b", "c"}, 2: {"c"}, -1: nil} {
		var tried []string
		p, err := dialFirst(context.Background(), []string{"a", "b", "c"}, func(target string) func(context.Context) (portal.Piped, error) {
			return func(ctx context.Context) (portal.Piped, error) {
				if _, limited := ctx.Deadline(); !limited {
					t.Error("a target that never answers stops the others")
				}
				if tried = append(tried, target); slices.Contains(answering, target) {
					return portal.Piped{FD: len(tried) - 1}, nil
				}
				return portal.Piped{}, refused
			}
		})
		if (err == nil) != (want >= 0) || err == nil && p.FD != want || want < 0 && !errors.Is(err, refused) {
			t.Errorf("answering %v: %d, %v", answering, p.FD, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := dialFirst(ctx, []string{"a", "b"}, func(target string) func(context.Context) (portal.Piped, error) {
		return func(context.Context) (portal.Piped, error) {
			if target == "b" {
				t.Error("tried when nobody waits any more")
			}
			return portal.Piped{}, refused
		}
	}); !errors.Is(err, refused) {
		t.Error(err)
	}
}

// TestLookupAll: a target without an address does not stop the others.
func TestLookupAll(t *testing.T) {
	list, err := lookupAll(context.Background(), []string{"127.0.0.2:1", "no port", "127.0.0.1:2"})
	if err != nil || len(list) != 2 || list[0].String() != "127.0.0.2:1" || list[1].String() != "127.0.0.1:2" {
		t.Errorf("%v, %v", list, err)
	}
	if list, err := lookupAll(context.Background(), []string{net.JoinHostPort("", "x"), "no port"}); err == nil {
		t.Errorf("%v", list)
	}
}
