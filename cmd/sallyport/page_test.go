package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/chromium"
)

var pictures = flag.Bool("pictures", false, "TestCLIPage makes the pictures in docs/, of the page and of commands")

// answerTimes is how many bytes answerer says for each that it gets.
const answerTimes = 3

// answerer says more than it is asked, as databases do.
func answerer(c net.Conn) {
	b := make([]byte, 32<<10)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		for range answerTimes {
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
	}
}

// talk keeps clients of a port busy until stop is called: each sends and reads what comes back, at a rate of its own.
func talk(t *testing.T, port string, clients int) (stop func()) {
	t.Helper()
	ended := make(chan struct{})
	var all sync.WaitGroup
	for i := range clients {
		all.Add(1)
		go func() {
			defer all.Done()
			for turn := 0; ; turn++ {
				busy := 1 + 5*(i+1)*((turn+i)%3)
				select {
				case <-ended:
					return
				case <-time.After(20 * time.Millisecond):
				}
				c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
				if err != nil {
					continue
				}
				b := make([]byte, 1000*busy)
				for range 60 + 20*i {
					_ = c.SetDeadline(time.Now().Add(5 * time.Second))
					if _, err := c.Write(b); err != nil {
						break
					}
					if _, err := io.CopyN(io.Discard, c, int64(len(b))*answerTimes); err != nil {
						break
					}
					select {
					case <-ended:
					case <-time.After(time.Duration(30+40*i) * time.Millisecond):
						continue
					}
					break
				}
				_ = c.Close()
			}
		}()
	}
	return sync.OnceFunc(func() {
		close(ended)
		all.Wait()
	})
}

// watched is a page that a test looks at.
type watched struct {
	*chromium.Page
	t   *testing.T
	ctx context.Context
}

func (w *watched) eval(script string, result any) {
	w.t.Helper()
	if err := w.Eval(w.ctx, script, result); err != nil {
		w.t.Fatal(err)
	}
}

// until waits until a script is true, and returns how long that took.
func (w *watched) until(what, script string) time.Duration {
	w.t.Helper()
	began := time.Now()
	for time.Since(began) < 60*time.Second {
		is := false
		w.eval("!!("+script+")", &is)
		if is {
			return time.Since(began)
		}
		time.Sleep(50 * time.Millisecond)
	}
	text := ""
	w.eval("document.body.innerText", &text)
	w.t.Fatalf("%s: not so within a minute:\n%s", what, text)
	return 0
}

func (w *watched) key(key, text string, code int) {
	w.t.Helper()
	if err := w.Key(w.ctx, key, text, code); err != nil {
		w.t.Fatal(err)
	}
}

// tabTo presses Tab until an element has the focus.
func (w *watched) tabTo(selector string) {
	w.t.Helper()
	for range 40 {
		w.key("Tab", "", 9)
		at := false
		w.eval("document.activeElement.matches("+quoted(selector)+")", &at)
		if at {
			return
		}
	}
	w.t.Fatalf("Tab does not lead to %s", selector)
}

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// clean fails the test for what the page or the browser complained of.
func (w *watched) clean(when string) {
	w.t.Helper()
	for _, p := range w.Problems() {
		w.t.Errorf("%s: the console says %s", when, p)
	}
}

