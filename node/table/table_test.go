package table

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/node/admin"
	"sallyport/node/resource"
)

// lamp is a request of a kind made for the tests.
type lamp struct {
	Name   string `json:"name" flag:"-"`
	Color  string `json:"color" flag:"color"`
	Bright int    `json:"bright" flag:"bright"`
	Socket string `json:"socket,omitempty" flag:"-" memo:"kept"`
}

// light is what becomes of a lamp.
type light struct{ lamp lamp }

// house is a set with one kind, and what its functions were called with.
type house struct {
	*Set
	lamps *Table[lamp, *light]
	store *memory

	mu     sync.Mutex
	log    []string
	broken map[string]error // why a lamp cannot be opened
	gate   chan struct{}    // opening waits for it, if it is not nil
	state  resource.Status
}

// memory is a store that keeps what was saved last.
type memory struct {
	mu    sync.Mutex
	last  []resource.Stored
	saves int
	fail  error
}

func (m *memory) Save(list []resource.Stored) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saves++
	if m.fail == nil {
		m.last = list
	}
	return m.fail
}

func (m *memory) Load() ([]resource.Stored, error) { return m.last, m.fail }

func (m *memory) text() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b bytes.Buffer
	for _, r := range m.last {
		fmt.Fprintf(&b, "%s %v %s\n", r.Name, r.FromFile, r.Request)
	}
	return b.String()
}

func newHouse(t *testing.T, store *memory) *house {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	h := &house{store: store, broken: map[string]error{}, state: resource.Status{State: resource.Up}}
	h.Set = NewSet(ctx, store, slog.New(slog.DiscardHandler))
	h.lamps = Add(h.Set, Kind[lamp, *light]{
		Name: "lamp", Noun: "lamp", Key: func(r *lamp) *string { return &r.Name }, Ends: true,
		Check: func(_ context.Context, r *lamp, _ func(string) bool) error {
			if r.Color == "" {
				return fmt.Errorf("%w: a lamp has a color", admin.ErrInvalid)
			}
			return nil
		},
		Open: func(_ context.Context, o *Opening[lamp]) (*light, error) {
			h.mu.Lock()
			err, gate := h.broken[o.Request.Name], h.gate
			h.log = append(h.log, fmt.Sprintf("open %s again=%v", o.Request.Name, o.Again))
			h.mu.Unlock()
			if gate != nil {
				<-gate
			}
			if err != nil {
				return nil, err
			}
			if o.Request.Socket == "" {
				o.Request.Socket = "socket of " + o.Request.Name
			}
			return &light{o.Request}, nil
		},
		InPlace: []string{"bright"},
		Update: func(_ context.Context, l *light, from, to *lamp) error {
			h.note("update %s %d->%d", to.Name, from.Bright, to.Bright)
			if to.Bright > 100 {
				return errors.New("too bright")
			}
			l.lamp = *to
			return nil
		},
		Close:  func(_ context.Context, l *light) error { h.note("close %s", l.lamp.Name); return nil },
		Status: func(*light) resource.Status { h.mu.Lock(); defer h.mu.Unlock(); return h.state },
	})
	return h
}

func (h *house) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

// took returns what was called since the last time.
func (h *house) took() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := strings.Join(h.log, "; ")
	h.log = nil
	return text
}

func (h *house) breakLamp(name string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.broken[name] = err
}

