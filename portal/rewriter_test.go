package portal

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"sallyport/portal/httpheader"
	"sallyport/routing"
)

// newHTTPLink is newLink with an inlet that sets header fields.
func newHTTPLink(t testing.TB, target string, plain bool, fields ...httpheader.Field) *link {
	t.Helper()
	l := newLink(t, target, plain, Limits{}, Limits{})
	path := l.in.path.Load().route
	ctx := limited(t)
	if err := l.in.Close(ctx); err != nil {
		t.Fatal(err)
	}
	in, err := NewInlet(ctx, l.a.env, l.a.router, InletOptions{Name: "http", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Plain: plain, Rewrite: func() Rewriter {
		return httpheader.New(httpheader.Options{Fields: func() []httpheader.Field { return fields }})
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(context.Background()) })
	in.SetPath(path)
	l.in = in
	return l
}

// A real client and a real server: many requests of all kinds on few connections, each with the header that was set and with its
// body whole.
func TestHTTPHeader(t *testing.T) {
	kinds(t, func(t *testing.T, plain bool) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sum := sha256.New()
			n, err := io.Copy(sum, r.Body)
			if r.Method == http.MethodHead {
				return
			}
			fmt.Fprintf(w, "%v %s %d %x %v %s", r.Header["Authorization"], r.Host, n, sum.Sum(nil), err, r.Header.Get("Other"))
		}))
		t.Cleanup(server.Close)
		l := newHTTPLink(t, server.Listener.Addr().String(), plain, httpheader.Field{Name: "Authorization", Value: "Bearer secret"}, httpheader.Field{Name: "Host", Value: "db.example"})
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2}}
		t.Cleanup(client.CloseIdleConnections)
		random := rand.New(rand.NewSource(1))
		for i := range 20 {
			body := make([]byte, []int{0, 1, 1000, 70_000, 1_500_000}[i%5])
			random.Read(body)
			var reader io.Reader = bytes.NewReader(body)
			if i%2 == 0 {
				reader = io.MultiReader(reader) // of unknown length: chunked
			}
			method := []string{"POST", "PUT", "HEAD"}[i%3]
			req, err := http.NewRequestWithContext(limited(t), method, "http://"+l.in.Bound().String()+"/x", reader)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer guess")
			req.Header.Set("Other", "kept")
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			want := fmt.Sprintf("[Bearer secret] db.example %d %x <nil> kept", len(body), sha256.Sum256(body))
			if method == "HEAD" {
				want = ""
			}
			if string(got) != want || err != nil {
				t.Fatalf("request %d, %s of %d bytes: %q, %v", i, method, len(body), got, err)
			}
		}
	})
}

// Many pipelined requests, larger after the rewriting than windows are, to a server that reads them in its own time.
func TestHTTPPipelined(t *testing.T) {
	kinds(t, func(t *testing.T, plain bool) {
		const requests = 3000
		value := strings.Repeat("v", 1000)
		addr, conns := served(t)
		l := newHTTPLink(t, addr, plain, httpheader.Field{Name: "A", Value: value})
		c := dial(t, l.in)
		go func() {
			_, _ = io.WriteString(c, strings.Repeat("GET / HTTP/1.1\r\nB: 1\r\n\r\n", requests))
			_ = c.CloseWrite()
		}()
		target := next(t, conns)
		want := "GET / HTTP/1.1\r\nA: " + value + "\r\nB: 1\r\n\r\n"
		r := bufio.NewReader(target)
		got := make([]byte, len(want))
		for i := range requests {
			if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
				t.Fatalf("request %d: %v, %q", i, err, got[:20])
			}
		}
		if !plain {
			if n, err := r.Read(got); err != io.EOF {
				t.Errorf("then %d bytes, %v", n, err)
			}
		}
	})
}

// What follows an upgrade waits for the answer; then both directions are free.
func TestHTTPUpgrade(t *testing.T) {
	addr, conns := served(t)
	l := newHTTPLink(t, addr, false, httpheader.Field{Name: "A", Value: "1"})
	c := dial(t, l.in)
	upgrade := "GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
	if _, err := io.WriteString(c, upgrade+"\r\n\x81\x00\r\n"); err != nil {
		t.Fatal(err)
	}
	target := next(t, conns)
	expect(t, target, strings.Replace(upgrade, "\r\n", "\r\nA: 1\r\n", 1)+"\r\n")
	answer := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x82"
	if _, err := io.WriteString(target, answer); err != nil {
		t.Fatal(err)
	}
	expect(t, c, answer)
	expect(t, target, "\x81\x00\r\n")
	if _, err := io.WriteString(c, "GET raw\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	expect(t, target, "GET raw\r\n\r\n")
}

// A request that could be read in two ways reaches nobody; the client is told.
func TestHTTPRefused(t *testing.T) {
	addr, conns := served(t)
	l := newHTTPLink(t, addr, false, httpheader.Field{Name: "A", Value: "1"})
	c := dial(t, l.in)
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || err != nil {
		t.Errorf("%q, %v", answer, err)
	}
	if got, _ := io.ReadAll(next(t, conns)); len(got) > 0 {
		t.Errorf("the server got %q", got)
	}
	if n := l.a.env.Stats.Ended[ReasonProtocol].Load(); n != 1 {
		t.Errorf("counted %d", n)
	}
}

// An outlet can rewrite too.
func TestHTTPOutlet(t *testing.T) {
	kinds(t, func(t *testing.T, plain bool) {
		addr, conns := served(t)
		l := newLink(t, addr, plain, Limits{}, Limits{})
		ctx := limited(t)
		_, err := NewOutlet(ctx, l.b.env, l.b.router, OutletOptions{Name: "fixed", Target: addr, Flows: []*routing.Flow{l.b.ln.Flow}, Rewrite: func() Rewriter {
			return httpheader.New(httpheader.Options{NoUpgrade: true, Fields: func() []httpheader.Field { return []httpheader.Field{{Name: "A", Value: "1"}} }})
		}})
		if err != nil {
			t.Fatal(err)
		}
		l.in.SetPath(l.path.WithoutLast().Concat(routing.LocalRoute("fixed")))
		c := dial(t, l.in)
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\na: 2\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		expect(t, next(t, conns), "GET / HTTP/1.1\r\nA: 1\r\n\r\n")
		if _, err := io.WriteString(c, "GET  / HTTP/1.1\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("%d bytes after a malformed request", n)
		}
	})
}
