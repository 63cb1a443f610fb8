package portal

import (
	"reflect"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// locksIn returns the locks that lie in the struct behind p itself. What it points to is not followed, so nothing is read that
// a loop may be writing.
func locksIn(p any) []sync.Locker {
	v := reflect.ValueOf(p).Elem()
	return locksAt(v.Type(), v.Addr().UnsafePointer())
}

func locksAt(t reflect.Type, at unsafe.Pointer) (list []sync.Locker) {
	switch t {
	case reflect.TypeFor[sync.Mutex]():
		return []sync.Locker{(*sync.Mutex)(at)}
	case reflect.TypeFor[sync.RWMutex]():
		return []sync.Locker{(*sync.RWMutex)(at)}
	}
	if t.Kind() == reflect.Struct {
		for i := range t.NumField() {
			list = append(list, locksAt(t.Field(i).Type, unsafe.Add(at, t.Field(i).Offset))...)
		}
	}
	return list
}

// TestPathTakesNoLock holds every lock of the inlet's node, the relay and the outlet's node, and expects that requests and bulk go on
// through them: whoever took a lock for a message would wait for it here.
func TestPathTakesNoLock(t *testing.T) {
	target, ch := served(t)
	grant := NewGrant(true)
	c := newChain(t, 1, 1, false, Limits{}, OutletOptions{Target: target, Guard: gate{grant}})
	client, server := c.paired(t, 0, ch)
	list := movers(t)
	for _, m := range list { // the windows have grown, the way back through the relay is known
		if err := m.move(client, server); err != nil {
			t.Fatal(err)
		}
	}
	var locks []sync.Locker
	hold := func(what any, atLeast int) {
		found := locksIn(what)
		if len(found) < atLeast {
			t.Errorf("%T has %d locks: this test looks in the wrong place", what, len(found))
		}
		locks = append(locks, found...)
	}
	hold(grant, 1)
	hold(c.in[0], 1)
	hold(c.out, 1)
	hold(c.relays, 1)
	for _, m := range c.members() {
		hold(m.router, 1)
		hold(m.tcp, 2)
		hold(m.channels, 1)
		for _, s := range m.router.Shards() {
			hold(s, 0)
			hold(s.Loop(), 1)
		}
	}
	for _, l := range locks {
		l.Lock()
	}
	// A deadline wakes the movers, so that the locks are given back before anything is cleaned up.
	deadline := time.Now().Add(90 * time.Second)
	client.SetDeadline(deadline)
	server.SetDeadline(deadline)
	var failed error
	var in string
	for _, m := range list {
		for range 3 {
			if failed = m.move(client, server); failed != nil {
				in = m.name
				break
			}
		}
		if failed != nil {
			break
		}
	}
	for _, l := range locks {
		l.Unlock()
	}
	if failed != nil {
		t.Fatalf("%s with %d locks held: %v", in, len(locks), failed)
	}
	t.Logf("%d locks held", len(locks))
}
