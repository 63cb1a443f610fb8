package node

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"sallyport/logging"
	"sallyport/node/admin"
)

// What is remembered of the log, for who asks what happened lately.
const (
	maxEvents    = 256
	maxEventText = 200 // bytes of one value
	maxEventWith = 12
)

// events is the last records of the log, beside the log itself. What comes is bounded by nobody, so what is kept is few.
type events struct {
	mu   sync.Mutex
	list []admin.Event // a ring
	next int
}

// eventHandler is a slog.Handler that keeps records and hands them on.
type eventHandler struct {
	inner slog.Handler
	to    *events
	with  []slog.Attr
}

func (h *eventHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.inner.Enabled(ctx, l)
}

func (h *eventHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo {
		h.to.add(r, h.with)
	}
	return h.inner.Handle(ctx, r)
}

func (h *eventHandler) WithAttrs(list []slog.Attr) slog.Handler {
	return &eventHandler{h.inner.WithAttrs(list), h.to, append(slices.Clone(h.with), list...)}
}

func (h *eventHandler) WithGroup(name string) slog.Handler {
	return &eventHandler{h.inner.WithGroup(name), h.to, h.with}
}

// Counts returns what became of the records of the log behind, if that counts.
func (h *eventHandler) Counts() logging.Counts {
	if c, ok := h.inner.(interface{ Counts() logging.Counts }); ok {
		return c.Counts()
	}
	return logging.Counts{}
}

// add keeps a record. One that says the same as the last is counted with it.
func (e *events) add(r slog.Record, with []slog.Attr) {
	ev := admin.Event{Time: r.Time.UTC(), Level: r.Level.String(), Text: short(r.Message), With: map[string]string{}, Times: 1}
	put := func(a slog.Attr) bool {
		if len(ev.With) < maxEventWith && a.Key != "stack" {
			ev.With[a.Key] = short(a.Value.Resolve().String())
		}
		return true
	}
	for _, a := range with {
		put(a)
	}
	r.Attrs(put)
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.list) > 0 {
		last := &e.list[(e.next+len(e.list)-1)%len(e.list)]
		if last.Text == ev.Text && last.Level == ev.Level {
			ev.Times += last.Times
			*last = ev
			return
		}
	}
	if len(e.list) < maxEvents {
		e.list = append(e.list, ev)
		e.next = 0
		return
	}
	e.list[e.next] = ev
	e.next = (e.next + 1) % maxEvents
}

func short(s string) string {
	if len(s) > maxEventText {
		return s[:maxEventText]
	}
	return s
}

// Events returns what happened lately, the oldest first.
func (n *Node) Events() []admin.Event {
	e := n.events
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]admin.Event, 0, len(e.list))
	for i := range e.list {
		list = append(list, e.list[(e.next+i)%len(e.list)])
	}
	return list
}
