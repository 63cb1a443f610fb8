package node

import (
	"reflect"
	"strings"
	"testing"
)

// TestWhatAnInletAgreesOn: with a list what it says, without one what is sure to work.
func TestWhatAnInletAgreesOn(t *testing.T) {
	for _, c := range []struct {
		list, client string
		rewritten    bool
		want         string
	}{
		{"", "", false, ""},
		{"", "h2", false, "h2"},
		{"", "h2 http/1.1", false, "http/1.1"},
		{"", "http/1.1", false, "http/1.1"},
		{"", "postgresql", false, "postgresql"},
		{"", "imap mqtt", false, ""},
		{"", "h2", true, ""},
		{"", "h2 http/1.1", true, "http/1.1"},
		{"h2 http/1.1", "http/1.1 h2", false, "h2 http/1.1"},
		{"none", "h2 http/1.1", false, ""},
	} {
		if got := choose(strings.Fields(c.list), strings.Fields(c.client), c.rewritten); !reflect.DeepEqual(append([]string{}, got...), strings.Fields(c.want)) {
			t.Errorf("list %q, client %q, rewritten %v: %q", c.list, c.client, c.rewritten, got)
		}
	}
}

// TestWhatAClientSpeaks: the first bytes tell, however they are cut.
func TestWhatAClientSpeaks(t *testing.T) {
	for i := range len(preface) {
		if protocols, more := spoken([]byte(preface[:i])); !more || protocols != nil {
			t.Errorf("%d bytes of the preface: %q, %v", i, protocols, more)
		}
	}
	for text, want := range map[string]string{
		preface: "h2", preface + "more": "h2", "GET / HTTP/1.1": "http/1.1", "PROPFIND /x": "http/1.1", "OPTIONS * HTTP/1.1": "http/1.1",
		"CONNECT example:443": "http/1.1", "PRIVATE /": "http/1.1", "\x16\x03\x01": "", "EHLO there": "", "get / ": "", "PRI * HTTP/3": "http/1.1", "GET http://x/": "http/1.1",
		"\x00\x00\x00\x08\x04\xd2\x16\x2f": "", "GET": "",
	} {
		protocols, more := spoken([]byte(text))
		if got := strings.Join(protocols, " "); got != want || more {
			t.Errorf("%q: %q, more %v", text, got, more)
		}
	}
}

func TestCheckProtocols(t *testing.T) {
	for _, good := range [][]string{nil, {"h2"}, {"h2", "http/1.1"}, {"none"}} {
		if err := checkProtocols(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range [][]string{{""}, {"h2", ""}, {"none", "h2"}, {strings.Repeat("x", 256)}} {
		if err := checkProtocols(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
