package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"sallyport/authority"
	"sallyport/project"
	"sallyport/routing/rpc"
)

// authorityRows are about who is a member, and what is known of members.
var authorityRows = []row{
	{
		name: "codes", number: 8, stage: members, attack: "random ticket codes from one stranger, 32 at a time, 6 s",
		promised: "fewer than 40 are looked at, the trail has at most 5 entries of it and still those of before",
		run:      guessCodes,
	},
	{
		name: "strangers", number: 9, attack: "163,000 strangers at one guard", promised: "what open connections hold is never dropped",
		proof: "node: TestStrangersPushNobodyOut, TestForgottenGrantDenies, TestGrantsMadeRoomFor",
	},
	{
		name: "policy-race", number: 10, attack: "a policy changed while a grant is decided, 20,000 rounds", promised: "none ends allowed under a policy that denies",
		proof: "node: TestPolicyChangedWhileDeciding",
	},
	{
		name: "refreshes", number: 11, stage: members, attack: "a member presents its credential again and again through one channel, 20,000 times",
		promised: "the relay's memory grows by less than 24 MB, its goroutines by none",
		run:      refreshes,
	},
	{
		name: "one-ticket", number: 26, stage: members, pause: 5 * time.Second, attack: "50 enrolments at once with one ticket for one member",
		promised: "each is answered within 60 s, exactly one wins, and the authority has one member more",
		run:      func(ctx context.Context, s *stage) (string, error) { return oneTicket(ctx, s, 50) },
	},
	{
		name: "one-ticket-100", number: 26, stage: members, pause: 5 * time.Second, long: true, attack: "100 enrolments at once with one ticket for one member",
		promised: "each is answered within 60 s, exactly one wins, and the authority has one member more",
		run:      func(ctx context.Context, s *stage) (string, error) { return oneTicket(ctx, s, 100) },
	},
	{
		name: "store", number: 27, stage: members, alone: true, pause: -1, attack: "the authority's store is gone, empty, cut in the middle, and put back",
		promised: "it starts with none of them but the last, says which file it is and what to do, and its members are there again",
		run:      brokenStore,
	},
}

