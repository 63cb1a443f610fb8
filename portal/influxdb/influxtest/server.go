// Package influxtest is a server for tests that speaks as much of InfluxDB 2 as leases of tokens need: its interface for
// authorizations, and for everything else whether it knows the token.
package influxtest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// AdminToken may do everything.
const AdminToken = "all-access"

const authorizations = "/api/v2/authorizations"

// Authorization is a token.
type Authorization struct {
	ID          string `json:"id"`
	Description string `json:"description"`
	Token       string `json:"token"`
	Status      string `json:"status"`
	CreatedAt   string `json:"createdAt"`
}

// Server is the server.
type Server struct {
	*httptest.Server

	mu     sync.Mutex
	tokens map[string]Authorization
	asked  []json.RawMessage
	broken bool
	change chan struct{}
}

// New starts a server at an address, or a free port if that is empty. It ends with the test.
func New(t testing.TB, at string) *Server {
	t.Helper()
	s, err := Start(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// Start is New for a program that is no test; the caller closes the server.
func Start(at string) (*Server, error) {
	s := &Server{tokens: map[string]Authorization{}, change: make(chan struct{}, 1)}
	mux := http.NewServeMux()
	s.handle(mux, "POST "+authorizations, s.create)
	s.handle(mux, "GET "+authorizations, s.list)
	s.handle(mux, "GET "+authorizations+"/{id}", s.get)
	s.handle(mux, "DELETE "+authorizations+"/{id}", s.revoke)
	mux.HandleFunc("/", s.query)
	s.Server = httptest.NewUnstartedServer(mux)
	if at != "" {
		l, err := net.Listen("tcp", at)
		if err != nil {
			return nil, err
		}
		_ = s.Listener.Close()
		s.Listener = l
	}
	s.Server.Start()
	return s, nil
}

// Put adds a token that was not made through the interface.
func (s *Server) Put(a Authorization) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[a.ID] = a
}

// Has reports whether there is a token.
func (s *Server) Has(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.tokens[id]
	return ok
}

// Break makes the interface fail, or work again.
func (s *Server) Break(broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = broken
}

// Asked returns the bodies of the requests for tokens.
func (s *Server) Asked() []json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]json.RawMessage(nil), s.asked...)
}

// Await waits until there are n tokens.
func (s *Server) Await(t testing.TB, n int) {
	t.Helper()
	for limit := time.After(20 * time.Second); ; {
		s.mu.Lock()
		have := len(s.tokens)
		s.mu.Unlock()
		if have == n {
			return
		}
		select {
		case <-s.change:
		case <-limit:
			t.Fatalf("%d tokens, want %d", have, n)
		}
	}
}

func fail(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"code":%q,"message":"it is %s"}`, code, code)
}

func (s *Server) handle(mux *http.ServeMux, pattern string, h http.HandlerFunc) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.broken:
			w.WriteHeader(http.StatusBadGateway)
		case r.Header.Get("Authorization") != "Token "+AdminToken:
			fail(w, http.StatusUnauthorized, "unauthorized")
		default:
			h(w, r)
		}
		select {
		case s.change <- struct{}{}:
		default:
		}
	})
}

func (s *Server) create(w http.ResponseWriter, r *http.Request) {
	var raw json.RawMessage
	var body struct{ Description string }
	if json.NewDecoder(r.Body).Decode(&raw) != nil || json.Unmarshal(raw, &body) != nil {
		fail(w, http.StatusBadRequest, "invalid")
		return
	}
	s.asked = append(s.asked, raw)
	id := fmt.Sprintf("0badc0de%08d", len(s.asked))
	a := Authorization{ID: id, Description: body.Description, Token: "token-" + id, Status: "active", CreatedAt: time.Now().UTC().Format(time.RFC3339Nano)}
	s.tokens[id] = a
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(a)
}

func (s *Server) list(w http.ResponseWriter, _ *http.Request) {
	list := []Authorization{}
	for _, a := range s.tokens {
		list = append(list, a)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"authorizations": list})
}

func (s *Server) get(w http.ResponseWriter, r *http.Request) {
	a, ok := s.tokens[r.PathValue("id")]
	if !ok {
		fail(w, http.StatusNotFound, "not found")
		return
	}
	_ = json.NewEncoder(w).Encode(a)
}

func (s *Server) revoke(w http.ResponseWriter, r *http.Request) {
	if _, ok := s.tokens[r.PathValue("id")]; !ok {
		fail(w, http.StatusNotFound, "not found")
		return
	}
	delete(s.tokens, r.PathValue("id"))
	w.WriteHeader(http.StatusNoContent)
}

// query answers everything else: with the description of the token that it came with.
func (s *Server) query(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := r.Header.Values("Authorization")
	if len(got) == 1 && got[0] == "Token "+AdminToken {
		_, _ = fmt.Fprint(w, "administrator")
		return
	}
	for _, a := range s.tokens {
		if len(got) == 1 && got[0] == "Token "+a.Token {
			_, _ = fmt.Fprint(w, a.Description)
			return
		}
	}
	fail(w, http.StatusUnauthorized, "unauthorized")
}
