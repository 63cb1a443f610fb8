package logging

import (
	"fmt"
	"log/slog"
	"unicode/utf8"

	"sallyport/internal/visible"
)

const (
	// maxRecord bounds all values of a record together, before they are quoted.
	maxRecord = 4 << 10
	// stackField names the field that may be longer: the stack of a fault of ours.
	stackField = "stack"
	maxStack   = 16 << 10
	ellipsis   = "…"
)

// cut returns s with at most n bytes, and says when something is missing.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n = max(n-len(ellipsis), 0)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + ellipsis
}

// shorten returns a with texts of bounded length, which are taken from budget.
func (l *log) shorten(a slog.Attr, budget *int) slog.Attr {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindGroup:
		group := v.Group()
		short := make([]slog.Attr, 0, len(group))
		for _, g := range group {
			short = append(short, l.shorten(g, budget))
		}
		return slog.Attr{Key: a.Key, Value: slog.GroupValue(short...)}
	case slog.KindString:
		return slog.String(a.Key, l.text(a.Key, v.String(), budget))
	case slog.KindAny:
		switch x := v.Any().(type) {
		case nil:
			return a
		case error:
			return slog.String(a.Key, l.text(a.Key, x.Error(), budget))
		case fmt.Stringer:
			return slog.String(a.Key, l.text(a.Key, x.String(), budget))
		default:
			return slog.String(a.Key, l.text(a.Key, fmt.Sprint(x), budget))
		}
	default:
		return slog.Attr{Key: a.Key, Value: v}
	}
}

func (l *log) text(key, s string, budget *int) string {
	if key == stackField {
		return cut(s, maxStack)
	}
	s = cut(visible.Text(s), min(l.opts.Text, *budget))
	*budget -= len(s)
	return s
}