func guessCodes(ctx context.Context, s *stage) (string, error) {
	before, err := s.cli(ctx, "relay", "authority", "audit", "--output", "json")
	if err != nil {
		return "", err
	}
	v, err := newVisitor(ctx)
	if err != nil {
		return "", err
	}
	defer v.close()
	at, err := s.listensAt(ctx, "authority")
	if err != nil {
		return "", err
	}
	client, _, err := v.authorityClient(ctx, at)
	if err != nil {
		return "", err
	}
	stop, cancel := context.WithTimeout(ctx, 6*time.Second)
	defer cancel()
	var mu sync.Mutex
	tried, looked, won := 0, 0, 0
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for stop.Err() == nil {
				var code authority.Code
				_, _ = rand.Read(code[:])
				one, done := context.WithTimeout(stop, 5*time.Second)
				_, err := client.Redeem(one, code)
				done()
				var status *rpc.StatusError
				mu.Lock()
				tried++
				switch {
				case err == nil:
					won++
				case errors.As(err, &status) && strings.Contains(status.Body.Message, "Unknown enrollment token"):
					looked++
				}
				mu.Unlock()
				if err != nil {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
	after, err := s.cli(ctx, "relay", "authority", "audit", "--output", "json")
	if err != nil {
		return "", err
	}
	entries := strings.Count(after, `"hash"`) - strings.Count(before, `"hash"`)
	seen := fmt.Sprintf("%d tried, %d looked at, %d entries", tried, looked, entries)
	switch {
	case won > 0:
		return seen, fmt.Errorf("a random code was taken")
	case looked >= 40:
		return seen, fmt.Errorf("too many were looked at")
	case entries > 5:
		return seen, fmt.Errorf("too many entries")
	case !strings.HasPrefix(after, before[:min(len(before), 200)]):
		return seen, fmt.Errorf("the trail begins otherwise")
	}
	return seen, nil
}

func refreshes(ctx context.Context, s *stage) (string, error) {
	v, err := newVisitor(ctx)
	if err != nil {
		return "", err
	}
	defer v.close()
	credential, err := v.enroll(ctx, s)
	if err != nil {
		return "", err
	}
	c, err := v.channel(ctx, s.relay)
	if err != nil {
		return "", err
	}
	refresh := func(n int) error {
		for i := range n {
			if err := c.Refresh(ctx, credential); err != nil {
				return err
			}
			if i%100 == 99 { // not faster than the relay takes them
				if _, err := v.router.Request(ctx, through(c, "echo"), []byte("there?")); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := refresh(1000); err != nil {
		return "", err
	}
	memory, goroutines := s.rss("relay", "VmRSS"), s.goroutines()
	if err := refresh(20_000); err != nil {
		return "", err
	}
	grown := s.rss("relay", "VmRSS") - memory
	seen := fmt.Sprintf("the relay grew by %d MB", max(grown, 0)>>20)
	if grown > 24<<20 {
		return seen, fmt.Errorf("too much")
	}
	return seen, s.settled(ctx, goroutines)
}

func oneTicket(ctx context.Context, s *stage, n int) (string, error) {
	text, err := s.cli(ctx, "relay", "project", "ticket")
	if err != nil {
		return "", err
	}
	ticket, err := project.ParseTicket(text)
	if err != nil {
		return "", err
	}
	members := func() (int, error) {
		text, err := s.cli(ctx, "relay", "project-member", "list", "--output", "json")
		return strings.Count(text, `"identifier"`), err
	}
	before, err := members()
	if err != nil {
		return "", err
	}
	at, err := s.listensAt(ctx, "authority")
	if err != nil {
		return "", err
	}
	var clients []*authority.Client
	for range n {
		v, err := newVisitor(ctx)
		if err != nil {
			return "", err
		}
		defer v.close()
		client, _, err := v.authorityClient(ctx, at)
		if err != nil {
			return "", err
		}
		clients = append(clients, client)
	}
	var mu sync.Mutex
	won, refused, silent := 0, 0, 0
	var longest time.Duration
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			began := time.Now()
			one, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			_, err := c.Redeem(one, authority.Code(ticket.Code))
			var status *rpc.StatusError
			mu.Lock()
			defer mu.Unlock()
			longest = max(longest, time.Since(began))
			switch {
			case err == nil:
				won++
			case errors.As(err, &status):
				refused++
			default:
				silent++
			}
		})
	}
	wg.Wait()
	after, err := members()
	if err != nil {
		return "", err
	}
	seen := fmt.Sprintf("%d won, %d refused, %d not answered, longest %d ms", won, refused, silent, longest.Milliseconds())
	if won != 1 || silent != 0 || after != before+1 {
		return seen, fmt.Errorf("members before %d, after %d", before, after)
	}
	return seen, nil
}

func brokenStore(ctx context.Context, s *stage) (string, error) {
	file := filepath.Join(s.home("authority"), "authority-p.db")
	if _, err := s.cli(ctx, "authority", "node", "stop", "authority-p", "--force"); err != nil {
		return "", err
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	start := func() (string, error) {
		if _, err := s.cli(ctx, "authority", "node", "start", "authority-p"); err != nil {
			return err.Error(), nil
		}
		return "", fmt.Errorf("it started")
	}
	for _, broken := range []struct {
		how string
		put func() error
	}{
		{"gone", func() error { return os.Remove(file) }},
		{"empty", func() error { return os.WriteFile(file, nil, 0o600) }},
		{"cut", func() error { return os.WriteFile(file, whole[:len(whole)/4], 0o600) }}, // behind it there may be free pages alone
		{"cut in the first page", func() error { return os.WriteFile(file, whole[:3000], 0o600) }},
		{"overwritten", func() error {
			b := append([]byte(nil), whole...)
			_, _ = rand.Read(b[len(b)/4 : len(b)/2])
			_, _ = rand.Read(b[:200])
			return os.WriteFile(file, b, 0o600)
		}},
	} {
		if err := broken.put(); err != nil {
			return "", err
		}
		said, err := start()
		if err != nil {
			return "", fmt.Errorf("%s: %w", broken.how, err)
		}
		if strings.Contains(said, "goroutine ") || !strings.Contains(said, "authority-p.db") || !strings.Contains(said, "backup") {
			return "", fmt.Errorf("%s: it says %s", broken.how, said)
		}
	}
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		return "", err
	}
	if _, err := s.cli(ctx, "authority", "node", "start", "authority-p"); err != nil {
		return "", fmt.Errorf("put back: %w", err)
	}
	list, err := s.cli(ctx, "relay", "project-member", "list", "--output", "json")
	if err != nil {
		return "", err
	}
	if n := strings.Count(list, `"identifier"`); n < 3 { // administrator, bank, shop
		return "", fmt.Errorf("%d members are left: %s", n, list)
	}
	return "refused five times with the file's name, then all members were there", nil
}
