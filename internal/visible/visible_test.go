package visible

import "testing"

// TestText: escapes, one-character CSI, DEL, marks of direction and broken UTF-8 do not pass; what people write does.
func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a\tb\nü漢✔": "a\tb\nü漢✔", "a\x1b[2Jb": "a\ufffd[2Jb", "\u009b2J": "\ufffd2J", "\x9b2J": "\ufffd2J", "a\rb\x00\a\b\x7f": "a\ufffdb\ufffd\ufffd\ufffd\ufffd",
		"\u202ecba\u202c\u2066": "\ufffdcba\ufffd\ufffd", "\x1b]0;title\a": "\ufffd]0;title\ufffd",
	} {
		if got := Text(in); got != want {
			t.Errorf("%q: %q, not %q", in, got, want)
		}
	}
}
