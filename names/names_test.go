package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// has makes a resolver that knows one name.
func has(list ...string) *Resolver {
	return &Resolver{LookupIP: func(_ context.Context, network, _ string) ([]netip.Addr, error) {
		var out []netip.Addr
		for _, a := range addrs(list...) {
			if network == "ip" || (network == "ip4") == a.Unmap().Is4() {
				out = append(out, a)
			}
		}
		return out, nil
	}}
}

func TestEveryAddressOfANameInTurn(t *testing.T) {
	for _, c := range []struct{ have, want string }{
		{"10.0.0.1", "10.0.0.1:5"},
		{"2001:db8::1 2001:db8::2 10.0.0.1 10.0.0.2", "[2001:db8::1]:5 10.0.0.1:5 [2001:db8::2]:5 10.0.0.2:5"},
		{"10.0.0.1 10.0.0.2 10.0.0.3 2001:db8::1", "10.0.0.1:5 [2001:db8::1]:5 10.0.0.2:5 10.0.0.3:5"},
		{"10.0.0.1 10.0.0.1 ::ffff:10.0.0.1 10.0.0.2", "10.0.0.1:5 10.0.0.2:5"},
	} {
		got, err := has(strings.Fields(c.have)...).Lookup(limited(t), "db.example:5")
		if text := strings.Trim(fmt.Sprint(got), "[]"); err != nil || fmt.Sprint(got) != "["+c.want+"]" {
			t.Errorf("%s: %s, %v", c.have, text, err)
		}
	}
	many := make([]string, 100)
	for i := range many {
		many[i] = fmt.Sprintf("10.0.1.%d", i)
	}
	if got, err := has(many...).Lookup(limited(t), "many.example:5"); err != nil || len(got) != MaxAddresses {
		t.Errorf("%d addresses are tried, %v", len(got), err)
	}
}

