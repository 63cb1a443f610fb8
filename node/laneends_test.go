package node

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/limits"
	"sallyport/node/resource"
	"sallyport/routing"
	"sallyport/routing/multiaddr"
)

// TestLaneWaitsForPath: what is made over an inlet's path waits until there is one, and no longer: an attempt that had failed would be followed by a pause.
func TestLaneWaitsForPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &inlet{session: &session{}}
		lanes := &inletLanes{in: in, node: &Node{log: slog.New(slog.DiscardHandler), opts: Options{Limits: limits.Limits{Lanes: 2}}}}
		lane := lanes.session(&laneSet{in: in, up: &lanes.up}, 0)
		tried := make(chan error, 1)
		try := func(ctx context.Context) {
			_, err := lane.connect(ctx)
			tried <- err
		}
		go try(t.Context())
		time.Sleep(time.Hour)
		synctest.Wait()
		select {
		case err := <-tried:
			t.Fatalf("without a path: %v", err)
		default:
		}
		begun := time.Now()
		in.session.set(true, &connection{}, nil)
		if err := <-tried; !errors.Is(err, errNoLane) { // such a path has none
			t.Errorf("with a path: %v", err)
		}
		if late := time.Since(begun); late > 100*time.Millisecond {
			t.Errorf("%v after there was a path", late)
		}
		in.session.set(false, nil, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		try(ctx)
		if err := <-tried; !errors.Is(err, errNoMainPath) {
			t.Errorf("given up: %v", err)
		}
	})
}

// silentPort notes since when it is silent.
type silentPort struct {
	port
	since time.Time
}

func (p *silentPort) Silent(_ routing.Route, since time.Time) { p.since = since }

// TestLaneOfLostPath: a question for a lane is given up with the path that it went over, and a lane that is silent is given up, too.
func TestLaneOfLostPath(t *testing.T) {
	ctx := within(t)
	relay, bank, client := lanedNode(t, "relay", 0), lanedNode(t, "bank", 2), lanedNode(t, "client", 2)
	if _, err := bank.CreateRelay(ctx, resource.Relay{Name: "bank", At: tcpRoute(t, relay) + "/secure/api"}); err != nil {
		t.Fatal(err)
	}
	near := newLater(t, relay.Listening(), 0)
	to, err := multiaddr.Parse(near.route() + "/secure/api/service/forward_to_bank/secure/api/service/db")
	if err != nil {
		t.Fatal(err)
	}
	main, err := client.connect(ctx, to, connectOptions{self: client.opts.Self})
	if err != nil {
		t.Fatal(err)
	}
	defer main.close()
	in := &inlet{to: to, session: &session{}}
	l := &inletLanes{node: client, in: in}
	release := near.hold(0)
	defer release()
	asked := make(chan error, 1)
	go func() {
		_, err := l.route(ctx, main, 1)
		asked <- err
	}()
	main.close()
	if err := <-asked; !errors.Is(err, context.Canceled) {
		t.Errorf("the question over a path that has ended: %v", err)
	}
	heard := &silentPort{}
	in.port = heard
	lane := l.session(&laneSet{in: in, up: &l.up}, 0)
	c := &connection{closed: make(chan struct{}), router: client.router}
	since := time.Now()
	lane.silent(c, since)
	select {
	case <-c.done():
	default:
		t.Error("a silent lane stays")
	}
	if !heard.since.Equal(since) {
		t.Errorf("its connections hear that it is silent since %v", heard.since)
	}
}
