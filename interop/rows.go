package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// rowGroup is a family of further rows that share a set-up.
type rowGroup struct {
	name, about string
	limit       time.Duration // for one orientation
	// idle groups mostly wait. Their two orientations run at the same time.
	idle bool
	run  func(ctx context.Context, r *rowRun)
}

// rowGroups lists the groups in the order in which they run.
var rowGroups = []rowGroup{
	{"messages", "echo and uppercase over 1, 2 and 3 hops through nodes of both programs", 90 * time.Second, false, messageRows},
	{"channels", "secure channels through a relay, in both directions, peers checked", 90 * time.Second, false, channelRows},
	{"tickets", "tickets of every form, made by one program and used by the other", 90 * time.Second, false, ticketRows},
	{"admin", "the whole story with an admin of the other program", 90 * time.Second, false, adminRows},
	{"fleet", "the whole story with relays of a fleet in the relay's seat, and tickets that name them all", 600 * time.Second, false, fleetRows},
	{"identities", "identities exported by one program and imported by the other", 30 * time.Second, false, identityRows},
	{"extensions", "debug logs of the reference while the other end is ours: nothing unknown arrives", 90 * time.Second, false, extensionRows},
	{"options", "inlets of one program with outlets of the other: no handshake, HTTP headers, TLS, InfluxDB", 120 * time.Second, false, optionRows},
	{"udp", "messages over UDP, rendezvous, and portals through punctures", 120 * time.Second, false, udpRows},
	{"policies", "every row of the policy table decided by a real node", 240 * time.Second, false, policyRows},
	{"expiry", "credentials renewed and expired across the boundary", 330 * time.Second, true, expiryRows},
	{"member-expiry", "members with short credentials, authority and relay of the other program", 260 * time.Second, true, memberExpiryRows},
	{"restarts", "relay registrations after a restart of either end", 300 * time.Second, true, restartRows},
	{"kills", "nodes killed in the middle of a transfer", 400 * time.Second, true, killRows},
}

// rowRun is one group in one orientation.
type rowRun struct {
	*driver
	group string
	orientation
	mu *sync.Mutex // guards driver.result.Rows
}

// check runs one named test of a group and records it.
func (r *rowRun) check(name string, test func() (note string, err error)) bool {
	c := measure(name, test)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Rows = append(r.result.Rows, rowResult{r.group, r.orientation.String(), c})
	word := "pass"
	if c.Note != "" {
		word += " (" + c.Note + ")"
	}
	if !c.Passed {
		word = "FAIL " + c.Reason
	}
	fmt.Printf("%-10s %-15s %-30s %6.1fs  %s\n", r.group, r.orientation, name, c.Seconds, word)
	return c.Passed
}

// story starts a story for the group; a failure is recorded as a failed check.
// The caller closes it.
func (r *rowRun) story(ctx context.Context, s seats, o storyOptions, start func(context.Context, *story) error) *story {
	var st *story
	ok := r.check("setup", func() (string, error) {
		var err error
		if st, err = newStory(r.procs, r.root, s, o); err != nil {
			return "", err
		}
		return "", start(ctx, st)
	})
	if !ok {
		if st != nil {
			st.close(r.keep)
		}
		return nil
	}
	return st
}

// runRows runs all chosen groups in both orientations.
func (d *driver) runRows(ctx context.Context) {
	var mu sync.Mutex
	for _, g := range rowGroups {
		if !d.wanted(g.name) || ctx.Err() != nil {
			continue
		}
		var wg sync.WaitGroup
		for _, o := range orientations(d.ours, d.reference) {
			run := func() {
				ctx, cancel := context.WithTimeout(ctx, g.limit)
				defer cancel()
				g.run(ctx, &rowRun{d, g.name, o, &mu})
			}
			if g.idle {
				wg.Go(run)
			} else {
				run()
			}
		}
		wg.Wait()
	}
}

func (d *driver) wanted(name string) bool {
	if len(d.groups) == 0 {
		return true
	}
	for _, g := range d.groups {
		if strings.HasPrefix(name, g) {
			return true
		}
	}
	return false
}
