package node

import (
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"sallyport/internal/servers"
	"sallyport/node/resource"
)

// TestUnixSockets: a client at a Unix socket reaches a server at one, by path and by abstract name, and the socket is whose it should be.
func TestUnixSockets(t *testing.T) {
	a, b := plainNode(t, "a", "127.0.0.1:0"), plainNode(t, "b", "127.0.0.1:0")
	dir, err := os.MkdirTemp("", "sock") // short: a path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	abstract := "@" + filepath.Base(dir)
	for i, target := range []string{filepath.Join(dir, "target"), abstract + "-target"} {
		ln, err := net.Listen("unix", target)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		servers.Serve(ln, servers.Echo)
		name := []string{"path", "abstract"}[i]
		if _, err := b.CreateOutlet(t.Context(), resource.Outlet{Name: name, To: "unix:" + target}); err != nil {
			t.Fatal(err)
		}
		for _, at := range []string{filepath.Join(dir, "inlet"), abstract + "-inlet"} {
			r := resource.Inlet{From: "unix:" + at, To: tcpRoute(t, b) + "/secure/api/service/" + name, TellClient: true}
			if at[0] != '@' {
				r.SocketMode = "0640"
				stale, err := net.Listen("unix", at) // as a process that was killed leaves it
				if err != nil {
					t.Fatal(err)
				}
				stale.(*net.UnixListener).SetUnlinkOnClose(false)
				if _, err := a.CreateInlet(t.Context(), r); err == nil {
					t.Fatal("a socket that somebody listens on was taken")
				}
				stale.Close()
			}
			in, err := a.CreateInlet(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			if in.Bind != "unix:"+at {
				t.Error(in.Bind)
			}
			if info, err := os.Stat(at); at[0] != '@' && (err != nil || info.Mode() != fs.ModeSocket|0o640) {
				t.Error(info.Mode(), err)
			}
			c, err := net.Dial("unix", at)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, "hello")
			c.(*net.UnixConn).CloseWrite()
			if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
				t.Errorf("%s to %s: %q, %v", at, target, got, err)
			}
			c.Close()
			if err := a.DeleteInlet(t.Context(), in.Alias); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(at); !os.IsNotExist(err) {
				t.Error("left:", err)
			}
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, r := range []resource.Inlet{
		{From: "unix:" + file}, {From: "unix:relative"}, {From: "unix:"}, {From: "unix:" + dir + "/s", SocketMode: "9"}, {From: "unix:@x", SocketMode: "0600"},
		{From: "127.0.0.1:0", SocketMode: "0600"}, {From: "unix:" + dir + "/s", SocketOwner: "nobody-of-this-name"},
	} {
		r.To = "/service/x"
		if _, err := a.CreateInlet(t.Context(), r); err == nil {
			t.Errorf("%+v was taken", r)
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Error("a file that is no socket was removed")
	}
}
