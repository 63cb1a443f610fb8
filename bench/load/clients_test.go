package load

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sallyport/internal/servers"
)

// TestClients: each client gets its answers from a real socket, tells a wrong one, and ends with its context while it waits.
func TestClients(t *testing.T) {
	echo := servers.Listen(t, servers.Echo)
	silent := servers.Listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	redis := servers.Listen(t, func(c net.Conn) {
		for in := bufio.NewReader(c); ; {
			for range 3 {
				if _, err := in.ReadString('\n'); err != nil {
					return
				}
			}
			_, _ = io.WriteString(c, "+PONG\r\n")
		}
	})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/small" || r.Host != "here" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, strings.Repeat("x", 5000))
	}))
	defer web.Close()
	fetch := func(path string) Dial {
		d, err := HTTP(strings.TrimPrefix(web.URL, "http://"), "here", path)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for name, k := range map[string]struct {
		dial Dial
		want string // in the error; empty: none
	}{
		"echo":                    {Echo(echo, nil, 1), ""},
		"echo of a mebibyte":      {Echo(echo, []byte("e"), 1<<20), ""},
		"redis":                   {Redis(redis), ""},
		"redis at an echo server": {Redis(echo), `it should be "+PONG`},
		"http":                    {fetch("/small"), ""},
		"http, not found":         {fetch("/other"), "404"},
	} {
		c, err := k.dial(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for range 3 {
			if err = c.Do(); err != nil {
				break
			}
		}
		if (k.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), k.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	c, err := Redis(silent)(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- c.Do() }()
	cancel()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("an answer that was never sent")
		}
	case <-time.After(time.Minute):
		t.Fatal("Do outlives its context")
	}
	_ = c.Close()
}

// TestRun is a run over real sockets and with the kernel's clock.
func TestRun(t *testing.T) {
	echo := servers.Listen(t, servers.Echo)
	r, err := Run(t.Context(), Options{Rate: 500, Poisson: true, Duration: 300 * time.Millisecond, Connections: 4, Dial: Echo(echo, nil, 64), Grace: time.Minute})
	if err != nil || r.Answered != r.Due || r.Due == 0 || r.Latency.Count != r.Due || r.Latency.Max <= 0 {
		t.Errorf("%+v %v", r, err)
	}
}