func (w *watched) picture(name string, width, height int, scheme string) {
	w.t.Helper()
	if err := w.Look(w.ctx, width, height, scheme); err != nil {
		w.t.Fatal(err)
	}
	w.until("drawn", "document.querySelectorAll('.leg').length > 0")
	b, err := w.Picture(w.ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("..", "..", "docs", name), b, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// TestCLIPage looks at the page of each node of a story in a headless Chromium: every leg is green, a leg whose other end dies turns red within
// three seconds and green again, a keyboard is enough, a stranger's attribute is text, and the console has nothing to complain of.
func TestCLIPage(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	b, err := chromium.Open(ctx)
	if errors.Is(err, chromium.ErrAbsent) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	w := &watched{b, t, ctx}

	s := newShell(t)
	relay := s.apart()
	bank, analysis := "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t)
	hostile := `<img src=x onerror=alert(1)>`
	s.at("authority", "sallyport project ticket --relay postgres > bank.ticket; sallyport project ticket --attribute company=analysis --attribute 'note="+hostile+"' > analysis.ticket")
	target := listenAt(t, "0")
	targetPort := serveOn(t, target, answerer)
	port := freePort(t)
	s.at("bank", "sallyport project enroll bank.ticket; sallyport node create bank --status-endpoint "+bank+
		"; sallyport tcp-outlet create db --at bank --to "+targetPort+" --allow company=analysis; sallyport relay create postgres --to bank")
	s.at("analysis", "sallyport project enroll analysis.ticket; sallyport node create analysis --status-endpoint "+analysis+
		"; sallyport tcp-inlet create db-in --at analysis --from "+port+" --to db --via postgres --tell-client")
	s.awaits("analysis", "sallyport tcp-inlet show db-in --at analysis --jq .status", "Up")
	stop := talk(t, port, 5)
	defer stop()

	if err := w.Look(ctx, 1320, 1000, "light"); err != nil {
		t.Fatal(err)
	}
	const green = "document.querySelectorAll('.leg').length > 0 && [...document.querySelectorAll('.leg')].every(l => l.classList.contains('up'))"
	const red = "document.querySelector('.leg.down') && document.querySelector('#state').classList.contains('down')"
	for _, at := range []struct{ name, address, places string }{
		{"bank", bank, "Clients Relay Outlet · this box Target"}, {"relay", relay, "Inlets Relay · this box Outlet"},
		{"analysis", analysis, "Clients Inlet · this box Relay Outlet Target"},
	} {
		if err := w.Go(ctx, "http://"+at.address+"/"); err != nil {
			t.Fatal(err)
		}
		w.until(at.name+" is drawn", "document.querySelectorAll('.place').length > 0")
		places := ""
		w.eval("[...document.querySelectorAll('.place b')].map(b => b.textContent).join(' ')", &places)
		if places != at.places {
			t.Errorf("the page of %s has the boxes %q", at.name, places)
		}
		w.until("all legs of "+at.name+" are green", green)
		if at.name == "bank" {
			w.until("the attribute is shown", "[...document.querySelectorAll('#connections td')].some(d => d.textContent.includes("+quoted(hostile)+"))")
			elements := 0
			w.eval("document.querySelectorAll('img').length", &elements)
			if elements != 0 {
				t.Error("an attribute became an element")
			}
		}
		w.clean("the page of " + at.name)
	}
	w.until("connections are listed", "document.querySelectorAll('#connections tbody tr').length >= 3")
	w.until("rates are shown", "/[1-9].*B\\/s/.test(document.querySelector('.leg .to').textContent)")

	w.tabTo("#pause")
	w.key("Enter", "\r", 13)
	w.until("Enter pauses", "document.querySelector('#pause').getAttribute('aria-pressed') === 'true'")
	w.key(" ", " ", 32)
	w.until("the space bar goes on", "document.querySelector('#pause').getAttribute('aria-pressed') === 'false'")
	w.tabTo("[data-key=toTarget]")
	w.key("Enter", "\r", 13)
	w.until("Enter sorts", "document.querySelector('[data-key=toTarget]').closest('th').getAttribute('aria-sort') === 'descending'")
	w.clean("keys")

	if *pictures {
		time.Sleep(75 * time.Second) // so that there is a past to draw
		w.eval("document.activeElement.blur()", nil)
		w.picture("page-light.png", 1320, 1010, "light")
		w.picture("page-dark.png", 1320, 1010, "dark")
		_ = w.Look(ctx, 1320, 1000, "light")
		drawTerminal(t, "top.svg", "sallyport top", s.onTerminal("analysis", "sallyport top --count 1 --at analysis"))
	}

	// A leg that dies turns red within three seconds: of three deaths one must be seen so soon, since a machine may be busy.
	soon := time.Hour
	for range 3 {
		s.at("relay", "kill -9 $(sallyport node show relay-partners --jq .pid)")
		took := w.until("a leg is red when the relay has died", red)
		if soon = min(soon, took); *pictures {
			drawTerminal(t, "status.svg", "sallyport status", s.onTerminal("analysis", "sallyport status"))
			w.picture("page-down.png", 1320, 560, "light")
			_ = w.Look(ctx, 1320, 1000, "light")
		}
		s.at("relay", "sallyport node start relay-partners")
		w.until("all legs are green again", green)
		if soon <= 3*time.Second {
			break
		}
	}
	t.Logf("a leg whose relay dies is red after %.1f s", soon.Seconds())
	if soon > 3*time.Second {
		t.Errorf("a dead leg is red after %v", soon)
	}
	w.clean("the relay died")
	stop()
	_ = target.Close()
	if c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second); err == nil {
		_, _ = c.Read(make([]byte, 1))
		_ = c.Close()
	}
	took := w.until("the leg to the target is red", "[...document.querySelectorAll('.leg')].at(-1).classList.contains('down')")
	t.Logf("a leg whose target dies is red %.1f s after a client", took.Seconds())
	w.clean("the target died")
	if err := w.Look(ctx, 400, 900, "dark"); err != nil {
		t.Fatal(err)
	}
	wide := 0
	w.eval("document.documentElement.scrollWidth", &wide)
	if wide > 400 {
		t.Errorf("a window 400 pixels wide has to be scrolled to %d", wide)
	}
}

// TestCLIPageIsForOne: who asks with the name of somebody else, from another page, or from another machine without the token, reads nothing.
func TestCLIPageIsForOne(t *testing.T) {
	t.Parallel()
	p := ours(t)
	token := "0123456789abcdef0123456789abcdef"
	file := filepath.Join(p.dir, "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	here, any, locked := freePort(t), freePort(t), freePort(t)
	p.must(t, "node", "create", "here", "--status-endpoint", "127.0.0.1:"+here)
	p.must(t, "node", "create", "any", "--status-endpoint", "0.0.0.0:"+any)
	p.must(t, "node", "create", "locked", "--status-endpoint", "0.0.0.0:"+locked, "--status-token", "token")
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+token))
	for _, q := range []struct {
		port, path string
		headers    map[string]string
		want       int
	}{
		{here, "/", nil, 200}, {here, "/page/now", nil, 200}, {here, "/page/past", nil, 200}, {here, "/page/page.js", nil, 200}, {here, "/page/other", nil, 404},
		{here, "/", map[string]string{"Host": "localhost:1"}, 200}, {here, "/page/now", map[string]string{"Host": "evil.example"}, 421},
		{here, "/page/now", map[string]string{"Host": "10.0.0.1"}, 421}, {here, "/", map[string]string{"Host": "10.0.0.1"}, 421},
		{here, "/page/now", map[string]string{"Origin": "http://127.0.0.1:" + here}, 200},
		{here, "/page/now", map[string]string{"Origin": "http://127.0.0.1:1"}, 403}, {here, "/page/now", map[string]string{"Origin": "null"}, 403},
		{here, "/metrics", map[string]string{"Origin": "http://evil.example"}, 403},
		{here, "/page/now", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403}, {here, "/page/now", map[string]string{"Sec-Fetch-Site": "same-origin"}, 200},
		{here, "/", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200},
		{here, "/", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403},
		{any, "/", nil, 403}, {any, "/page/now", nil, 403}, {any, "/page/past", nil, 403}, {any, "/metrics", nil, 200}, {any, "/healthz", nil, 200},
		{locked, "/", nil, 401}, {locked, "/page/now", nil, 401}, {locked, "/metrics", nil, 401}, {locked, "/show", nil, 401}, {locked, "/healthz", nil, 200},
		{locked, "/readyz", nil, 200}, {locked, "/page/now", map[string]string{"Authorization": "Bearer " + token}, 200},
		{locked, "/", map[string]string{"Authorization": basic}, 200}, {locked, "/metrics", map[string]string{"Authorization": "Bearer " + token}, 200},
		{locked, "/", map[string]string{"Authorization": "Bearer "}, 401}, {locked, "/", map[string]string{"Authorization": "Bearer " + token[1:]}, 401},
		{locked, "/", map[string]string{"Authorization": "Basic !"}, 401},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+q.port+q.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range q.headers {
			if req.Header.Set(k, v); k == "Host" {
				req.Host = v
			}
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != q.want {
			t.Errorf("%s with %v: %d, not %d: %.100s", q.path, q.headers, resp.StatusCode, q.want, body)
		}
		if policy := resp.Header.Get("Content-Security-Policy"); q.want == 200 && (q.path == "/" || q.path == "/page/now") &&
			(!strings.HasPrefix(policy, "default-src 'none'; script-src 'self'; style-src 'self';") || strings.Contains(policy, "unsafe")) {
			t.Errorf("%s may do %q", q.path, policy)
		}
	}
	for name, text := range map[string]string{"short": "secret", "words": "two words that are long", "none": ""} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p.fails(t, "one word of at least 16", "node", "create", "bad", "--status-token", name)
	}
	p.fails(t, "no such file", "node", "create", "bad", "--status-token", "nowhere")
	sh := &shell{&program{path: "/bin/sh", dir: p.dir, env: append(p.env, "SALLYPORT="+p.path)}, t}
	for _, line := range []string{`"$SALLYPORT" node show here`, `"$SALLYPORT" status`} {
		if text := sh.onTerminal("state", line); !strings.Contains(text, "http://127.0.0.1:"+here+"/") || strings.Contains(text, "://0.0.0.0") || strings.Contains(text, ":"+any+"/") {
			t.Errorf("%s does not say where the page is:\n%s", line, text)
		}
	}
}