func TestIPv4Alone(t *testing.T) {
	got, err := has("2001:db8::1", "10.0.0.1", "10.0.0.2").LookupIPv4(limited(t), "relay.example:5")
	if err != nil || fmt.Sprint(got) != "[10.0.0.1:5 10.0.0.2:5]" {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := has("2001:db8::1").LookupIPv4(limited(t), "relay.example:5"); !errors.Is(err, ErrNoAddress) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := LookupIPv4(limited(t), "[::1]:5"); !errors.Is(err, ErrNoAddress) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := LookupIPv4(limited(t), "[::ffff:1.2.3.4]:5"); err != nil || fmt.Sprint(got) != "[1.2.3.4:5]" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestLocalhostIsBothLoopbacks(t *testing.T) {
	for _, name := range []string{"localhost", "localhost.", "LocalHost", "db.localhost"} {
		for _, have := range [][]string{nil, {"127.0.0.1"}, {"::1"}, {"::1", "127.0.0.1"}} {
			got, err := has(have...).Lookup(limited(t), name+":5")
			if err != nil || len(got) != 2 {
				t.Errorf("%s of %v: %v, %v", name, have, got, err)
			}
		}
	}
	if got, err := has("127.0.0.1").Lookup(limited(t), "notlocalhost:5"); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := Lookup(limited(t), "localhost.:5"); err != nil || len(got) != 2 {
		t.Errorf("the system's: %v, %v", got, err)
	}
	if got, err := Listen(limited(t), "localhost:5"); err != nil || got.String() != "127.0.0.1:5" {
		t.Errorf("to listen at: %s, %v", got, err)
	}
	if got, err := Listen(limited(t), "[::1]:5"); err != nil || got.String() != "[::1]:5" {
		t.Errorf("to listen at: %s, %v", got, err)
	}
}

func TestAddressesNeedNoResolver(t *testing.T) {
	r := &Resolver{LookupIP: func(_ context.Context, _, host string) ([]netip.Addr, error) {
		return nil, errors.New("asked for " + host)
	}}
	for in, want := range map[string]string{"127.0.0.1:80": "127.0.0.1:80", "[::1]:80": "[::1]:80", "[::ffff:10.0.0.1]:80": "10.0.0.1:80"} {
		if got, err := r.Lookup(limited(t), in); err != nil || len(got) != 1 || got[0].String() != want {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "a", "a:b", "127.0.0.1:70000", "127.0.0.1:-1", ":80", "a:80:90"} {
		if got, err := r.Lookup(limited(t), bad); !errors.Is(err, ErrHostPort) {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
	if _, err := r.Lookup(limited(t), "nowhere.example:80"); err == nil || !strings.Contains(err.Error(), "asked for nowhere.example") {
		t.Errorf("%v", err)
	}
}

// TestResolverThatNeverAnswersForOneFamily: a broken resolver for IPv6 (or IPv4) does not hold up the other.
func TestResolverThatNeverAnswersForOneFamily(t *testing.T) {
	for _, dead := range []string{"ip6", "ip4"} {
		r := &Resolver{LookupIP: func(ctx context.Context, network, _ string) ([]netip.Addr, error) {
			if network == "ip" || network == dead {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return addrs(map[string]string{"ip4": "10.0.0.1", "ip6": "2001:db8::1"}[network]), nil
		}}
		began := time.Now()
		got, err := r.Lookup(limited(t), "db.example:5")
		if err != nil || len(got) != 1 || time.Since(began) > time.Minute { // before the dead one is given up
			t.Errorf("%s is dead: %v, %v after %v", dead, got, err, time.Since(began))
		}
	}
	// Both answer, but slowly: IPv6 first.
	r := &Resolver{LookupIP: func(ctx context.Context, network, _ string) ([]netip.Addr, error) {
		switch network {
		case "ip":
			<-ctx.Done()
			return nil, ctx.Err()
		case "ip4":
			return addrs("10.0.0.1"), nil
		}
		return addrs("2001:db8::1"), nil
	}}
	if got, err := r.Lookup(limited(t), "db.example:5"); err != nil || len(got) == 2 && got[0].Addr().Is4() {
		t.Errorf("%v, %v", got, err)
	}
}

// deaf listens at an address where a connection is neither taken nor refused, as behind a firewall that drops: its queue is full.
func deaf(t *testing.T, at string) (port string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: netip.MustParseAddr(at).As4()}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port = fmt.Sprint(sa.(*unix.SockaddrInet4).Port)
	for range 8 {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(at, port), 200*time.Millisecond)
		if err != nil {
			return port
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Skip("the system takes connections beyond a listener's queue")
	return ""
}

func TestDeadFirstAddressIsNotFinal(t *testing.T) {
	port := deaf(t, "127.0.0.2")
	ln, err := net.Listen("tcp", "127.0.0.3:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, list := range [][]string{{"127.0.0.2", "127.0.0.3"}, {"127.0.0.4", "127.0.0.2", "127.0.0.5", "127.0.0.3"}} { // dead, refused, dead...
		began := time.Now()
		c, err := has(list...).Dial(limited(t), "tcp", "db.example:"+port)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if took := time.Since(began); took > 45*time.Second {
			t.Errorf("%v: connected after %v", list, took)
		}
	}
	_, err = has("127.0.0.4", "127.0.0.5").Dial(limited(t), "tcp", "db.example:"+port)
	if !errors.Is(err, unix.ECONNREFUSED) || !strings.Contains(err.Error(), "127.0.0.4") || !strings.Contains(err.Error(), "127.0.0.5") {
		t.Errorf("all refused: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	_, err = has("127.0.0.4", "127.0.0.2").Dial(short, "tcp", "db.example:"+port)
	late := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) // the context's, or the socket's made of it
	if !late || !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("one refused, one dead: %v", err)
	}
}

// TestRace: attempts begin one after the other, a loser's context ends, and what it made is given back.
func TestRace(t *testing.T) {
	list := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:1"), netip.MustParseAddrPort("10.0.0.3:1")}
	var started []string
	var discarded atomic.Int32
	lost := make(chan struct{})
	got, err := Race(limited(t), list, func(ctx context.Context, a netip.AddrPort) (string, error) {
		if a == list[0] {
			<-ctx.Done()
			defer close(lost)
			return "late", nil
		}
		return "second", nil
	}, func(string) { discarded.Add(1) })
	if err != nil || got != "second" {
		t.Errorf("%s, %v", got, err)
	}
	<-lost
	for end := time.Now().Add(90 * time.Second); discarded.Load() != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what the loser made was not given back")
		}
	}
	// A failure starts the next one at once.
	began := time.Now()
	_, err = Race(limited(t), list, func(_ context.Context, a netip.AddrPort) (string, error) {
		started = append(started, a.Addr().String())
		return "", errors.New("refused by " + a.Addr().String())
	}, nil)
	if err == nil || strings.Count(err.Error(), "refused by") != 3 || !reflect.DeepEqual(started, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}) {
		t.Errorf("%v, %v", started, err)
	}
	if took := time.Since(began); took > AttemptDelay {
		t.Logf("three failures took %v", took)
	}
	if _, err := Race(limited(t), nil, func(context.Context, netip.AddrPort) (string, error) { return "", nil }, nil); !errors.Is(err, ErrNoAddress) {
		t.Error(err)
	}
}

// TestRaceWaits: the next attempt begins when its time has come, or when one that is under way has said.
func TestRaceWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var mu sync.Mutex
		var started []time.Duration
		wait := make(chan time.Duration, 1)
		got, err := RaceEach(t.Context(), time.Second, wait, []int{0, 1, 2, 3}, func(ctx context.Context, k int) (int, error) {
			mu.Lock()
			started = append(started, time.Since(began))
			mu.Unlock()
			switch k {
			case 0: // it answers late, and says so
				time.Sleep(500 * time.Millisecond)
				wait <- 4 * time.Second
			case 1: // it is of no use
				time.Sleep(100 * time.Millisecond)
				wait <- 0
			case 3:
				return k, nil
			}
			<-ctx.Done()
			return 0, ctx.Err()
		}, func(int) {})
		want := []time.Duration{0, 4500 * time.Millisecond, 4600 * time.Millisecond, 5600 * time.Millisecond}
		if err != nil || got != 3 || !slices.Equal(started, want) {
			t.Errorf("%d won, %v; they began after %v, want %v", got, err, started, want)
		}
	})
}