func (h *house) apply(t *testing.T, r admin.ApplyRequest) admin.Applied {
	t.Helper()
	a, err := h.Apply(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// wanted makes resources of lamps.
func wanted(lamps ...lamp) (list []resource.Stored) {
	for _, l := range lamps {
		raw, _ := json.Marshal(l)
		list = append(list, resource.Stored{Kind: "lamp", Name: l.Name, FromFile: true, Request: raw})
	}
	return list
}

func lines(a admin.Applied) string {
	var list []string
	for _, d := range a.Differences {
		text := d.String()
		if d.Error != "" {
			text += " !" + d.Error
		}
		list = append(list, text)
	}
	return strings.Join(list, "; ")
}

func (h *house) names() string {
	var list []string
	for _, i := range h.lamps.List() {
		list = append(list, fmt.Sprintf("%s=%s", i.Request.Name, i.Status.State))
	}
	return strings.Join(list, " ")
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestCreateAndDelete(t *testing.T) {
	h := newHouse(t, &memory{})
	ctx := t.Context()
	i, err := h.lamps.Create(ctx, lamp{Name: "a", Color: "red"})
	if err != nil || i.Request.Socket != "socket of a" || i.Status.State != resource.Up || i.Status.Since.IsZero() {
		t.Fatalf("%+v, %v", i, err)
	}
	expect(t, "stored", h.store.text(), `a false {"name":"a","color":"red","bright":0,"socket":"socket of a"}`+"\n")
	if _, err := h.lamps.Create(ctx, lamp{Name: "a", Color: "blue"}); !errors.Is(err, admin.ErrExists) {
		t.Errorf("created twice: %v", err)
	}
	if _, err := h.lamps.Create(ctx, lamp{Name: "b"}); !errors.Is(err, admin.ErrInvalid) {
		t.Errorf("created without a color: %v", err)
	}
	h.breakLamp("b", errors.New("no power"))
	if _, err := h.lamps.Create(ctx, lamp{Name: "b", Color: "blue"}); err == nil || err.Error() != "no power" {
		t.Errorf("created without power: %v", err)
	}
	expect(t, "what is there", h.names(), "a=up")
	if err := h.lamps.Delete(ctx, "a"); err != nil {
		t.Error(err)
	}
	if err := h.lamps.Delete(ctx, "a"); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	expect(t, "stored", h.store.text(), "")
	expect(t, "calls", h.took(), "open a again=false; open b again=false; close a")
}

// While one resource is opened, its name is taken, lists are answered, and others are created and deleted.
func TestOpenOutsideLock(t *testing.T) {
	h := newHouse(t, &memory{})
	ctx := t.Context()
	if _, err := h.lamps.Create(ctx, lamp{Name: "other", Color: "red"}); err != nil {
		t.Fatal(err)
	}
	gate := make(chan struct{})
	h.mu.Lock()
	h.gate = gate
	h.mu.Unlock()
	done := make(chan error)
	go func() {
		_, err := h.lamps.Create(ctx, lamp{Name: "slow", Color: "red"})
		done <- err
	}()
	for h.names() != "other=up slow=opening" {
		time.Sleep(time.Millisecond)
	}
	if _, err := h.lamps.Create(ctx, lamp{Name: "slow", Color: "red"}); !errors.Is(err, admin.ErrExists) {
		t.Errorf("the name is not taken: %v", err)
	}
	if err := h.lamps.Delete(ctx, "other"); err != nil {
		t.Errorf("deletion of another: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if err := h.lamps.Delete(short, "slow"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deleted while it is opened: %v", err)
	}
	expect(t, "not yet written down", h.store.text(), "")
	close(gate)
	if err := <-done; err != nil {
		t.Error(err)
	}
	expect(t, "what is there", h.names(), "slow=up")
}

// What cannot be opened at a start stays in the list with its reason, is tried again, and comes up. What this program does not know
// is kept.
func TestRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		strange := resource.Stored{Kind: "heater", Name: "h", Request: []byte(`{"x":1}`)}
		unreadable := resource.Stored{Kind: "lamp", Name: "u", Request: []byte(`{"bright":"very"}`)}
		store := &memory{last: append(wanted(lamp{Name: "a", Color: "red", Socket: "s"}, lamp{Name: "b", Color: "blue"}), strange, unreadable)}
		before := store.text()
		h := newHouse(t, store)
		h.breakLamp("b", errors.New("address in use"))
		if err := h.Restore(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(t, "what is there", h.names(), "a=up b=down")
		i, _ := h.lamps.Get("b")
		if i.Status.Reason != "address in use" || !i.Status.NextTry.After(time.Now()) {
			t.Errorf("%+v", i.Status)
		}
		if err := h.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(t, "stored", strings.ReplaceAll(store.text(), `,"socket":"s"`, ""), strings.ReplaceAll(before, `,"socket":"s"`, ""))
		since := i.Status.Since
		time.Sleep(firstPause + time.Millisecond)
		synctest.Wait()
		if i, _ = h.lamps.Get("b"); i.Status.State != resource.Down || !i.Status.Since.Equal(since) {
			t.Errorf("after a second try: %+v, down since %v", i.Status, since)
		}
		h.breakLamp("b", nil)
		time.Sleep(2*firstPause + time.Millisecond)
		synctest.Wait()
		expect(t, "what is there", h.names(), "a=up b=up")
		expect(t, "calls", h.took(), "open a again=true; open b again=true; open b again=true; open b again=true")
		if !strings.Contains(store.text(), "socket of b") {
			t.Errorf("what was noted at the late opening is not written down: %s", store.text())
		}
		// A failed one can be deleted, and another be created in its place.
		h.breakLamp("c", errors.New("no"))
		h.apply(t, admin.ApplyRequest{Resources: wanted(lamp{Name: "c", Color: "red"}, lamp{Name: "a", Color: "red"}, lamp{Name: "b", Color: "blue"})})
		expect(t, "what is there", h.names(), "a=up b=up c=down")
		if _, err := h.lamps.Create(t.Context(), lamp{Name: "c", Color: "green"}); err == nil {
			t.Error("created although it cannot be opened")
		}
		expect(t, "what is there", h.names(), "a=up b=up c=down")
		h.breakLamp("c", nil)
		if _, err := h.lamps.Create(t.Context(), lamp{Name: "c", Color: "green"}); err != nil {
			t.Error(err)
		}
		if err := h.lamps.Delete(t.Context(), "c"); err != nil {
			t.Error(err)
		}
	})
}

func TestApply(t *testing.T) {
	h := newHouse(t, &memory{})
	ctx := t.Context()
	if _, err := h.lamps.Create(ctx, lamp{Name: "hand", Color: "red"}); err != nil {
		t.Fatal(err)
	}
	file := wanted(lamp{Name: "a", Color: "red"}, lamp{Name: "b", Color: "blue", Bright: 1}, lamp{Name: "c", Color: "c"})
	h.took()
	checked := h.apply(t, admin.ApplyRequest{Resources: file, Check: true})
	expect(t, "check", lines(checked), "+ lamp a; + lamp b; + lamp c")
	expect(t, "calls", h.took(), "")
	expect(t, "applied", lines(h.apply(t, admin.ApplyRequest{Resources: file})), "+ lamp a; + lamp b; + lamp c")
	h.took()
	again := h.apply(t, admin.ApplyRequest{Resources: file})
	expect(t, "again", lines(again)+strings.Join(again.ByHand, ","), "lamp hand")
	expect(t, "calls", h.took(), "")

	// One changed in place, one closed and opened, one removed, one failing: the others are not touched.
	h.breakLamp("d", errors.New("no power"))
	file = wanted(lamp{Name: "a", Color: "red"}, lamp{Name: "b", Color: "blue", Bright: 2}, lamp{Name: "c", Color: "cyan"}, lamp{Name: "d", Color: "d"})
	file = slices.DeleteFunc(file, func(r resource.Stored) bool { return r.Name == "a" })
	want := "~ lamp b: bright; ~ lamp c: color (closed and opened); + lamp d; - lamp a"
	expect(t, "check", lines(h.apply(t, admin.ApplyRequest{Resources: file, Check: true})), want)
	expect(t, "applied", lines(h.apply(t, admin.ApplyRequest{Resources: file})), strings.Replace(want, "+ lamp d", "+ lamp d !no power", 1))
	expect(t, "calls", h.took(), "close a; close c; update b 1->2; open c again=true; open d again=false")
	expect(t, "what is there", h.names(), "b=up c=up d=down hand=up")
	if i, _ := h.lamps.Get("c"); i.Request.Socket != "socket of c" || i.Value.lamp.Color != "cyan" {
		t.Errorf("%+v", i)
	}
	// Again changes nothing, but tries at once what had failed.
	h.breakLamp("d", nil)
	again = h.apply(t, admin.ApplyRequest{Resources: file})
	expect(t, "again", lines(again), "")
	for h.names() != "b=up c=up d=up hand=up" {
		time.Sleep(time.Millisecond)
	}

	// A change in place that is refused leaves the old in effect and says so.
	file[0] = wanted(lamp{Name: "b", Color: "blue", Bright: 101})[0]
	expect(t, "refused", lines(h.apply(t, admin.ApplyRequest{Resources: file})), "~ lamp b: bright !too bright")
	if i, _ := h.lamps.Get("b"); i.Status.State != resource.Degraded || i.Request.Bright != 2 || !strings.Contains(i.Status.Reason, "too bright") {
		t.Errorf("%+v", i)
	}

	// What can never be: nothing is done, and each fault is told.
	bad := append(wanted(lamp{Name: "x"}, lamp{Name: "y", Color: "y"}, lamp{Name: "y", Color: "z"}), resource.Stored{Kind: "heater", Name: "h"})
	h.took()
	a := h.apply(t, admin.ApplyRequest{Resources: bad})
	expect(t, "faults", fmt.Sprint(a.Faults), "[{heater h the node has no such kind of resource} {lamp x a lamp has a color} {lamp y there are two of this name}]")
	expect(t, "calls", h.took(), "")

	// Prune takes what was made by hand too; adopting makes it the file's.
	adopted := h.apply(t, admin.ApplyRequest{Resources: wanted(lamp{Name: "hand", Color: "red"})})
	expect(t, "adopted", lines(adopted), "- lamp b; - lamp c; - lamp d")
	expect(t, "empty", lines(h.apply(t, admin.ApplyRequest{})), "- lamp hand")
	if _, err := h.lamps.Create(ctx, lamp{Name: "hand", Color: "red"}); err != nil {
		t.Fatal(err)
	}
	expect(t, "left", lines(h.apply(t, admin.ApplyRequest{})), "")
	expect(t, "pruned", lines(h.apply(t, admin.ApplyRequest{Prune: true})), "- lamp hand")
	expect(t, "stored", h.store.text(), "")
}

// Parts of another resource are listed, but neither written down nor removed by a configuration.
func TestParts(t *testing.T) {
	h := newHouse(t, &memory{})
	open := func(_ context.Context, o *Opening[lamp]) (*light, error) { return &light{o.Request}, nil }
	if _, err := h.lamps.CreatePart(t.Context(), "chandelier", lamp{Name: "p", Color: "red"}, open); err != nil {
		t.Fatal(err)
	}
	if err := h.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := h.apply(t, admin.ApplyRequest{Prune: true})
	expect(t, "what is there", h.names()+lines(a)+h.store.text(), "p=up")
	if err := h.lamps.DeleteParts(t.Context(), "chandelier"); err != nil {
		t.Error(err)
	}
	expect(t, "calls", h.names()+h.took(), "close p")
}

// What cannot be written down is said; changes at the same time share a write.
func TestSave(t *testing.T) {
	store := &memory{fail: errors.New("disk full")}
	h := newHouse(t, store)
	if _, err := h.lamps.Create(t.Context(), lamp{Name: "a", Color: "red"}); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("%v", err)
	}
	expect(t, "what is there", h.names(), "a=up")
	store.mu.Lock()
	store.fail, store.saves = nil, 0
	store.mu.Unlock()
	store.mu.Lock() // the writer waits here with the first
	var all sync.WaitGroup
	for n := range 50 {
		all.Go(func() {
			if _, err := h.lamps.Create(t.Context(), lamp{Name: fmt.Sprint("l", n), Color: "red"}); err != nil {
				t.Error(err)
			}
		})
	}
	for len(h.lamps.List()) < 51 || strings.Contains(h.names(), "opening") {
		time.Sleep(time.Millisecond)
	}
	store.mu.Unlock()
	all.Wait()
	if len(store.last) != 51 || store.saves > 50 {
		t.Errorf("%d written down in %d writes", len(store.last), store.saves)
	}
}

// Kinds are opened after those that they depend on, and closed before them.
func TestOrder(t *testing.T) {
	s := NewSet(t.Context(), &memory{}, slog.New(slog.DiscardHandler))
	for name, after := range map[string][]string{"inlet": {"policy", "outlet"}, "outlet": {"policy"}, "policy": nil, "kafka": {"inlet"}} {
		Add(s, Kind[lamp, *light]{Name: name, After: after, Key: func(r *lamp) *string { return &r.Name }})
	}
	var names []string
	for _, m := range s.order() {
		names = append(names, m.name())
	}
	if want := []string{"policy", "outlet", "inlet", "kafka"}; !reflect.DeepEqual(names, want) {
		t.Errorf("order %v, want %v", names, want)
	}
}
