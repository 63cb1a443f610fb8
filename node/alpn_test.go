package node

import (
	"context"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
		{"", "grpc-exp h2", false, "h2"},
		{"", "h2 h2-16 spdy/3.1", false, "h2"},
		{"", "grpc-exp h2 http/1.1", false, "http/1.1"},
		{"", "grpc-exp h2", true, ""},
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

// TestPeekLeavesBytes: what waits on a socket tells its protocol and stays there; when the time is over nobody looks.
func TestPeekLeavesBytes(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		defer ends[i].Close()
	}
	if _, err := ends[0].Write([]byte(preface)); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	local := ends[1].(*net.UnixConn)
	if got := peek(over, local); got != nil {
		t.Errorf("after the time: %q", got)
	}
	for _, ctx := range []context.Context{t.Context(), within(t)} {
		if got := peek(ctx, local); len(got) != 1 || got[0] != http2 {
			t.Errorf("in time: %q", got)
		}
	}
	b := make([]byte, len(preface))
	if _, err := io.ReadFull(local, b); err != nil || string(b) != preface {
		t.Errorf("%q is left, %v", b, err)
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