// TestSpread: who has one text tries addresses in one order, many texts divide who uses a name among the addresses, and when one goes the others keep their order.
func TestSpread(t *testing.T) {
	have := []string{"10.0.0.1", "2001:db8::1", "10.0.0.2", "2001:db8::2", "10.0.0.3", "2001:db8::3"}
	first, changed := map[netip.AddrPort]int{}, false
	plain, err := has(have...).Lookup(limited(t), "relays.example:5")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		r, less := has(have...), has(have[:4]...)
		r.Spread, less.Spread = fmt.Sprint("member ", i), fmt.Sprint("member ", i)
		list, err := r.Lookup(limited(t), "relays.example:5")
		if err != nil {
			t.Fatal(err)
		}
		again, err := r.Lookup(limited(t), "relays.example:5")
		if err != nil || !reflect.DeepEqual(list, again) {
			t.Fatalf("%v, then %v: %v", list, again, err)
		}
		first[list[0]]++
		changed = changed || !reflect.DeepEqual(list, plain)
		all := map[netip.AddrPort]bool{}
		for k, a := range list {
			all[a] = true
			if a.Addr().Is4() != (k%2 == 0) { // as without
				t.Errorf("the families do not take turns: %v", list)
			}
		}
		if len(all) != len(have) {
			t.Fatalf("%v are not all", list)
		}
		kept, err := less.Lookup(limited(t), "relays.example:5")
		if err != nil {
			t.Fatal(err)
		}
		var left []netip.AddrPort
		for _, a := range list {
			if text := a.Addr().String(); text != "10.0.0.3" && text != "2001:db8::3" {
				left = append(left, a)
			}
		}
		if !sameInFamilies(kept, left) {
			t.Errorf("with one less: %v, before: %v", kept, left)
		}
	}
	if len(first) != 3 || !changed {
		t.Errorf("they begin with %v", first)
	}
	for a, n := range first {
		if n < 60 { // 100 is the mean; each text has its place in this test
			t.Errorf("%s is first for %d of 300", a, n)
		}
	}
}

// sameInFamilies reports whether two lists have the same addresses of each family in the same order.
func sameInFamilies(a, b []netip.AddrPort) bool {
	of := func(list []netip.AddrPort, is4 bool) (out []netip.AddrPort) {
		for _, x := range list {
			if x.Addr().Is4() == is4 {
				out = append(out, x)
			}
		}
		return out
	}
	return reflect.DeepEqual(of(a, true), of(b, true)) && reflect.DeepEqual(of(a, false), of(b, false))
}
