// Package page is what a person sees at a node's status address: a page that draws the ways that the node is part of, its portals, connections and
// events. The page reads, and changes nothing. It needs nothing but the node.
package page

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

//go:embed index.html page.css page.js icon.svg
var files embed.FS

// policy is what the page may do in a browser: run and show what this node serves, ask this node, and nothing else. Text never becomes markup.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; " +
	"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Token is what who asks from another machine must show. The zero value is none, and fits nothing.
type Token struct {
	sum [sha256.Size]byte
	set bool
}

// minToken is how long a token must be, in bytes: nobody guesses it.
const minToken = 16

// ReadToken reads a token from a file, without the white space around it.
func ReadToken(path string) (Token, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Token{}, err
	}
	b = bytes.TrimSpace(b)
	if len(b) < minToken || bytes.ContainsAny(b, " \t\r\n:") {
		return Token{}, fmt.Errorf("%s: a token is one word of at least %d characters, without a colon; openssl rand -hex 16 makes one", path, minToken)
	}
	return Token{sha256.Sum256(b), true}, nil
}

// fits reports whether a request shows the token: as Bearer, or as the password of Basic, which browsers ask for.
func (t Token) fits(r *http.Request) bool {
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		_, given, ok = r.BasicAuth()
	}
	sum := sha256.Sum256([]byte(given))
	return ok && t.set && subtle.ConstantTimeCompare(sum[:], t.sum[:]) == 1
}

// Shown reports whether a request may read what the token protects: there is none, or it shows it.
func (t Token) Shown(r *http.Request) bool { return !t.set || t.fits(r) }

// Guard answers only requests that were meant for this node and come from who may ask. at is where it listens.
//
//   - Host must be an address or localhost: a page in somebody's browser whose name was made to lead here reads nothing. For the page itself, where
//     the node listens on a loopback address, Host must be one too.
//   - Origin, where a browser says it, must be the address that is asked.
//   - With a token every path needs it but those that say only whether the node runs.
//   - The page is for loopback addresses where there is no token.
func Guard(at net.Addr, token Token, next http.Handler) http.Handler {
	tcp, _ := at.(*net.TCPAddr)
	local := tcp != nil && tcp.IP.IsLoopback()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, isLoopback := hostOf(r.Host)
		page := r.Method != http.MethodHead && r.URL.Path == "/" || strings.HasPrefix(r.URL.Path, "/page/")
		switch {
		case !host || page && (r.Host == "" || local && !isLoopback):
			http.Error(w, "ask by the node's address, or as localhost", http.StatusMisdirectedRequest)
		case !sameOrigin(r):
			http.Error(w, "asked by a page from elsewhere", http.StatusForbidden)
		case !open(r) && !token.Shown(r):
			w.Header().Set("WWW-Authenticate", `Basic realm="sallyport: any name, and the status token as password", charset="UTF-8"`)
			http.Error(w, "the status token is missing or wrong", http.StatusUnauthorized)
		case page && !local && !token.set:
			http.Error(w, "this page is for a loopback address: from other machines it needs --status-token FILE", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// open tells which paths need no token.
func open(r *http.Request) bool {
	return r.Method == http.MethodHead && r.URL.Path == "/" || r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
}

// hostOf reports whether a Host is an address or localhost, and whether that is a loopback one. Who speaks HTTP/1.0 has none.
func hostOf(host string) (ok, isLoopback bool) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	a, err := netip.ParseAddr(host)
	return err == nil || host == "localhost" || host == "", err == nil && a.Unmap().IsLoopback() || host == "localhost"
}

// sameOrigin refuses what a browser says comes from another page. Somebody may follow a link to here: what is shown then is no part of that page.
func sameOrigin(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		return err == nil && u.Host != "" && u.Host == r.Host
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	}
	return r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" && r.Method == http.MethodGet
}

// freshFor is for how long an answer is given again: many who look cost as much as one.
const freshFor = 400 * time.Millisecond

// answers gives what f makes as JSON.
type answers struct {
	f  func(context.Context) any
	mu sync.Mutex
	at time.Time
	b  []byte
}

func (a *answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	if time.Since(a.at) > freshFor {
		b, err := json.Marshal(a.f(context.WithoutCancel(r.Context())))
		if err != nil {
			b = nil
		}
		a.b, a.at = b, time.Now()
	}
	b := a.b
	a.mu.Unlock()
	if b == nil {
		http.Error(w, "no answer can be made", http.StatusInternalServerError)
		return
	}
	headers(w, "application/json")
	_, _ = w.Write(b)
}

func headers(w http.ResponseWriter, kind string) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// Mount serves the page at / and what it is made of below /page/. now says what it shows; past, asked less often, what was in the last hour.
func Mount(mux *http.ServeMux, now, past func(context.Context) any) {
	for path, name := range map[string]string{"/{$}": "index.html", "/page/page.css": "page.css", "/page/page.js": "page.js", "/page/icon.svg": "icon.svg"} {
		kinds := map[string]string{"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
		b, err := files.ReadFile(name)
		if err != nil {
			panic(errors.Join(errors.New("not embedded"), err)) // the build has it or does not compile
		}
		kind := kinds[name[strings.LastIndexByte(name, '.')+1:]]
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			headers(w, kind)
			_, _ = w.Write(b)
		})
	}
	mux.Handle("GET /page/now", &answers{f: now})
	mux.Handle("GET /page/past", &answers{f: past})
}
