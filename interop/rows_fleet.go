package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"sallyport/internal/freeport"
)

// fleetRows is the story with two relays of ours in the relay's seat that are one fleet: they prove the same identity, of which the first alone has the
// key, and know each other's names in PostgreSQL. The authority is program a's, the boxes either's. In half of the stories both boxes are at the relay
// without the key, in the other half the inlet box is at the one with it, so that each message goes over both.
func fleetRows(ctx context.Context, r *rowRun) {
	if r.ours.quirks {
		return // the reference has no fleets
	}
	for _, across := range []bool{false, true} {
		for _, s := range []seats{{outlet: r.a, inlet: r.a}, {outlet: r.a, inlet: r.b}, {outlet: r.b, inlet: r.a}, {outlet: r.b, inlet: r.b}} {
			s.authority, s.relay, s.admin = r.a, r.ours, r.a
			name := "one relay, " + s.String()
			if across {
				name = "two relays, " + s.String()
			}
			r.check(name, func() (string, error) {
				st, err := newStory(r.procs, r.root, s, storyOptions{pgPort: r.pg.port, xferTarget: r.xfer.address()})
				if err != nil {
					return "", err
				}
				defer st.close(r.keep)
				return r.fleetStory(ctx, st, across)
			})
		}
	}
	if r.a.name == r.ours.name {
		fleetTickets(ctx, r)
	}
}

// fleetStory tells the story and uses its portals.
func (r *rowRun) fleetStory(ctx context.Context, st *story, across bool) (string, error) {
	f, err := r.startFleet(ctx, st)
	if err != nil {
		return "", err
	}
	if err := f.give(ctx, st.admin, "outlet.json", f.second); err != nil {
		return "", err
	}
	if across {
		if err := f.give(ctx, st.inletAdmin, "inlet.json", f.first); err != nil {
			return "", err
		}
	} else {
		st.inletAdmin = nil
	}
	if err := st.startOutlet(ctx); err != nil {
		return "", err
	}
	if err := st.startInlet(ctx); err != nil {
		return "", err
	}
	if err := r.pg.query(ctx, st.pgInlet); err != nil {
		return "", err
	}
	note, err := r.pg.bench(ctx, st.pgInlet, 2*time.Second, true)
	for _, mode := range []byte{modeUpload, modeDownload} {
		if err == nil {
			_, err = transfer(ctx, st.xferInlet, mode, 16<<20)
		}
	}
	return note, err
}

// fleet is two relays of a project.
type fleet struct {
	*story
	project, history string
	first, second    string // routes; the first has the key
}

// startFleet starts the authority and the two relays. Two admins may make tickets: the story's and its inletAdmin.
func (r *rowRun) startFleet(ctx context.Context, st *story) (*fleet, error) {
	var err error
	if st.inletAdmin, err = newBox(r.procs, st.dir, "admin-of-the-inlet", st.seats.admin); err != nil {
		return nil, err
	}
	other, err := st.inletAdmin.cli(ctx, "identity", "create", "admin")
	if err != nil {
		return nil, err
	}
	if err := st.startTrust(ctx, map[string]map[string]string{other: {"ockam-role": "enroller"}}); err != nil {
		return nil, err
	}
	registry, err := r.pg.database(ctx)
	if err != nil {
		return nil, err
	}
	f := &fleet{story: st, first: relayRoute(st.relayPort)}
	if f.project, f.history, err = st.startRelay(ctx, "--registry", registry, "--registry-address", strings.TrimSuffix(f.first, "/service/api")); err != nil {
		return nil, err
	}
	if err := f.give(ctx, st.relay, "relay.json", f.first); err != nil {
		return nil, err
	}
	ticket, err := st.relay.cli(ctx, "project", "relay-node", "ticket")
	if err != nil {
		return nil, err
	}
	second, err := newBox(r.procs, st.dir, "second-relay", st.seats.relay)
	if err != nil {
		return nil, err
	}
	port, err := freeport.Get()
	if err != nil {
		return nil, err
	}
	f.second = relayRoute(port)
	_, err = second.cli(ctx, "relay-node", "create", ticket, "--name", "second", "--port", fmt.Sprint(port), "--registry", registry)
	return f, err
}

// give has a box know the project with its relays along routes.
func (f *fleet) give(ctx context.Context, b *box, name string, routes ...string) error {
	file, err := f.writeProject(name, f.project, f.history, routes...)
	if err != nil {
		return err
	}
	_, err = b.cli(ctx, "project", "import", "--project-file", file)
	return err
}

// fleetTickets has tickets of ours, of every form, name both relays. Members running the reference take what they know of it.
func fleetTickets(ctx context.Context, r *rowRun) {
	var f *fleet
	st := r.story(ctx, seats{r.a, r.a, r.b, r.b, r.a}, storyOptions{}, func(ctx context.Context, st *story) (err error) {
		if f, err = r.startFleet(ctx, st); err == nil {
			err = f.give(ctx, st.admin, "all.json", f.second, f.first)
		}
		return err
	})
	if st == nil {
		return
	}
	defer st.close(r.keep)
	for _, form := range []struct {
		name, names string // names is in a ticket that names several relays
		args        []string
	}{
		{"plain", "relay=" + f.first, nil},
		{"hex", hex.EncodeToString([]byte("relay=" + f.first)), []string{"--hex"}},
		{"json", "access_routes", []string{"--output", "json"}},
	} {
		r.check("ticket with all relays, "+form.name, func() (string, error) {
			t, err := st.ticket(ctx, form.args...)
			if err != nil {
				return "", err
			}
			if !strings.Contains(t, form.names) {
				return "", fmt.Errorf("the ticket names one relay: %s", firstLine([]byte(t)))
			}
			member, err := newBox(r.procs, st.dir, "member-"+form.name, r.b)
			if err != nil {
				return "", err
			}
			if _, err := member.cli(ctx, "project", "enroll", t); err != nil {
				return "", err
			}
			return "", send(ctx, member, "/project/"+projectName+"/service/echo", "in", "in")
		})
	}
}
