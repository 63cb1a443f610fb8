package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/fleet"
	"sallyport/routing/multiaddr"
	"sallyport/routing/secure"
)

// TestSpread: keys are spread evenly over the routes, each has an order of its own that is always the same, and those that a route's end does not concern keep theirs.
func TestSpread(t *testing.T) {
	var routes []multiaddr.Addr
	for i := range 3 {
		a, err := multiaddr.Parse(fmt.Sprintf("/dnsaddr/relay%d/tcp/4001/service/api", i))
		if err != nil {
			t.Fatal(err)
		}
		routes = append(routes, a)
	}
	text := func(list []multiaddr.Addr) (out []string) {
		for _, a := range list {
			out = append(out, a.String())
		}
		return out
	}
	first, orders := map[string]int{}, map[string]bool{}
	const keys = 3000
	for i := range keys {
		key := fmt.Sprint("name", i)
		order := text(spread(routes, key))
		if len(order) != 3 || !slices.Equal(order, text(spread([]multiaddr.Addr{routes[2], routes[0], routes[1]}, key))) {
			t.Fatalf("%s: %v depends on the order of the list", key, order)
		}
		first[order[0]]++
		orders[fmt.Sprint(order)] = true
		without := text(spread(routes[:2], key))
		if rest := slices.DeleteFunc(slices.Clone(order), func(s string) bool { return s == routes[2].String() }); !slices.Equal(rest, without) {
			t.Fatalf("%s: %v without the third, %v with it", key, without, order)
		}
	}
	for route, n := range first {
		if n < keys/4 || n > keys*5/12 {
			t.Errorf("%s is the first of %d of %d", route, n, keys)
		}
	}
	if len(orders) != 6 {
		t.Errorf("%d orders", len(orders))
	}
}

// TestWhereAbsent: a node that does not have a name has the next one tried at once, or where the name was there before after several times as long as that took it to say,
// once; and the session hears of it when none has it.
func TestWhereAbsent(t *testing.T) {
	for _, c := range []struct {
		comesBack   bool
		took, after time.Duration
	}{{false, time.Second, 0}, {true, time.Millisecond, accessDelay}, {true, time.Second, accessPatience * time.Second}, {true, 10 * time.Second, attemptTimeout / 2}} {
		synctest.Test(t, func(t *testing.T) {
			var said []error
			wait := make(chan time.Duration, 8)
			ctx := context.WithValue(t.Context(), reportKey{}, func(err error) { said = append(said, err) })
			ctx = context.WithValue(context.WithValue(ctx, comesBackKey{}, c.comesBack), waitKey{}, wait)
			each := whereAbsent(ctx, 2)
			report := func(ctx context.Context) func(error) { return ctx.Value(reportKey{}).(func(error)) }
			one, two := report(each(ctx)), report(each(ctx))
			time.Sleep(c.took)
			for range 3 {
				one(fmt.Errorf("at one: %w", secure.ErrAbsent))
			}
			if len(said) != 0 || len(wait) != 1 {
				t.Fatalf("one of two: %v, %d", said, len(wait))
			}
			if after := <-wait; after != c.after {
				t.Errorf("the next one is tried after %v, want %v", after, c.after)
			}
			two(fmt.Errorf("at two: %w", secure.ErrAbsent))
			if len(said) != 1 || !errors.Is(said[0], secure.ErrAbsent) || len(wait) != 0 {
				t.Errorf("both: %v", said)
			}
		})
	}
	if ctx := whereAbsent(t.Context(), 2)(t.Context()); ctx.Value(reportKey{}) != nil {
		t.Error("somebody is told who was not before")
	}
	wait := make(chan time.Duration, 1)
	ctx := context.WithValue(t.Context(), waitKey{}, wait)
	for range 2 { // the second finds no place, and does not wait for one
		gotOn(ctx)
	}
	if <-wait != accessBusy {
		t.Error("who gets on has no time of its own")
	}
}

// TestFollowRoutes: a node that does not answer is asked where the others are with longer and longer pauses, one that waits until there is another list at once again, one that has no place
// for who waits and one that never waits now and then; and nobody is asked after the path has ended.
func TestFollowRoutes(t *testing.T) {
	type answer struct {
		nodes fleet.Nodes
		same  bool
		err   error
		after time.Duration
	}
	first, second := fleet.Nodes{Routes: []string{"one"}, Version: []byte{1}}, fleet.Nodes{Routes: []string{"one", "two"}, Version: []byte{2}}
	silent := answer{err: errors.New("silent"), after: time.Second}
	for name, c := range map[string]struct {
		answers []answer
		pauses  [][2]time.Duration // from an answer to the next question: at least and at most
		kept    []string
		have    []byte
	}{
		"silent": {
			answers: []answer{silent, silent, silent, silent, silent, silent, silent},
			pauses: [][2]time.Duration{{routesAgain, routesAgain}, {3 * routesAgain, 3 * routesAgain}, {9 * routesAgain, 9 * routesAgain}, {27 * routesAgain, 27 * routesAgain},
				{81 * routesAgain, 81 * routesAgain}, {routesInterval, routesInterval}},
		},
		"waits": {
			answers: []answer{silent, silent, {nodes: first}, {nodes: first, same: true, after: fleet.MaxWait}, {nodes: second, after: 9 * time.Second}, silent, {nodes: second, same: true}},
			pauses: [][2]time.Duration{{routesAgain, routesAgain}, {3 * routesAgain, 3 * routesAgain}, {routesRest, 2 * routesRest}, {routesRest, 2 * routesRest}, {routesRest, 2 * routesRest},
				{routesAgain, routesAgain}},
			kept: []string{"[one]", "[one two]"}, have: []byte{2},
		},
		"has no place": {
			answers: []answer{{nodes: first}, {nodes: first, same: true}, {nodes: first, same: true}, {nodes: second}},
			pauses:  [][2]time.Duration{{routesRest, 2 * routesRest}, {2 * routesAgain, 4 * routesAgain}, {2 * routesAgain, 4 * routesAgain}},
			kept:    []string{"[one]", "[one two]"}, have: []byte{2},
		},
		"never waits": {
			answers: []answer{{nodes: fleet.Nodes{Routes: []string{"one"}}}, {nodes: fleet.Nodes{Routes: []string{"two"}}}},
			pauses:  [][2]time.Duration{{routesInterval, routesInterval * 6 / 5}},
			kept:    []string{"[one]", "[two]"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &Node{ctx: t.Context(), log: slog.New(slog.DiscardHandler)}
				done := make(chan struct{})
				var kept []string
				var last time.Time
				asked := 0
				have := n.followRoutes(done, func(ctx context.Context, have []byte) (fleet.Nodes, bool, error) {
					if asked == len(c.answers) {
						close(done) // while it waits
						<-ctx.Done()
						return fleet.Nodes{}, false, ctx.Err()
					}
					if asked > 0 {
						if p, want := time.Since(last), c.pauses[asked-1]; p < want[0] || p > want[1] {
							t.Errorf("question %d came after a pause of %v, want %v", asked, p, want)
						}
					}
					a := c.answers[asked]
					asked++
					time.Sleep(a.after)
					last = time.Now()
					return a.nodes, a.same, a.err
				}, nil, func(_ context.Context, routes []string) error {
					kept = append(kept, fmt.Sprint(routes))
					return nil
				})
				if !slices.Equal(kept, c.kept) || string(have) != string(c.have) {
					t.Errorf("kept %v, knows %v", kept, have)
				}
			})
		})
	}
}
